"""Tile-aware reading: each distinct tile of a request is fetched and decoded once, then copied to every place it is wanted.

Byte ranges that lie close together are fetched as one. Tiles are decoded by a few
threads and, where a cache is given, kept up to a number of bytes. Every checksum is checked.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from cube.errors import CorruptError
from cube.format.arrays import ArraySpec
from cube.format.decoding import TileDecoder
from cube.format.tiles import ABSENT, TileLayout
from cube.read.cache import TileCache, Traffic
from cube.read.disk_cache import DiskCache
from cube.read.indexes import ShardIndexes
from cube.read.memory import Recycler
from cube.read.ranges import WHOLE, Array, Tile, Window, groups, joined, lengths, places, target
from cube.store.failures import undamaged
from cube.store.protocol import Opened, Range, Readable

THREADS = 2
"""Threads that decode. Blosc and NumPy let go of the interpreter while they work."""
_KEPT, _KEPT_BYTES = 4, 256 << 20
"""Results whose memory is used again once nobody holds them: so many of each size, so many bytes of all."""
_RESULTS = Recycler(_KEPT, _KEPT_BYTES)


Job = TypeVar("Job")
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
    disk: DiskCache | None = None
    """Where stored tiles are kept that were fetched from far."""
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self.indexes = ShardIndexes(self.store, self.spec, self.layout, self.present, self.disk, self.traffic)
        self._reset()

    def __reduce__(self) -> tuple[type[PixelReader], tuple[Any, ...]]:
        return PixelReader, (self.store, self.spec, self.layout, self.cache, self.present, self.disk)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._pool: ThreadPoolExecutor | None = None
        self._local = threading.local()

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
            shape, dtype = (len(patches), *lengths(self.layout, window)), np.dtype(self.layout.dtype)
            out = _RESULTS.empty(shape, dtype)
        wanted = places(self.layout, window)
        targets = [target(self.layout, place, window) for place in wanted]

        def take(uses: list[int], tile: Array | None) -> None:
            for use in uses:
                row, which = divmod(use, len(wanted))
                (to_y, to_x), (from_y, from_x) = targets[which]
                out[row, :, to_y, to_x] = self.fill if tile is None else tile[:, from_y, from_x]

        if wanted:
            self.gather(np.repeat(patches, len(wanted)), np.tile(np.array(wanted), len(patches)), take, window.bands)
        return out

    def gather(self, patches: Array, places: Array, take: Take, bands: Any = slice(None)) -> None:
        """Give ``take`` the tile at each place of each patch, every distinct one fetched and decoded once.

        ``patches`` and ``places`` are positions, one pair a use; places count the tiles of a patch in row-major order.
        ``bands`` are the positions of the bands that are wanted, in their order, or a slice.
        """
        tiles: dict[Tile, list[int]] = {}
        for use, tile in enumerate(self.indexes.find(patches, places)):
            tiles.setdefault(tile, []).append(use)
        if absent := [tile for tile in tiles if tile.offset == ABSENT]:
            take([use for tile in absent for use in tiles.pop(tile)], None)
        with self.store.opened() as files:
            for group in groups(sorted(tiles)):
                _Gathering(self, files, bands, tiles, take).read(group)

    def fetch_ahead(self, tiles: list[Tile], files: Opened) -> list[memoryview] | list[None]:
        """Return what a :class:`TileReader` wants of tiles: stored bytes, or None each where the store is near.

        Such a store is told what will be read, and the thread that decodes a tile reads it.
        """
        if not self.store.near:
            return fetch([(self, tiles)])[0]
        ranges, _ = self.counted_ranges(tiles)
        files.announce(ranges)
        return [None] * len(tiles)

    def counted_ranges(self, tiles: list[Tile]) -> tuple[list[Range], list[int]]:
        """Return the ranges to fetch for sorted tiles, and for each tile which one it lies in; count them as traffic."""
        ranges, owners = joined(tiles, self.indexes.key)
        self.traffic.add(len(ranges), sum(item.length for item in ranges))
        return ranges, owners

    def kept(self, tiles: list[Tile]) -> dict[Tile, memoryview]:
        """Return the stored bytes of those tiles that are on this machine's disk."""
        if self.disk is None:
            return {}
        found = [(tile, self.disk.tile(self.indexes.key(tile.shard), tile.offset, tile.length)) for tile in tiles]
        return {tile: memoryview(data) for tile, data in found if data is not None}

    def keep(self, tiles: list[Tile], found: list[memoryview]) -> None:
        """Keep stored bytes of tiles on this machine's disk, where that was asked for."""
        if self.disk is not None:
            parts: dict[int, list[tuple[int, memoryview]]] = {}
            for tile, data in zip(tiles, found, strict=True):
                parts.setdefault(tile.shard, []).append((tile.offset, data))
            for shard, part in parts.items():
                self.disk.keep(self.indexes.key(shard), part)

    def each(self, function: Callable[[deque[Any]], None], jobs: deque[Any]) -> None:
        """Have some jobs done by this reader's threads, each of which takes one after the other."""
        if len(jobs) < 2 * THREADS:
            function(jobs)
            return
        if self._pid != os.getpid():  # threads do not survive a fork
            self._reset()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="cube-decode")
        for _ in self._pool.map(function, [jobs] * THREADS):
            pass

    def tiles(self, files: Opened, bands: Any) -> tuple[TileReader, Array]:
        """Return what reads tiles for this thread, and room for one (band, y, x): the same at every call for these bands."""
        kept = self._local.__dict__.setdefault("tiles", {})
        key = str(bands)
        if key not in kept:
            kept[key] = (reader := TileReader(self, files, bands)), reader.empty()
        kept[key][0].files = files
        found: tuple[TileReader, Array] = kept[key]
        return found


