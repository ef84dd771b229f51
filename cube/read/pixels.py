"""Tile-aware reading: each distinct tile of a request is fetched and decoded once, then copied to every place it is wanted.

Shard indexes are read once and kept. Byte ranges that lie close together are fetched as one. Tiles are decoded by a few
threads and, where a cache is given, kept up to a number of bytes. Every checksum is checked.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import CorruptError
from cube.format.arrays import ArraySpec, chunk_key
from cube.format.tiles import ABSENT, TileLayout, decode_tile, read_index
from cube.read.cache import TileCache, Traffic
from cube.read.ranges import WHOLE, Array, Tile, Window, groups, span
from cube.store.failures import undamaged
from cube.store.protocol import Range, Store

THREADS = 2
"""Threads that decode. Blosc and NumPy let go of the interpreter while they work."""
_GAP = 1 << 15
"""Bytes between two wanted tiles that are fetched along rather than asked for separately."""


Take = Callable[[list[int], "Array | None"], None]
"""Is given the uses of a tile, as positions in the list that was asked for, and the tile (band, y, x), or None where nothing is
stored. It is called from several threads, and the tile is overwritten when it returns."""


@dataclass
class PixelReader:
    """Reads one modality. Can be pickled and survives a fork: connections, indexes and threads are made where it is used.

    Raises ``CorruptError`` where a checksum is wrong, ``OSError`` where the store fails.
    """

    store: Store
    spec: ArraySpec
    layout: TileLayout
    cache: TileCache | None = None
    present: Callable[[], Array] | None = None
    """Gives whether each patch of the cube (patch) has an image; asked only where the index says that tiles are absent."""
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self._reset()

    def __reduce__(self) -> tuple[type[PixelReader], tuple[Any, ...]]:
        return PixelReader, (self.store, self.spec, self.layout, self.cache, self.present)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._indexes: dict[int, Array] = {}
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None

    @property
    def fill(self) -> Any:
        """Value of pixels that are not stored."""
        return np.nan if self.spec.fill == "nan" else self.spec.fill

    def read(self, patches: Array, window: Window = WHOLE, out: Array | None = None) -> Array:
        """Return (patch, band, y, x) of patches named by position, in any order, repeated if asked for.

        ``out`` takes the result where it is given; it must have the shape and dtype of the result.
        """
        patches = np.asarray(patches, np.int64)
        if out is None:
            out = np.empty((len(patches), *self._lengths(window)), self.layout.dtype)
        places = self._places(window)
        targets = [self._target(place, window) for place in places]

        def take(uses: list[int], tile: Array | None) -> None:
            chosen = None if tile is None else tile[window.bands]
            for use in uses:
                row, which = divmod(use, len(places))
                (to_y, to_x), (from_y, from_x) = targets[which]
                out[row, :, to_y, to_x] = self.fill if chosen is None else chosen[:, from_y, from_x]

        if places:
            self.gather(np.repeat(patches, len(places)), np.tile(np.array(places), len(patches)), take)
        return out

    def gather(self, patches: Array, places: Array, take: Take) -> None:
        """Give ``take`` the tile at each place of each patch, every distinct one fetched and decoded once.

        ``patches`` and ``places`` are positions, one pair a use; places count the tiles of a patch in row-major order.
        """
        tiles: dict[Tile, list[int]] = {}
        for use, tile in enumerate(self.find(patches, places)):
            tiles.setdefault(tile, []).append(use)
        if absent := [tile for tile in tiles if tile.offset == ABSENT]:
            take([use for tile in absent for use in tiles.pop(tile)], None)
        for group in groups(sorted(tiles)):
            self._read_group(group, tiles, take)

    def find(self, patches: Array, places: Array) -> list[Tile]:
        """Return where the tiles at places of patches are stored; the offset of one that is not is ``ABSENT``."""
        shards = (patches // self.layout.slots).tolist()
        entries = self.entries(patches)[np.arange(len(patches)), places].tolist()
        return [Tile(shard, *entry) for shard, entry in zip(shards, entries, strict=True)]

    def entries(self, patches: Array) -> NDArray[np.uint64]:
        """Return (patch, place, [offset, length]): where the tiles of patches lie in their shards, ``ABSENT`` where none is."""
        if self._pid != os.getpid():
            self._reset()
        shards, slots = np.divmod(patches, self.layout.slots)
        self._load_indexes(np.unique(shards).tolist())
        entries = np.empty((len(patches), self.layout.across**2, 2), np.uint64)
        for row, (shard, slot) in enumerate(zip(shards.tolist(), slots.tolist(), strict=True)):
            entries[row] = self._indexes[shard][slot]
        self._require_absent(patches, (entries[..., 0] == ABSENT).any(axis=1))
        return entries

    def _require_absent(self, patches: Array, lacking: NDArray[np.bool_]) -> None:
        """Raise ``CorruptError`` for a patch that lacks tiles of an image which its labels say is there."""
        if self.present is None or not lacking.any():
            return
        wrong = np.asarray(patches)[lacking & self.present()[patches]]
        if len(wrong):
            shard, slot = divmod(int(wrong[0]), self.layout.slots)
            raise CorruptError(
                f"{self._key(shard)}: tiles of its patch {slot} are absent, but `present` says that the image is there; "
                "`cube verify` tells more"
            )

    def fetch(self, tiles: list[Tile]) -> list[memoryview]:
        """Return the stored bytes of tiles, sorted by where they lie; what lies close together is fetched as one."""
        ranges, owners = self._counted_ranges(tiles)
        pieces = [memoryview(data) for data in self.store.read_ranges(ranges)]
        starts = [tile.offset - ranges[owner].start for tile, owner in zip(tiles, owners, strict=True)]
        found = zip(tiles, owners, starts, strict=True)
        return [pieces[owner][start : start + tile.length] for tile, owner, start in found]

    def fetch_ahead(self, tiles: list[Tile]) -> list[memoryview] | list[None]:
        """Return what :meth:`decode` wants of tiles: stored bytes, or None each where the store is near.

        Such a store is told what will be read, and the thread that decodes a tile reads it.
        """
        if not self.store.near:
            return self.fetch(tiles)
        ranges, _ = self._counted_ranges(tiles)
        self.store.announce(ranges)
        return [None] * len(tiles)

    def _counted_ranges(self, tiles: list[Tile]) -> tuple[list[Range], list[int]]:
        ranges, owners = self._ranges(tiles)
        self.traffic.requests += len(ranges)
        self.traffic.bytes += sum(item.stop - item.start for item in ranges if item.stop is not None)
        return ranges, owners

    def decode(self, tile: Tile, data: memoryview | None, out: Array) -> float:
        """Decode the stored bytes of a tile into ``out`` (band, y, x); return the seconds that reading them took."""
        if not hasattr(self._local, "compressor"):
            self._local.compressor = self.layout.compressor()
        begun = ready = time.perf_counter()
        if data is None:
            data = self._read_here(tile)
            ready = time.perf_counter()
        try:
            undamaged(
                lambda stored: decode_tile(self.layout, self._local.compressor, stored, out), data, partial(self._again, tile)
            )
        except CorruptError as error:
            raise CorruptError(f"{self._key(tile.shard)}, byte {tile.offset}: {error}") from None
        return ready - begun

    def _read_here(self, tile: Tile) -> memoryview:
        """Return the stored bytes of a tile in this thread's buffer, so that they are decoded from the processor's cache."""
        room = getattr(self._local, "stored", None)
        if room is None or len(room) < tile.length:
            room = self._local.stored = memoryview(bytearray(max(tile.length, self.layout.tile_bytes)))
        return room[: self.store.read_into(self._key(tile.shard), tile.offset, room[: tile.length])]

    def _again(self, tile: Tile) -> memoryview:
        """Return the stored bytes of one tile, read anew."""
        self.traffic.requests += 1
        self.traffic.bytes += tile.length
        return memoryview(self.store.read_range(self._key(tile.shard), tile.offset, tile.offset + tile.length))

    def empty_tile(self) -> Array:
        """Return room for one decoded tile (band, y, x)."""
        return np.empty((self.layout.bands, self.layout.tile, self.layout.tile), self.layout.dtype)

    def _key(self, shard: int) -> str:
        return chunk_key(self.spec.path, (shard, 0, 0, 0))

    def _lengths(self, window: Window) -> tuple[int, int, int]:
        size = self.layout.size
        bands = np.arange(self.layout.bands)[window.bands]
        return len(bands), len(range(size)[window.y]), len(range(size)[window.x])

    def _places(self, window: Window) -> list[int]:
        """Return the tiles of a patch that a window touches, in row-major order."""
        (top, bottom), (left, right) = span(window.y, self.layout.size), span(window.x, self.layout.size)
        tile, across = self.layout.tile, self.layout.across
        rows, columns = range(top // tile, -(-bottom // tile)), range(left // tile, -(-right // tile))
        return [row * across + column for row in rows for column in columns]

    def _target(self, place: int, window: Window) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of a patch's result a tile goes to, and the part of the tile that goes there."""
        tile = self.layout.tile
        corner = divmod(place, self.layout.across)
        parts = []
        for at, wanted in zip(corner, (window.y, window.x), strict=True):
            start, stop = span(wanted, self.layout.size)
            low, high = max(start, at * tile), min(stop, (at + 1) * tile)
            parts.append((slice(low - start, high - start), slice(low - at * tile, high - at * tile)))
        (to_y, from_y), (to_x, from_x) = parts
        return (to_y, to_x), (from_y, from_x)

    def _load_indexes(self, shards: list[int]) -> None:
        missing = [shard for shard in shards if shard not in self._indexes]
        keys = [self._key(shard) for shard in missing]
        tails = self.store.read_ranges([Range(key, -self.layout.index_bytes, None) for key in keys])
        for shard, key, tail in zip(missing, keys, tails, strict=True):
            self.traffic.requests += 1
            self.traffic.bytes += len(tail)
            try:
                self._indexes[shard] = undamaged(partial(read_index, self.layout), tail, partial(self._tail, key))
            except CorruptError as error:
                raise CorruptError(f"{key}: {error}") from None

    def _tail(self, key: str) -> bytes:
        """Return the last bytes of a shard, which are its index."""
        return self.store.read_ranges([Range(key, -self.layout.index_bytes, None)])[0]

    def _read_group(self, group: list[Tile], uses: dict[Tile, list[int]], take: Take) -> None:
        left = []
        for tile in group:
            decoded = self.cache.get((self.spec.path, tile.shard, tile.offset)) if self.cache else None
            if decoded is None:
                left.append(tile)
            else:
                self.traffic.cached += 1
                take(uses[tile], decoded)
        self.traffic.decoded += len(left)

        def finish(job: tuple[Tile, memoryview | None]) -> None:
            tile, data = job
            take(uses[tile], self._decoded(tile, data))

        self._each(finish, list(zip(left, self.fetch_ahead(left), strict=True)))

    def _ranges(self, tiles: list[Tile]) -> tuple[list[Range], list[int]]:
        """Return the ranges to fetch, and for each tile which one it lies in."""
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
                    shard, key = tile.shard, self._key(tile.shard)
                end = stop
                ranges.append(Range(key, tile.offset, stop))
            owners.append(len(ranges) - 1)
        return ranges, owners

    def _each(self, function: Any, jobs: list[Any]) -> None:
        if len(jobs) < 2 * THREADS:
            for job in jobs:
                function(job)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="cube-decode")
        for _ in self._pool.map(function, jobs):
            pass

    def _decoded(self, tile: Tile, data: memoryview | None) -> Array:
        """Return a tile, decoded into this thread's buffer or, where tiles are kept, into one of its own."""
        if self.cache is not None:
            planes = self.empty_tile()
        else:
            if not hasattr(self._local, "planes"):
                self._local.planes = self.empty_tile()
            planes = self._local.planes
        self.decode(tile, data, planes)
        if self.cache is not None:
            self.cache.put((self.spec.path, tile.shard, tile.offset), planes)
        return planes
