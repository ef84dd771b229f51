"""A cube as it was before it grew: its first patches, with what its root said of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cube.errors import RequestError
from cube.format.arrays import ArraySpec
from cube.format.versions import versions_of


def as_it_was(
    url: str, attributes: Mapping[str, Any], specs: Mapping[str, ArraySpec], version: int
) -> tuple[dict[str, Any], dict[str, ArraySpec]]:
    """Return root attributes and arrays of an earlier version. Raises ``RequestError`` for one that there never was."""
    facts = attributes["cube"]
    known = versions_of(facts, specs["patch"].shape[0])
    if type(version) is not int or not 1 <= version <= len(known):
        there = "only version 1" if len(known) == 1 else f"versions 1 to {len(known)}"
        raise RequestError(f"{url} has no version {version!r}; it has {there}")
    state = known[version - 1]
    certified = {"hash": facts["certificate"]["hash"], "pixels": state.pixels, "root": state.digest}
    facts = {**facts, "versions": facts["versions"][: version - 1], "certificate": certified}
    cut = {
        path: replace(spec, shape=(state.patches, *spec.shape[1:])) if spec.dimensions[0] == "patch" else spec
        for path, spec in specs.items()
    }
    return {**attributes, "cube": facts}, cut
