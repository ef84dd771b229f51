"""Tile-aware reading: each distinct tile of a request is fetched and decoded once, then copied to every place it is wanted.

Byte ranges that lie close together are fetched as one. Tiles are decoded by a few
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

from cube.errors import CorruptError
from cube.format.arrays import ArraySpec
from cube.format.tiles import ABSENT, TileLayout, decode_tile
from cube.read.cache import TileCache, Traffic
from cube.read.indexes import ShardIndexes
from cube.read.ranges import WHOLE, Array, Tile, Window, groups, joined, lengths, places, target
from cube.store.failures import undamaged
from cube.store.protocol import Range, Readable

THREADS = 2
"""Threads that decode. Blosc and NumPy let go of the interpreter while they work."""


Take = Callable[[list[int], "Array | None"], None]
"""Is given the uses of a tile, as positions in the list that was asked for, and the tile (band, y, x), or None where nothing is
stored. It is called from several threads, and the tile is overwritten when it returns."""


@dataclass
class PixelReader:
    """Reads one modality. Can be pickled and survives a fork: connections, indexes and threads are made where it is used.

    Raises ``CorruptError`` where a checksum is wrong, ``OSError`` where the store fails.
    """

    store: Readable
    spec: ArraySpec
    layout: TileLayout
    cache: TileCache | None = None
    present: Callable[[], Array] | None = None
    """Gives whether each patch of the cube (patch) has an image; asked only where the index says that tiles are absent."""
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self.indexes = ShardIndexes(self.store, self.spec, self.layout, self.present, self.traffic)
        self._reset()

    def __reduce__(self) -> tuple[type[PixelReader], tuple[Any, ...]]:
        return PixelReader, (self.store, self.spec, self.layout, self.cache, self.present)

    def _reset(self) -> None:
        self._pid = os.getpid()
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
            out = np.empty((len(patches), *lengths(self.layout, window)), self.layout.dtype)
        wanted = places(self.layout, window)
        targets = [target(self.layout, place, window) for place in wanted]

        def take(uses: list[int], tile: Array | None) -> None:
            chosen = None if tile is None else tile[window.bands]
            for use in uses:
                row, which = divmod(use, len(wanted))
                (to_y, to_x), (from_y, from_x) = targets[which]
                out[row, :, to_y, to_x] = self.fill if chosen is None else chosen[:, from_y, from_x]

        if wanted:
            self.gather(np.repeat(patches, len(wanted)), np.tile(np.array(wanted), len(patches)), take)
        return out

    def gather(self, patches: Array, places: Array, take: Take) -> None:
        """Give ``take`` the tile at each place of each patch, every distinct one fetched and decoded once.

        ``patches`` and ``places`` are positions, one pair a use; places count the tiles of a patch in row-major order.
        """
        tiles: dict[Tile, list[int]] = {}
        for use, tile in enumerate(self.indexes.find(patches, places)):
            tiles.setdefault(tile, []).append(use)
        if absent := [tile for tile in tiles if tile.offset == ABSENT]:
            take([use for tile in absent for use in tiles.pop(tile)], None)
        for group in groups(sorted(tiles)):
            self._read_group(group, tiles, take)

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
        ranges, owners = joined(tiles, self.indexes.key)
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
            raise CorruptError(f"{self.indexes.key(tile.shard)}, byte {tile.offset}: {error}") from None
        return ready - begun

    def _read_here(self, tile: Tile) -> memoryview:
        """Return the stored bytes of a tile in this thread's buffer, so that they are decoded from the processor's cache."""
        room = getattr(self._local, "stored", None)
        if room is None or len(room) < tile.length:
            room = self._local.stored = memoryview(bytearray(max(tile.length, self.layout.tile_bytes)))
        return room[: self.store.read_into(self.indexes.key(tile.shard), tile.offset, room[: tile.length])]

    def _again(self, tile: Tile) -> memoryview:
        """Return the stored bytes of one tile, read anew."""
        self.traffic.requests += 1
        self.traffic.bytes += tile.length
        return memoryview(self.store.read_range(self.indexes.key(tile.shard), tile.offset, tile.offset + tile.length))

    def empty_tile(self) -> Array:
        """Return room for one decoded tile (band, y, x)."""
        return np.empty((self.layout.bands, self.layout.tile, self.layout.tile), self.layout.dtype)

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

    def _each(self, function: Any, jobs: list[Any]) -> None:
        if len(jobs) < 2 * THREADS:
            for job in jobs:
                function(job)
            return
        if self._pid != os.getpid():  # threads do not survive a fork
            self._reset()
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
