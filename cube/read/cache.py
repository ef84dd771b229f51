"""Decoded tiles that are kept, and what reading has cost."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

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
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, requests: int, size: int) -> None:
        """Count requests and the bytes they asked for, from any thread."""
        with self._lock:
            self.requests += requests
            self.bytes += size


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
