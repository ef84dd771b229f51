"""What is wanted of a cube's pixels, and which tiles are fetched together. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

_AT_ONCE = 64 << 20
"""Encoded bytes fetched before they are decoded."""
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Window:
    """What is wanted of each patch: all of it by default."""

    bands: slice | Array = field(default_factory=lambda: slice(None))
    y: slice = field(default_factory=lambda: slice(None))
    x: slice = field(default_factory=lambda: slice(None))
    """Rows and columns; steps are 1."""


WHOLE = Window()
"""Every band and pixel."""


class Tile(NamedTuple):
    """Where one distinct tile is stored."""

    shard: int
    offset: int
    length: int


def span(part: slice, size: int) -> tuple[int, int]:
    """Return start and stop of a slice with step 1."""
    start, stop, step = part.indices(size)
    assert step == 1
    return start, max(start, stop)


def groups(tiles: list[Tile]) -> Iterator[list[Tile]]:
    """Split tiles into runs of bounded encoded size."""
    group: list[Tile] = []
    held = 0
    for tile in tiles:
        if group and held + tile.length > _AT_ONCE:
            yield group
            group, held = [], 0
        group.append(tile)
        held += tile.length
    if group:
        yield group
