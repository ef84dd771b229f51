"""What the root document says of a cube, held against what the certificate covers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.format.arrays import ArraySpec
from cube.format.documents import parse_object
from cube.format.layout import CLASS_NAMES, DAYS, NO_DAY, spatial

_DECODING = {"scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "flag_masks", "calendar"}
"""Attributes by which readers change values. A cube has none: its pixels are what they are."""

Statement = tuple[str, str]
"""Where something wrong is said, and what is wrong with it."""


def grown_document(told: Any, stored: bytes) -> bool:
    """Tell whether a stored metadata document is of the array that the root tells of, with more patches."""
    try:
        document = parse_object(stored)
        longer = all(there >= here for there, here in zip(document["shape"], told["shape"], strict=True))
        rest = [
            {k: v for k, v in item.items() if k != "shape"} | {"attributes": _own_words(item["attributes"])}
            for item in (document, told)
        ]
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    return longer and rest[0] == rest[1]


def _own_words(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes without what the files of an array say, which may be told no more when others come."""
    return {name: value for name, value in attributes.items() if not name.startswith("file_")}


def wrong_statements(
    facts: Mapping[str, Any], root: Mapping[str, Any], specs: Sequence[ArraySpec], values: Mapping[str, NDArray[Any]]
) -> Iterator[Statement]:
    """Yield what readers are told that does not agree with the arrays.

    ``facts`` is the attribute ``cube`` of the root, ``root`` all its attributes, ``specs`` the arrays as their certified
    documents describe them, ``values`` the certified values of the small ones.
    """
    by_path = {spec.path: spec for spec in specs}
    yield from _modalities(facts, by_path, values)
    yield from _lengths(specs, values)
    for spec in specs:
        if told := sorted(_DECODING & spec.attributes.keys() - _known(spec)):
            yield spec.path, f"its attributes {', '.join(told)} would change its values on reading; a cube has none such"
    listed = set(str(root.get("coordinates", "")).split())
    own = {path for path in by_path if "/" not in path} - set(facts["modalities"])
    if listed != own:
        yield "coordinates", f"it names {', '.join(sorted(listed ^ own))} otherwise than the arrays that are there"
    if "season" in values and (unknown := sorted(set(np.unique(values["season"]).tolist()) - set(facts["seasons"]))):
        yield "cube.seasons", f"it lacks {', '.join(unknown)}, which patches have"


def _known(spec: ArraySpec) -> set[str]:
    """Return the attributes that the format gives to labels that are dates, or several classes."""
    told = spec.attributes
    days = told.get("units") == DAYS and told.get("_FillValue") == NO_DAY and spec.dimensions == ("patch",)
    masks = [1 << place for place in range(len(told.get(CLASS_NAMES, ())))]
    return ({"_FillValue"} if days else set()) | ({"flag_masks"} if masks and told.get("flag_masks") == masks else set())


def _modalities(
    facts: Mapping[str, Any], by_path: Mapping[str, ArraySpec], values: Mapping[str, NDArray[Any]]
) -> Iterator[Statement]:
    names = list(facts["modalities"])
    if "modality" in values and values["modality"].tolist() != names:
        yield "cube.modalities", f"it names {', '.join(names)}, the array `modality` {', '.join(values['modality'].tolist())}"
    most = max((by_path[name].shape[-1] for name in names if name in by_path), default=0)
    if facts.get("size", most) != most:
        yield "cube.size", f"it is {facts['size']}, the largest images have {most} pixels a side"
    for name, bands in facts["modalities"].items():
        spec, dimension = by_path.get(name), f"{name}_band"
        if spec is None or spec.inner is None:
            yield "cube.modalities", f"{name} is no array of pixels"
            continue
        if dimension in values and values[dimension].tolist() != list(bands):
            yield "cube.modalities", f"the bands of {name} are {', '.join(map(str, bands))}, those of `{dimension}` are others"
        if spec.dimensions != ("patch", dimension, *spatial(spec.shape[-1], most)) or len(bands) != spec.shape[1]:
            yield name, f"its dimensions are {spec.dimensions} with {spec.shape[1]} bands"
        tile = facts["tile"] * spec.shape[-1] // max(1, most)
        if spec.inner != (1, spec.shape[1], tile, tile):
            yield "cube.tile", f"it is {facts['tile']}, the tiles of {name} are {' × '.join(map(str, spec.inner))}"


def _lengths(specs: Sequence[ArraySpec], values: Mapping[str, NDArray[Any]]) -> Iterator[Statement]:
    """Yield arrays that are longer or shorter along a dimension than others."""
    known: dict[str, tuple[int, str]] = {}
    for spec in specs:
        scope = spec.path.rpartition("/")[0]
        if len(spec.dimensions) != len(spec.shape):
            yield spec.path, f"it names {len(spec.dimensions)} dimensions, and has {len(spec.shape)}"
            continue
        for dimension, length in zip(spec.dimensions, spec.shape, strict=True):
            local = dimension if dimension in ("patch", "modality") else f"{scope}/{dimension}"
            first = known.setdefault(local, (length, spec.path))
            if first[0] != length:
                yield spec.path, f"it has {length:,} along {dimension}, {first[1]} has {first[0]:,}"
