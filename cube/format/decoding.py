"""Stored tiles → pixels: all bands, or those that are wanted, in the type that is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import CorruptError
from cube.format.blocks import block_size, blocks_of, pick
from cube.format.tiles import TileLayout, checked_body

Array = NDArray[Any]
_WORTH = 0.8
"""Part of a tile's bytes below which it pays to decode some blocks alone."""


@dataclass(frozen=True)
class _Part:
    """The blocks of a tile that hold some bands."""

    blocks: list[int]
    decoded: Array
    """Room for their bytes."""
    bands: list[Array]
    """Each band (y, x) in that room."""


class TileDecoder:
    """Decodes tiles of one layout. Keeps a buffer, so it is for one thread at a time."""

    def __init__(self, layout: TileLayout, bands: Any = slice(None)) -> None:
        """``bands`` are the positions of the bands that are wanted, in their order, or a slice."""
        self.layout = layout
        self.bands = np.arange(layout.bands)[bands]
        """Positions of the bands."""
        self._all = np.array_equal(self.bands, np.arange(layout.bands))
        self._compressor = layout.compressor()
        self._dtype = np.dtype(layout.dtype)
        self._parts: dict[int, _Part | None] = {}
        """Bytes of a block → the blocks that hold the bands; None where those are nearly all."""
        self._whole: _Part | None = None

    def decode(self, data: Any, out: Array) -> None:
        """Decode the stored bytes of a tile into ``out`` (band, y, x), cast to its type.

        Raises ``CorruptError`` if the checksum is wrong or the bytes are not such a tile.
        """
        body = checked_body(self.layout, data)
        if self._all and out.dtype == self._dtype and out.flags.c_contiguous:
            self._decompress(body, out)
            return
        part = None if self._all else self._part(block_size(body.data))
        some = None if part is None else pick(body.data, part.blocks, self.layout.tile_bytes)
        if part is None or some is None:
            part = self._whole = self._whole or self._of(range(1), self.layout.tile_bytes)
            self._decompress(body, part.decoded)
        else:
            self._decompress(some, part.decoded)
        for to, band in zip(out, part.bands, strict=True):
            np.copyto(to, band, casting="unsafe")

    def _part(self, size: int) -> _Part | None:
        """Return the blocks of ``size`` bytes to decode, or None for all."""
        if size not in self._parts:
            total = self.layout.tile_bytes
            blocks = blocks_of(self.bands.tolist(), total // self.layout.bands, size, total) if 0 < size < total else []
            self._parts[size] = self._of(blocks, size) if 0 < len(blocks) * size <= _WORTH * total else None
        return self._parts[size]

    def _of(self, blocks: Any, size: int) -> _Part:
        """Return room for some blocks of ``size`` bytes, and where the bands lie in it."""
        room, band = np.empty(len(blocks) * size, np.uint8), self.layout.tile_bytes // self.layout.bands
        starts = [blocks.index(at * band // size) * size + at * band % size for at in self.bands.tolist()]
        views = [room[start : start + band].view(self._dtype).reshape(self.layout.tile, -1) for start in starts]
        lost = -self.layout.tile_bytes % size if blocks[-1] == self.layout.tile_bytes // size else 0
        return _Part(list(blocks), room[: len(room) - lost], views)

    def _decompress(self, body: Any, out: Array) -> None:
        try:
            self._compressor.decode(body, out=out)
        except (RuntimeError, ValueError) as error:
            raise CorruptError(f"a tile cannot be decoded ({error})") from None
