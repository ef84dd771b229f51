"""What a cube was before it grew, and which of its rows stand for another. Pure.

Rows are only ever added, so every earlier version of a cube is its first patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SUPERSEDES = "supersedes"
"""Label of a cube in which patches were replaced: the row that each one takes the place of, or -1."""


class Version(NamedTuple):
    """One state of a cube."""

    number: int
    """From 1 on."""
    patches: int
    """Rows, the first of the cube; replaced ones are among them."""
    pixels: str
    """Digest of the pixels."""
    digest: str
    """Digest of the root."""


def versions_of(facts: Mapping[str, Any], patches: int) -> list[Version]:
    """Return all versions of a cube, the one that stands last, by the attribute ``cube`` of its root and its patches."""
    earlier = [(item["patches"], item["pixels"], item["digest"]) for item in facts.get("versions", [])]
    certified = facts["certificate"]
    states = [*earlier, (patches, certified["pixels"], certified["root"])]
    return [Version(number, *state) for number, state in enumerate(states, 1)]


def current_rows(supersedes: NDArray[Any]) -> NDArray[np.intp]:
    """Return the rows that no other one takes the place of, by the label (patch)."""
    hidden = np.zeros(len(supersedes), bool)
    hidden[supersedes[supersedes >= 0]] = True
    return np.flatnonzero(~hidden)
