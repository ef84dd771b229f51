"""Decoded tiles in slots of one piece of memory, and the copies from there into batches: rows are gathered, many at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.read.pixels import PixelReader
from cube.tasks.augmenting import Changes, turned

Array = NDArray[Any]
_CAST = 1 << 20
"""Bytes that are gathered before they are cast, so that they are still in a processor's cache."""


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

    @property
    def tile_bytes(self) -> int:
        """Bytes of the wanted bands of a decoded tile."""
        layout = self.reader.layout
        return layout.tile_bytes // layout.bands * self.count


@dataclass(frozen=True, kw_only=True)
class Output:
    """One array of a batch: the bands of one modality, or of several that are joined."""

    name: str
    modalities: Mapping[str, Modality]
    dtype: np.dtype[Any]
    """Type of the array."""

    @property
    def size(self) -> int:
        """Side of a patch in pixels."""
        return next(iter(self.modalities.values())).reader.layout.size

    @property
    def bands(self) -> int:
        """Bands of all modalities."""
        return sum(modality.count for modality in self.modalities.values())

    @property
    def patch_bytes(self) -> int:
        """Bytes of a patch."""
        return self.bands * self.size**2 * self.dtype.itemsize

    @property
    def parts(self) -> dict[str, slice]:
        """Modality → its bands in the array."""
        ends = np.cumsum([0, *(modality.count for modality in self.modalities.values())]).tolist()
        return {name: slice(low, high) for name, (low, high) in zip(self.modalities, pairwise(ends), strict=True)}


def outputs_of(modalities: Mapping[str, Modality], stack: Mapping[str, Sequence[str]]) -> list[Output]:
    """Return the arrays of a batch: what is not joined by itself, then what is."""
    stacked = {name for names in stack.values() for name in names}
    arrays = [*((name, (name,)) for name in modalities if name not in stacked), *stack.items()]
    outputs = []
    for array, names in arrays:
        parts = {name: modalities[name] for name in names}
        dtype = np.result_type(*(part.dtype for part in parts.values()))
        outputs.append(Output(name=array, modalities=parts, dtype=dtype))
    return outputs


class Pool:
    """The slots of one modality: decoded tiles (slot, band, y, x) as they are stored. The first slot holds the fill value.

    A tile's rows of pixels lie in memory one after the other, and so do those of an image, in another order: copying tiles to
    patches is taking rows.
    """

    def __init__(self, modality: Modality, slots: int, memory: Array) -> None:
        """Use ``memory``, which has ``slots`` times the bytes of a tile."""
        layout = modality.reader.layout
        self._across, self._tile, self._size = layout.across, layout.tile, layout.size
        self.tiles = memory.view(layout.dtype).reshape(slots, modality.count, layout.tile, layout.tile)
        """(slot, band, y, x)"""
        self.tiles[0] = modality.reader.fill
        row = self._row = np.dtype((np.void, layout.tile * self.tiles.itemsize))
        self._rows = memory.view(row)
        first = np.arange(modality.count * layout.tile, dtype=np.intp)
        self._first = first.reshape(modality.count, 1, layout.tile, 1)
        """(band, 1, y, 1): the rows of the first slot."""
        self._local = threading.local()

    def copy(self, gathered: Array, out: Array) -> None:
        """Copy the tiles of some patches to their places, cast to the type of ``out`` (patch, band, y, x).

        ``gathered`` is (patch, place): slots. Each patch of ``out`` is contiguous.
        """
        if out.dtype == self.tiles.dtype and out.flags.c_contiguous:
            self._take(gathered, out)
        elif out.dtype == self.tiles.dtype:
            for slots, patch in zip(gathered, out, strict=True):
                self._take(slots, patch)
        else:
            some = max(1, _CAST // (out[0].size * self.tiles.itemsize))
            for start in range(0, len(out), some):
                part = out[start : start + some]
                room = self._room((some, *out.shape[1:]))[: len(part)]
                self._take(gathered[start : start + some], room)
                np.copyto(part, room, casting="unsafe")

    def _take(self, gathered: Array, out: Array) -> None:
        places = gathered.reshape(-1, 1, self._across, 1, self._across) * self._first.size + self._first
        # Slots are those of the pool; "clip" is the mode in which NumPy writes to `out` itself.
        np.take(self._rows, places.reshape(-1), out=out.reshape(-1).view(self._row), mode="clip")

    def _room(self, shape: tuple[int, ...]) -> Array:
        """Return this thread's room for images as they are stored."""
        room = getattr(self._local, "room", None)
        if room is None or room.shape != shape:
            room = self._local.room = np.empty(shape, self.tiles.dtype)
        return room

    def place(self, gathered: Array, out: Array, changes: Changes, first: int) -> None:
        """Copy as :meth:`copy` does what is left of patches that are cropped, mirrored and turned.

        ``first`` is the number of the first of these patches in its batch.
        """
        for row, slots in enumerate(gathered.tolist()):
            for place, slot in enumerate(slots):
                move = changes.move(first + row, divmod(place, self._across), self._tile, self._size)
                if move is not None:
                    turn, (rows, columns), (to_rows, to_columns) = move
                    changed = turned(self.tiles[slot][:, rows, columns], turn)
                    np.copyto(out[row, :, to_rows, to_columns], changed, casting="unsafe")
