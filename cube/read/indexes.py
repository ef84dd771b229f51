"""Where tiles are stored: the indexes at the ends of shards, each read once and kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import CorruptError
from cube.format.arrays import ArraySpec, chunk_key
from cube.format.tiles import ABSENT, TileLayout, read_index
from cube.read.cache import Traffic
from cube.read.disk_cache import DiskCache
from cube.read.ranges import Array, Tile
from cube.store.failures import undamaged
from cube.store.protocol import Range, Readable


@dataclass
class ShardIndexes:
    """The shard indexes of one modality. Can be pickled and survives a fork; each process reads what it needs."""

    store: Readable
    spec: ArraySpec
    layout: TileLayout
    present: Callable[[], Array] | None = None
    """Gives whether each patch of the cube (patch) has an image; asked only where an index says that tiles are absent."""
    disk: DiskCache | None = None
    """Where indexes are kept that were fetched from far."""
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self._reset()

    def __reduce__(self) -> tuple[type[ShardIndexes], tuple[Any, ...]]:
        return ShardIndexes, (self.store, self.spec, self.layout, self.present, self.disk)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._read: dict[int, Array] = {}

    def key(self, shard: int) -> str:
        """Return the key of a shard."""
        return chunk_key(self.spec.path, (shard, 0, 0, 0))

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
        self.load(np.unique(shards).tolist())
        entries = np.empty((len(patches), self.layout.across**2, 2), np.uint64)
        for row, (shard, slot) in enumerate(zip(shards.tolist(), slots.tolist(), strict=True)):
            entries[row] = self._read[shard][slot]
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
                f"{self.key(shard)}: tiles of its patch {slot} are absent, but `present` says that the image is there; "
                "`cube verify` tells more"
            )

    def load(self, shards: list[int]) -> None:
        """Read the indexes of some shards, those that are not there yet, all at a time."""
        missing = [shard for shard in shards if shard not in self._read and not self._kept(shard)]
        keys = [self.key(shard) for shard in missing]
        tails = self.store.read_ranges([Range(key, -self.layout.index_bytes, None) for key in keys])
        for shard, key, tail in zip(missing, keys, tails, strict=True):
            self.traffic.add(1, len(tail))
            try:
                self._read[shard] = undamaged(partial(read_index, self.layout), tail, partial(self._tail, key))
            except CorruptError as error:
                raise CorruptError(f"{key}: {error}") from None
            if self.disk is not None:
                self.disk.keep_tail(key, tail)

    def _kept(self, shard: int) -> bool:
        """Take the index of a shard from this machine's disk, if a sound one is there."""
        tail = self.disk.tail(self.key(shard), self.layout.index_bytes) if self.disk is not None else None
        if tail is None:
            return False
        with suppress(CorruptError):
            self._read[shard] = read_index(self.layout, tail)
        return shard in self._read

    def _tail(self, key: str) -> bytes:
        """Return the last bytes of a shard, which are its index."""
        return self.store.read_ranges([Range(key, -self.layout.index_bytes, None)])[0]
