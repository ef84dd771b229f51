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


def by_tile(out: Array, layout: TileLayout) -> Array:
    """Return a view (patch, band, row, y, column, x) of images (patch, band, y, x): tiles in their rows and columns."""
    return out.reshape(*out.shape[:2], layout.across, layout.tile, layout.across, layout.tile)


def fill_holes(out: Array, uses: Uses, layout: TileLayout, changes: Changes | None, value: Any) -> None:
    """Write the fill value where nothing is stored; ``out`` is that of :func:`place_tile`."""
    for row, place in uses:
        at = divmod(place, layout.across)
        if changes is None:
            out[row, :, at[0], :, at[1]] = value
        elif (move := changes.move(row, at, layout.tile, layout.size)) is not None:
            out[row, :, *move[2]] = value


def place_tile(out: Array, pixels: Array, bands: Any, uses: Uses, layout: TileLayout, changes: Changes | None) -> None:
    """Copy some bands of a tile (band, y, x) to each of its places in a batch, cast to its type.

    ``out`` is (patch, band, y, x), or that seen :func:`by_tile` where nothing is changed.
    """
    chosen = pixels[bands]
    if changes is None:
        if out.dtype == pixels.dtype and out.shape[-1] * out.itemsize % 8 == 0:  # the same copy in fewer steps
            out, chosen = out.view(np.uint64), np.ascontiguousarray(chosen).view(np.uint64)
        for row, place in uses:
            np.copyto(out[row, :, place // layout.across, :, place % layout.across], chosen, casting="unsafe")
        return
    for row, place in uses:
        move = changes.move(row, divmod(place, layout.across), layout.tile, layout.size)
        if move is not None:
            turn, (rows, columns), (to_rows, to_columns) = move
            np.copyto(out[row, :, to_rows, to_columns], turned(chosen[:, rows, columns], turn), casting="unsafe")
