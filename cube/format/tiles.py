"""Shared tiles: patches ↔ the bytes of one shard, both directions side by side. Pure.

A shard is a Zarr v3 ``sharding_indexed`` chunk. Its index has one (offset, length) entry per tile of each patch, and entries
of equal tiles name the same bytes. Tiles are found equal by a hash of their pixels, which also certifies them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import google_crc32c
import numcodecs
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cube.errors import CorruptError
from cube.format.counting import Counts, count_pixels

T = TypeVar("T", bound=Hashable)

_OVERHEAD = 64
"""Bytes that a tile which does not compress may take beyond its own: the header of Blosc and the checksum."""
_PIECE = 16 * 2**20
"""Bytes of an earlier shard that are read at once."""
DIGEST_SIZE = 32
ABSENT = np.uint64(2**64 - 1)
"""Offset and length of a tile that is not stored."""


@dataclass(frozen=True, kw_only=True)
class TileLayout:
    """How patches of one modality are cut into tiles and encoded. Small and picklable."""

    size: int
    """Height and width of a patch in pixels."""
    tile: int
    """Height and width of a tile in pixels; divides ``size``."""
    bands: int
    dtype: str
    """Little-endian NumPy type, such as ``<u2``."""
    slots: int
    """Patches in a shard."""
    codec: str
    """Blosc codec: ``lz4``, ``lz4hc`` or ``zstd``."""
    level: int
    shuffle: str
    """``shuffle`` or ``bitshuffle``."""
    block: int = 0
    """Bytes that Blosc compresses by themselves; 0 where it chooses."""
    saturated: float | None = None
    """Value to count as saturated, if any."""

    @property
    def across(self) -> int:
        """Tiles along one side of a patch."""
        return self.size // self.tile

    @property
    def tile_bytes(self) -> int:
        """Decoded bytes of a tile."""
        return self.tile * self.tile * self.bands * np.dtype(self.dtype).itemsize

    @property
    def patch_bytes(self) -> int:
        """Decoded bytes of a patch."""
        return self.tile_bytes * self.across**2

    @property
    def index_bytes(self) -> int:
        """Bytes of a shard's index with its checksum."""
        return self.slots * self.across**2 * 16 + 4

    @property
    def tile_key(self) -> bytes:
        """Key of the tile hash: it binds dtype and shape, so that equal bytes of other kinds hash differently."""
        return blake3(f"cube tile 1 {self.dtype} {self.tile},{self.tile},{self.bands}".encode()).digest()

    @property
    def patch_key(self) -> bytes:
        """Key of the hash that rolls up the tile digests of one patch."""
        return blake3(f"cube patch 1 {self.dtype} {self.size},{self.size},{self.bands}".encode()).digest()

    def compressor(self) -> numcodecs.Blosc:
        """Return the Blosc codec. Threads inside Blosc would make its output vary from run to run: they are off."""
        numcodecs.blosc.use_threads = False
        shuffle = {"shuffle": numcodecs.Blosc.SHUFFLE, "bitshuffle": numcodecs.Blosc.BITSHUFFLE}[self.shuffle]
        return numcodecs.Blosc(self.codec, self.level, shuffle, self.block)


