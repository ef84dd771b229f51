"""Tile-aware reading: each distinct tile of a request is fetched and decoded once, then copied to every place it is wanted.

Shard indexes are read once and kept. Byte ranges that lie close together are fetched as one. Tiles are decoded by a few
threads and, where a cache is given, kept up to a number of bytes. Every checksum is checked.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.arrays import ArraySpec, chunk_key
from cube.errors import CorruptError
from cube.store import Range, Store
from cube.tiles import ABSENT, TileLayout, decode_tile, read_index

THREADS = 2
"""Threads that decode. Blosc and NumPy let go of the interpreter while they work."""
_GAP = 1 << 15
"""Bytes between two wanted tiles that are fetched along rather than asked for separately."""
_AT_ONCE = 64 << 20
"""Encoded bytes fetched before they are decoded."""

Array = NDArray[Any]


@dataclass
class Traffic:
    """What reading has cost so far."""

    requests: int = 0
    bytes: int = 0
    decoded: int = 0
    """Tiles decoded."""
    cached: int = 0
    """Tiles that were found decoded."""


class TileCache:
    """Decoded tiles by (array, shard, offset), bounded in bytes; the least recently used leave first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._tiles: OrderedDict[tuple[str, int, int], Array] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[TileCache], tuple[int]]:
        return TileCache, (self.limit,)

    def get(self, key: tuple[str, int, int]) -> Array | None:
        """Return a tile (band, y, x), or None."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: tuple[str, int, int], tile: Array) -> None:
        """Keep a tile and let go of old ones."""
        with self._lock:
            if tile.nbytes > self.limit or key in self._tiles:
                return
            self._tiles[key] = tile
            self.held += tile.nbytes
            while self.held > self.limit:
                self.held -= self._tiles.popitem(last=False)[1].nbytes


@dataclass(frozen=True, slots=True)
class Window:
    """What is wanted of each patch: all of it by default."""

    bands: slice | Array = field(default_factory=lambda: slice(None))
    y: slice = field(default_factory=lambda: slice(None))
    x: slice = field(default_factory=lambda: slice(None))
    """Rows and columns; steps are 1."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """One distinct tile that is wanted, and where."""

    shard: int
    offset: int
    length: int
    uses: list[tuple[int, int]]
    """(row of the result, place of the tile in its patch)"""


@dataclass
class PixelReader:
    """Reads one modality. Can be pickled and survives a fork: connections, indexes and threads are made where it is used.

    Raises ``CorruptError`` where a checksum is wrong, ``OSError`` where the store fails.
    """

    store: Store
    spec: ArraySpec
    layout: TileLayout
    cache: TileCache | None = None
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self._reset()

    def __reduce__(self) -> tuple[type[PixelReader], tuple[Any, ...]]:
        return PixelReader, (self.store, self.spec, self.layout, self.cache)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._indexes: dict[int, Array] = {}
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None

    def read(self, patches: Array, window: Window = Window(), out: Array | None = None) -> Array:
        """Return (patch, band, y, x) of patches named by position, in any order, repeated if asked for.

        ``out`` takes the result where it is given; it must have the shape and dtype of the result.
        """
        if self._pid != os.getpid():
            self._reset()
        patches = np.asarray(patches, np.int64)
        if out is None:
            out = np.empty((len(patches), *self._lengths(window)), self.layout.dtype)
        wanted = self._wanted(patches, window, out)
        for group in _groups(wanted):
            self._read_group(group, window, out)
        return out

    def _lengths(self, window: Window) -> tuple[int, int, int]:
        size = self.layout.size
        bands = np.arange(self.layout.bands)[window.bands]
        return len(bands), len(range(size)[window.y]), len(range(size)[window.x])

    def _wanted(self, patches: Array, window: Window, out: Array) -> list[_Tile]:
        """Return the distinct tiles that are wanted, in the order they are stored; fill in those that are not."""
        slots, places = self.layout.slots, self._places(window)
        shards = patches // slots
        self._load_indexes(np.unique(shards).tolist())
        tiles: dict[tuple[int, int], _Tile] = {}
        for row, (shard, patch) in enumerate(zip(shards.tolist(), patches.tolist(), strict=True)):
            entries = self._indexes[shard][patch - shard * slots, places].tolist()
            for place, (offset, length) in zip(places, entries, strict=True):
                if offset == ABSENT:
                    target, _ = self._target(row, place, window, out)
                    target[...] = np.nan if self.spec.fill == "nan" else self.spec.fill
                    continue
                tile = tiles.get((shard, offset))
                if tile is None:
                    tile = tiles[shard, offset] = _Tile(shard, offset, length, [])
                tile.uses.append((row, place))
        return [tiles[key] for key in sorted(tiles)]

    def _places(self, window: Window) -> list[int]:
        """Return the tiles of a patch that a window touches, in row-major order."""
        (top, bottom), (left, right) = _span(window.y, self.layout.size), _span(window.x, self.layout.size)
        tile, across = self.layout.tile, self.layout.across
        rows, columns = range(top // tile, -(-bottom // tile)), range(left // tile, -(-right // tile))
        return [row * across + column for row in rows for column in columns]

    def _target(self, row: int, place: int, window: Window, out: Array) -> tuple[Array, tuple[slice, slice]]:
        """Return the part of the result a tile goes to, and the part of the tile that goes there."""
        tile = self.layout.tile
        corner = divmod(place, self.layout.across)
        parts = []
        for at, wanted in zip(corner, (window.y, window.x), strict=True):
            start, stop = _span(wanted, self.layout.size)
            low, high = max(start, at * tile), min(stop, (at + 1) * tile)
            parts.append((slice(low - start, high - start), slice(low - at * tile, high - at * tile)))
        (to_y, from_y), (to_x, from_x) = parts
        return out[row, :, to_y, to_x], (from_y, from_x)

    def _load_indexes(self, shards: list[int]) -> None:
        missing = [shard for shard in shards if shard not in self._indexes]
        keys = [chunk_key(self.spec.path, (shard, 0, 0, 0)) for shard in missing]
        tails = self.store.read_ranges([Range(key, -self.layout.index_bytes, None) for key in keys])
        for shard, key, tail in zip(missing, keys, tails, strict=True):
            try:
                self._indexes[shard] = read_index(self.layout, tail)
            except CorruptError as error:
                raise CorruptError(f"{key}: {error}") from None
            self.traffic.requests += 1
            self.traffic.bytes += len(tail)

    def _read_group(self, tiles: list[_Tile], window: Window, out: Array) -> None:
        left = []
        for tile in tiles:
            decoded = self.cache.get((self.spec.path, tile.shard, tile.offset)) if self.cache else None
            if decoded is None:
                left.append(tile)
            else:
                self.traffic.cached += 1
                self._copy(decoded, tile, window, out)
        ranges, owners = self._ranges(left)
        self.traffic.requests += len(ranges)
        self.traffic.decoded += len(left)
        pieces = [memoryview(data) for data in self.store.read_ranges(ranges)]
        self.traffic.bytes += sum(len(piece) for piece in pieces)

        def finish(job: tuple[_Tile, int]) -> None:
            tile, owner = job
            start = tile.offset - ranges[owner].start
            self._finish(tile, pieces[owner][start : start + tile.length], window, out)

        self._each(finish, list(zip(left, owners, strict=True)))

    def _ranges(self, tiles: list[_Tile]) -> tuple[list[Range], list[int]]:
        """Return the ranges to fetch, and for each tile which one it lies in."""
        ranges: list[Range] = []
        owners = []
        for tile in tiles:
            key, stop = chunk_key(self.spec.path, (tile.shard, 0, 0, 0)), tile.offset + tile.length
            last = ranges[-1] if ranges else None
            if last is not None and last.stop is not None and last.key == key and tile.offset - last.stop <= _GAP:
                ranges[-1] = Range(key, last.start, max(stop, last.stop))
            else:
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

    def _finish(self, tile: _Tile, data: memoryview, window: Window, out: Array) -> None:
        shape = self.layout.bands, self.layout.tile, self.layout.tile
        if self.cache is None:
            if not hasattr(self._local, "scratch"):
                self._local.scratch = np.empty(shape, self.layout.dtype), self.layout.compressor()
            planes, compressor = self._local.scratch
        else:
            planes, compressor = np.empty(shape, self.layout.dtype), self.layout.compressor()
        try:
            decode_tile(self.layout, compressor, data, planes)
        except CorruptError as error:
            key = chunk_key(self.spec.path, (tile.shard, 0, 0, 0))
            raise CorruptError(f"{key}, byte {tile.offset}: {error}") from None
        self._copy(planes, tile, window, out)
        if self.cache is not None:
            self.cache.put((self.spec.path, tile.shard, tile.offset), planes)

    def _copy(self, planes: Array, tile: _Tile, window: Window, out: Array) -> None:
        chosen = planes[window.bands]
        for row, place in tile.uses:
            target, part = self._target(row, place, window, out)
            np.copyto(target, chosen[:, part[0], part[1]])


def _span(part: slice, size: int) -> tuple[int, int]:
    """Return start and stop of a slice with step 1."""
    start, stop, step = part.indices(size)
    assert step == 1
    return start, max(start, stop)


def _groups(tiles: list[_Tile]) -> Iterator[list[_Tile]]:
    """Split tiles into runs of bounded encoded size."""
    group: list[_Tile] = []
    held = 0
    for tile in tiles:
        if group and held + tile.length > _AT_ONCE:
            yield group
            group, held = [], 0
        group.append(tile)
        held += tile.length
    if group:
        yield group
