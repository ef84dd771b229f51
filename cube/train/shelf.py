"""The tiles that batches to come will want, by modality: stored bytes until they are decoded, then pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.read.pixels import PixelReader
from cube.read.ranges import Tile

Array = NDArray[Any]
_SLAB = 8 << 20
"""Bytes of memory for decoded tiles that are asked for at a time."""


@dataclass(frozen=True, kw_only=True)
class Modality:
    """What is wanted of one modality."""

    reader: PixelReader
    bands: Any
    """Positions of bands, or a slice."""
    dtype: np.dtype[Any]
    """Type of the batch; values are cast while they are copied."""

    @property
    def count(self) -> int:
        """How many bands are wanted."""
        return len(np.arange(self.reader.layout.bands)[self.bands])


class Shelf:
    """The tiles that planned batches want: their stored bytes until they are decoded, then their pixels."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality
        self.wanted: dict[Tile, int] = {}
        """Tile → planned batches that want it."""
        self.stored: dict[Tile, memoryview | None] = {}
        """Stored bytes that have been fetched; None where they are read when they are decoded."""
        self._decoded: dict[Tile, Array] = {}
        self._free: list[Array] = []

    def decoded(self, tile: Tile) -> tuple[Array, float | None]:
        """Return a tile (band, y, x), and the seconds spent on reading it if it had to be decoded.

        One thread at a time asks for one tile.
        """
        pixels = self._decoded.get(tile)
        if pixels is not None:
            return pixels, None
        reader = self.modality.reader
        room = self._room()
        seconds = reader.decode(tile, self.stored.pop(tile), room)
        self._decoded[tile] = room
        return room, seconds

    def _room(self) -> Array:
        """Return room for a tile; it is made for many at once, since small pieces of fresh memory cost more."""
        while True:
            try:
                return self._free.pop()
            except IndexError:
                layout = self.modality.reader.layout
                count = max(1, _SLAB // layout.tile_bytes)
                self._free.extend(np.empty((count, layout.bands, layout.tile, layout.tile), layout.dtype))

    def drop(self, tile: Tile) -> None:
        """Let go of a tile nobody wants any more."""
        if (room := self._decoded.pop(tile, None)) is not None:
            self._free.append(room)
        self.stored.pop(tile, None)