class TileReader:
    """Reads tiles of one modality one by one, or some of their bands. Keeps buffers, so it is for one thread at a time."""

    def __init__(self, reader: PixelReader, files: Opened, bands: Any = slice(None)) -> None:
        self.files = files
        self._reader = reader
        self._decoder = TileDecoder(reader.layout, bands)
        self._room = memoryview(b"")

    def empty(self) -> Array:
        """Return room for a tile (band, y, x)."""
        layout = self._reader.layout
        return np.empty((len(self._decoder.bands), layout.tile, layout.tile), layout.dtype)

    def decode(self, tile: Tile, data: memoryview | None, out: Array) -> float:
        """Decode a tile into ``out`` (band, y, x), cast to its type; return the seconds that reading its bytes took.

        ``data`` are its stored bytes; they are read where there are none. Raises ``CorruptError`` that names the shard.
        """
        begun = ready = time.perf_counter()
        if data is None:
            data = self._stored(tile)
            ready = time.perf_counter()
        try:
            undamaged(partial(self._decoder.decode, out=out), data, partial(self._again, tile))
        except CorruptError as error:
            raise CorruptError(f"{self._reader.indexes.key(tile.shard)}, byte {tile.offset}: {error}") from None
        return ready - begun

    def _stored(self, tile: Tile) -> memoryview:
        """Return the stored bytes of a tile in a buffer that is used again: they are decoded from a processor's cache."""
        if len(self._room) < tile.length:
            self._room = memoryview(bytearray(max(tile.length, self._reader.layout.tile_bytes)))
        key = self._reader.indexes.key(tile.shard)
        return self._room[: self.files.read_into(key, tile.offset, self._room[: tile.length])]

    def _again(self, tile: Tile) -> memoryview:
        """Return the stored bytes of one tile, read anew."""
        reader = self._reader
        reader.traffic.add(1, tile.length)
        key = reader.indexes.key(tile.shard)
        data = reader.store.read_range(key, tile.offset, tile.offset + tile.length)
        if reader.disk is not None:
            reader.disk.keep(key, [(tile.offset, data)], again=True)
        return memoryview(data)


@dataclass
class _Gathering:
    """One request for tiles."""

    reader: PixelReader
    files: Opened
    bands: Any
    uses: dict[Tile, list[int]]
    take: Take

    def read(self, group: list[Tile]) -> None:
        """Give some tiles to whoever wants them."""
        left, cache = [], self.reader.cache
        for tile in group:
            decoded = cache.get(self._key(tile)) if cache else None
            if decoded is None:
                left.append(tile)
            else:
                self.reader.traffic.cached += 1
                self.take(self.uses[tile], decoded[self.bands])
        self.reader.traffic.decoded += len(left)
        self.reader.each(self._decode, deque(zip(left, self.reader.fetch_ahead(left, self.files), strict=True)))

    def _decode(self, jobs: deque[tuple[Tile, memoryview | None]]) -> None:
        cache = self.reader.cache
        tiles, room = self.reader.tiles(self.files, self.bands if cache is None else slice(None))
        while (job := taken(jobs)) is not None:
            tile, data = job
            tiles.decode(tile, data, room)
            self.take(self.uses[tile], room if cache is None else room[self.bands])
            if cache is not None:
                cache.put(self._key(tile), room.copy())

    def _key(self, tile: Tile) -> tuple[str, int, int]:
        return self.reader.spec.path, tile.shard, tile.offset


def fetch(wanted: Sequence[tuple[PixelReader, list[Tile]]]) -> list[list[memoryview]]:
    """Return the stored bytes of tiles of several modalities of one cube, asked for at a time.

    The tiles of each are sorted by where they lie; what lies close together is fetched as one.
    """
    here = [reader.kept(tiles) for reader, tiles in wanted]
    lacking = [[tile for tile in tiles if tile not in kept] for (_, tiles), kept in zip(wanted, here, strict=True)]
    planned = [(tiles, *reader.counted_ranges(tiles)) for (reader, _), tiles in zip(wanted, lacking, strict=True)]
    answers = iter(wanted[0][0].store.read_ranges([item for _, ranges, _ in planned for item in ranges]))
    for (reader, _), kept, (tiles, ranges, owners) in zip(wanted, here, planned, strict=True):
        pieces = [memoryview(data) for data in islice(answers, len(ranges))]
        starts = [tile.offset - ranges[owner].start for tile, owner in zip(tiles, owners, strict=True)]
        where = zip(tiles, owners, starts, strict=True)
        found = [pieces[owner][start : start + tile.length] for tile, owner, start in where]
        reader.keep(tiles, found)
        kept.update(zip(tiles, found, strict=True))
    return [[kept[tile] for tile in tiles] for (_, tiles), kept in zip(wanted, here, strict=True)]


def taken(jobs: deque[Job]) -> Job | None:
    """Take a job, from any thread; None where none is left."""
    try:
        return jobs.popleft()
    except IndexError:
        return None
