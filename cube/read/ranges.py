"""What is wanted of a cube's pixels, and which tiles are fetched together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cube.format.tiles import TileLayout
from cube.store.protocol import Range

_GAP = 1 << 15
"""Bytes between two wanted tiles that are fetched along rather than asked for separately."""
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


def joined(tiles: list[Tile], key_of: Callable[[int], str]) -> tuple[list[Range], list[int]]:
    """Return the ranges to fetch for sorted tiles, and for each tile which one it lies in; ``key_of`` names shards."""
    ranges: list[Range] = []
    owners = []
    shard, key, end = -1, "", 0
    for tile in tiles:
        stop = tile.offset + tile.length
        if tile.shard == shard and tile.offset - end <= _GAP:
            end = max(stop, end)
            ranges[-1] = Range(key, ranges[-1].start, end)
        else:
            if tile.shard != shard:
                shard, key = tile.shard, key_of(tile.shard)
            end = stop
            ranges.append(Range(key, tile.offset, stop))
        owners.append(len(ranges) - 1)
    return ranges, owners


def lengths(layout: TileLayout, window: Window) -> tuple[int, int, int]:
    """Return how many bands, rows and columns of a patch a window holds."""
    size = layout.size
    bands = np.arange(layout.bands)[window.bands]
    return len(bands), len(range(size)[window.y]), len(range(size)[window.x])


def places(layout: TileLayout, window: Window) -> list[int]:
    """Return the tiles of a patch that a window touches, in row-major order."""
    (top, bottom), (left, right) = span(window.y, layout.size), span(window.x, layout.size)
    tile, across = layout.tile, layout.across
    rows, columns = range(top // tile, -(-bottom // tile)), range(left // tile, -(-right // tile))
    return [row * across + column for row in rows for column in columns]


def target(layout: TileLayout, place: int, window: Window) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of a patch's result a tile goes to, and the part of the tile that goes there."""
    tile = layout.tile
    corner = divmod(place, layout.across)
    parts = []
    for at, wanted in zip(corner, (window.y, window.x), strict=True):
        start, stop = span(wanted, layout.size)
        low, high = max(start, at * tile), min(stop, (at + 1) * tile)
        parts.append((slice(low - start, high - start), slice(low - at * tile, high - at * tile)))
    (to_y, from_y), (to_x, from_x) = parts
    return (to_y, to_x), (from_y, from_x)