def cut_tiles(layout: TileLayout, pixels: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy a patch (y, x, band) into ``out`` (row, column, y, x, band), tile by tile."""
    n, t = layout.across, layout.tile
    row = t * layout.bands
    np.copyto(out.reshape(n, n, t, row), pixels.reshape(n, t, n, row).transpose(0, 2, 1, 3))


def interleaved(planes: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return pixels (band, y, x) as (y, x, band), in ``out`` if it is given; band by band, which is several times as fast."""
    out = np.empty((*planes.shape[1:], len(planes)), planes.dtype) if out is None else out
    for band, plane in enumerate(planes):
        out[:, :, band] = plane
    return out


def tile_digest(key: bytes, tile: NDArray[Any]) -> bytes:
    """Hash one tile (y, x, band), contiguous and little-endian."""
    return blake3(tile.reshape(-1).view(np.uint8).data, key=key).digest()


def patch_digest(key: bytes, digests: list[bytes]) -> bytes:
    """Roll the digests of a patch's tiles, in row-major order, up into one."""
    return blake3(b"".join(digests), key=key).digest()


def pixels_digest_of(layout: TileLayout, pixels: NDArray[Any]) -> bytes:
    """Return the digest of a patch (y, x, band)."""
    tiles = np.empty((layout.across**2, layout.tile, layout.tile, layout.bands), layout.dtype)
    cut_tiles(layout, pixels, tiles)
    return patch_digest(layout.patch_key, [tile_digest(layout.tile_key, tile) for tile in tiles])


class ShardWriter:
    """Encodes patches into one shard, each distinct tile once. Feeds the bytes to ``sink`` as they come."""

    def __init__(self, layout: TileLayout, sink: Callable[[Any], Any]) -> None:
        self.layout = layout
        self.index = np.full((layout.slots, layout.across**2, 2), ABSENT, "<u8")
        self.stored = 0
        """Bytes given to the sink so far."""
        self.seen: dict[bytes, tuple[int, int, Counts]] = {}
        """Tile digest → offset, length, counts."""
        self._adopted: dict[Hashable, bytes] = {}
        """Name of an encoded tile that was taken over → its digest."""
        self._sink = sink
        self._compressor = layout.compressor()
        self._keys = layout.tile_key, layout.patch_key
        dtype = np.dtype(layout.dtype)
        self._tiles = np.empty((layout.across**2, layout.tile, layout.tile, layout.bands), dtype)
        self._planes = np.empty((layout.bands, layout.tile, layout.tile), dtype)

    def resume(self, index: NDArray[np.uint64], slots: int, read: Callable[[int, int], bytes]) -> None:
        """Take over the first slots of an earlier state of this shard, byte for byte, before any patch is added.

        ``index`` is that of the shard, ``read(start, stop)`` gives its bytes. What it holds beyond those slots is left out.
        Raises ``CorruptError`` if it is damaged, or its tiles do not lie one after the other as this class writes them.
        """
        self.index[:slots] = index[:slots]
        used = np.unique(index[:slots][index[:slots, :, 0] != ABSENT], axis=0).tolist()
        while used:
            count = 1
            while count < len(used) and sum(used[count]) - used[0][0] <= _PIECE:
                count += 1
            start, stop = self.stored, sum(used[count - 1])
            data = read(start, stop)
            for offset, length in used[:count]:
                if offset != self.stored:
                    raise CorruptError("its tiles leave gaps or overlap: somebody else has written it anew")
                tile = data[offset - start : offset - start + length]
                decode_tile(self.layout, self._compressor, tile, self._planes)
                digest = tile_digest(self._keys[0], interleaved(self._planes))
                if self.seen.setdefault(digest, (offset, length, self._count()))[0] != offset:
                    raise CorruptError("equal tiles stand in it more than once: somebody else has written it anew")
                self._put(tile)
            used = used[count:]

    def _count(self) -> Counts:
        return count_pixels(self._planes, self.layout.saturated)

    def add(self, slot: int, pixels: NDArray[Any]) -> tuple[bytes, Counts]:
        """Store a patch (y, x, band) in a slot and return its digest and quality counts."""
        cut_tiles(self.layout, pixels, self._tiles)
        digests, counts = [], Counts()
        for place, tile in enumerate(self._tiles):
            digest = tile_digest(self._keys[0], tile)
            known = self.seen.get(digest) or self._store(digest, tile)
            self.index[slot, place] = known[:2]
            digests.append(digest)
            counts = counts + known[2]
        return patch_digest(self._keys[1], digests), counts

    def adopt(self, slot: int, tiles: Mapping[T, Any], places: Iterable[T]) -> bytes:
        """Store a patch in a slot whose tiles are encoded already, byte for byte, and return its digest.

        ``tiles`` gives the stored bytes of tiles by any names, ``places`` the names along the patch, row by row. A name means
        the same tile at every call; its bytes are looked at, at its first. Raises ``CorruptError`` if they are damaged.
        """
        digests = []
        for place, name in enumerate(places):
            digest = self._adopted.get(name) or self._adopt(name, tiles[name])
            self.index[slot, place] = self.seen[digest][:2]
            digests.append(digest)
        return patch_digest(self._keys[1], digests)

    def finish(self) -> None:
        """Write the index; the shard is complete."""
        index = self.index.tobytes()
        self._put(index + google_crc32c.value(index).to_bytes(4, "little"))

    def _adopt(self, name: Hashable, data: Any) -> bytes:
        decode_tile(self.layout, self._compressor, data, self._planes)
        digest = tile_digest(self._keys[0], interleaved(self._planes))
        if digest not in self.seen:
            self.seen[digest] = self.stored, len(data), self._count()
            self._put(data)
        self._adopted[name] = digest
        return digest

    def _store(self, digest: bytes, tile: NDArray[Any]) -> tuple[int, int, Counts]:
        np.copyto(self._planes, tile.transpose(2, 0, 1))
        encoded = self._compressor.encode(self._planes)
        place = self.stored
        self._put(encoded)
        self._put(google_crc32c.value(encoded).to_bytes(4, "little"))
        self.seen[digest] = place, self.stored - place, self._count()
        return self.seen[digest]

    def _put(self, data: bytes) -> None:
        self._sink(data)
        self.stored += len(data)


def read_index(layout: TileLayout, tail: bytes, size: int | None = None) -> NDArray[np.uint64]:
    """Return the index (slot, tile, [offset, length]) of a shard from its last bytes.

    Raises ``CorruptError`` if its checksum is wrong, an entry is longer than any tile or lies farther than all tiles reach or,
    where the shard's ``size`` is known, points outside it: nothing is asked for or allocated by a number that cannot be.
    """
    if len(tail) != layout.index_bytes or (size is not None and size < layout.index_bytes):
        raise CorruptError(f"the shard ends after {len(tail):,} bytes, its index alone needs {layout.index_bytes:,}")
    if google_crc32c.value(tail[:-4]) != int.from_bytes(tail[-4:], "little"):
        raise CorruptError("the checksum of the shard's index is wrong")
    index = np.frombuffer(tail[:-4], "<u8").reshape(layout.slots, layout.across**2, 2)
    used = index[index[..., 0] != ABSENT]
    longest = layout.tile_bytes + _OVERHEAD
    if np.any(used[:, 1] > np.uint64(longest)) or np.any(used[:, 0] > np.uint64(longest * layout.slots * layout.across**2)):
        raise CorruptError(f"an entry of the shard's index is of more bytes than the {longest:,} of the longest tile can be")
    if size is None:
        return index
    limit = np.uint64(size - layout.index_bytes)
    if np.any(used[:, 0] > limit) or np.any(used[:, 1] > limit) or np.any(used.sum(axis=1) > limit):
        raise CorruptError("an entry of the shard's index points outside the shard")
    return index


def checked_body(layout: TileLayout, data: Any) -> NDArray[np.uint8]:
    """Return the Blosc buffer in the stored bytes of a tile.

    Raises ``CorruptError`` if the checksum is wrong, or if the buffer does not claim to be of such a tile and of these bytes.
    """
    view = np.frombuffer(data, np.uint8)
    body, checksum = view[:-4], view[-4:]
    if google_crc32c.value(body) != int.from_bytes(checksum, "little"):
        raise CorruptError("the checksum of a tile is wrong")
    claimed = int.from_bytes(body[4:8], "little"), int.from_bytes(body[12:16], "little")
    if claimed != (layout.tile_bytes, len(body)):  # Blosc itself believes its header
        raise CorruptError(
            f"a tile claims {claimed[1]:,} bytes of {claimed[0]:,}, expected {len(body):,} of {layout.tile_bytes:,}"
        )
    return body


def decode_tile(layout: TileLayout, compressor: numcodecs.Blosc, data: Any, out: NDArray[Any]) -> None:
    """Decode the stored bytes of one tile into ``out`` (band, y, x), contiguous and of the layout's type.

    Raises ``CorruptError`` if the checksum is wrong or the bytes are not such a tile.
    """
    body = checked_body(layout, data)
    try:
        compressor.decode(body, out=out)
    except (RuntimeError, ValueError) as error:
        raise CorruptError(f"a tile cannot be decoded ({error})") from None
