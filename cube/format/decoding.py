"""Stored tiles → pixels: all bands, or those that are wanted, in the type that is wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import CorruptError
from cube.format.blocks import block_size, blocks_of, pick
from cube.format.tiles import TileLayout, checked_body

Array = NDArray[Any]
_WORTH = 0.8
"""Part of a tile's blocks below which it pays to decode them alone."""


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
        self._scratch: Array | None = None
        self._picked: dict[int, tuple[Array, Array] | None] = {}
        """Bytes of a block → which blocks hold the bands, and where these lie in them; None where that is too many."""

    def decode(self, data: Any, out: Array) -> None:
        """Decode the stored bytes of a tile into ``out`` (band, y, x), cast to its type.

        Raises ``CorruptError`` if the checksum is wrong or the bytes are not such a tile.
        """
        body = checked_body(self.layout, data)
        if self._all and out.dtype == self._dtype and out.flags.c_contiguous:
            self._decompress(body, out)
            return
        if self._scratch is None:
            self._scratch = np.empty(self.layout.tile_bytes, np.uint8)
        found = None if self._all else self._blocks(body)
        some = None if found is None else pick(body, found[0], self.layout.tile_bytes)
        whole = self._scratch.view(self._dtype).reshape(self.layout.bands, -1)
        if some is None or found is None:
            self._decompress(body, whole)
            chosen = whole if self._all else whole[self.bands]
        else:
            self._decompress(some, self._scratch[: int.from_bytes(some[4:8], "little")])
            chosen = self._scratch[: found[1].max() + whole[0].nbytes]
            chosen = np.stack([chosen[at : at + whole[0].nbytes].view(self._dtype) for at in found[1].tolist()])
        np.copyto(out, chosen.reshape(out.shape), casting="unsafe")

    def _blocks(self, body: NDArray[np.uint8]) -> tuple[Array, Array] | None:
        size = block_size(body)
        if not 0 < size < self.layout.tile_bytes:
            return None
        if size not in self._picked:
            band, total = self.layout.tile_bytes // self.layout.bands, self.layout.tile_bytes
            blocks = blocks_of(self.bands, band, size, total)
            at = np.searchsorted(blocks, self.bands * band // size) * size + self.bands * band % size
            self._picked[size] = (blocks, at) if len(blocks) * size <= _WORTH * total else None
        return self._picked[size]

    def _decompress(self, body: Any, out: Array) -> None:
        try:
            self._compressor.decode(body, out=out)
        except (RuntimeError, ValueError) as error:
            raise CorruptError(f"a tile cannot be decoded ({error})") from None
