"""Decoded tiles copied to their places in a batch, as they are or cropped, mirrored and turned on the way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.format.tiles import TileLayout
from cube.tasks.augmenting import Changes, turned

Array = NDArray[Any]
Uses = Iterable[tuple[int, int]]
"""Row of the batch and place in the patch, row by row."""


def fill_holes(out: Array, uses: Uses, layout: TileLayout, changes: Changes | None, value: Any) -> None:
    """Write the fill value where nothing is stored; ``out`` is (patch, band, y, x)."""
    for row, place in uses:
        if changes is None:
            _cut(out, layout)[row, :, place // layout.across, :, place % layout.across] = value
        elif (move := changes.move(row, divmod(place, layout.across), layout.tile, layout.size)) is not None:
            out[row, :, *move[2]] = value


def place_tile(out: Array, pixels: Array, bands: Any, uses: Uses, layout: TileLayout, changes: Changes | None) -> None:
    """Copy some bands of a tile (band, y, x) to each of its places in ``out`` (patch, band, y, x), cast to its type."""
    if changes is None:
        _place_plain(_cut(out, layout), pixels, bands, uses, layout.across)
        return
    chosen = pixels[bands]
    for row, place in uses:
        move = changes.move(row, divmod(place, layout.across), layout.tile, layout.size)
        if move is not None:
            turn, (rows, columns), (to_rows, to_columns) = move
            np.copyto(out[row, :, to_rows, to_columns], turned(chosen[:, rows, columns], turn), casting="unsafe")


def _place_plain(cut: Array, pixels: Array, bands: Any, uses: Uses, across: int) -> None:
    chosen = pixels[bands]
    if cut.dtype == pixels.dtype and cut.shape[-1] * cut.itemsize % 8 == 0:  # the same copy in fewer steps
        cut, chosen = cut.view(np.uint64), np.ascontiguousarray(chosen).view(np.uint64)
    for row, place in uses:
        np.copyto(cut[row, :, place // across, :, place % across], chosen, casting="unsafe")


def _cut(out: Array, layout: TileLayout) -> Array:
    """Return a view (patch, band, row, y, column, x) of tiles in their rows and columns."""
    return out.reshape(*out.shape[:2], layout.across, layout.tile, layout.across, layout.tile)
