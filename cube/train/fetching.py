"""The bytes of the tiles that batches to come want: planned batch by batch, asked for ahead, many requests at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from cube.read.pixels import PixelReader, fetch
from cube.read.ranges import Tile
from cube.store.protocol import Opened
from cube.tasks.augmenting import Changes
from cube.train.counters import Counters
from cube.train.planning import Step, TilePlan

Array = NDArray[Any]
Steps = Mapping[str, Step]
Stored = Mapping[str, Mapping[Tile, memoryview]]
"""Modality → tile → its stored bytes; empty where they are read when they are decoded."""
_NEAR = 4
"""Batches that are planned ahead where bytes are read when they are decoded."""
_REQUESTS = 8
"""Groups of batches whose bytes are asked for at a time."""
_WINDOW, _WIDEST = 32 << 20, 256 << 20
"""Stored bytes that are asked for ahead of decoding: at first, and at most. More are, as long as decoding waits for bytes."""
_GROUP = 16 << 20
"""Stored bytes asked for together, once an epoch is under way; its first batches are asked for one by one."""


@dataclass(frozen=True)
class Planned:
    """One batch: which tiles go where, and their bytes on the way."""

    place: int
    """Which batch of this run it is, counted from 0."""
    patches: int
    changes: Changes | None
    steps: Steps
    """Modality → tiles to decode, and what is gathered."""
    stored: Future[Stored]

    @property
    def size(self) -> int:
        """Stored bytes of the tiles to decode."""
        return _size(self.steps)


class Fetching:
    """Plans the batches of an epoch in order and has their bytes fetched."""

    def __init__(
        self,
        plans: Mapping[str, TilePlan],
        readers: Mapping[str, PixelReader],
        patches: Sequence[int],
        changes: Callable[[int], Changes | None],
    ) -> None:
        """Plan for batches of so many ``patches``; ``changes`` tells what happens to those of a batch."""
        self.plans, self.readers, self._patches, self._changes = plans, readers, patches, changes
        self.near = all(reader.store.near for reader in readers.values())
        self.counters, self._before = Counters(), self._count()
        self._window = _WINDOW
        self._lock = threading.Lock()
        self._ahead = 0
        """Stored bytes that are asked for, or there, and not decoded."""

    def run(self, files: Opened) -> Iterator[Planned]:
        """Yield batches, planned, with their bytes on the way."""
        return self._announced(files) if self.near else self._asked()

    def _announced(self, files: Opened) -> Iterator[Planned]:
        """Plan batches whose bytes are read when they are decoded, and tell the disk."""
        nothing: Future[Stored] = Future()
        nothing.set_result({})
        for place in range(len(self._patches)):
            steps = self._steps(place)
            for name, step in steps.items():
                self.readers[name].fetch_ahead(step.tiles, files)
            yield self._planned(place, steps, nothing)

    def _asked(self) -> Iterator[Planned]:
        """Plan batches in groups, and ask for what each group needs."""
        pool, whole = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="cube-fetch"), False
        try:
            yield from self._in_groups(pool)
            whole = True
        finally:  # who leaves does not wait for what nobody wants any more
            pool.shutdown(wait=whole, cancel_futures=not whole)

    def _in_groups(self, pool: ThreadPoolExecutor) -> Iterator[Planned]:
        group: list[Steps] = []
        most, count = 1, len(self._patches)
        for place in range(count):
            self._load_indexes(range(place, min(place + most, count)), pool)
            group.append(self._steps(place))
            size = sum(_size(steps) for steps in group)
            if place + 1 == count or len(group) >= most or size >= _GROUP:
                self._ahead_by(size)
                stored = pool.submit(self._fetch, group)
                for at, steps in enumerate(group, place + 1 - len(group)):
                    yield self._planned(at, steps, stored)
                group, most = [], 2 * most

    def enough(self, waiting: int) -> bool:
        """Tell whether batches are planned far enough ahead, where so many are not copied yet."""
        if not (self.near or self.counters.tiles):
            return waiting > 0  # line and processor are for the first batch alone
        return waiting > _NEAR and (self.near or self._ahead >= self._window)

    def decoded(self, planned: Planned) -> None:
        """Note that the tiles of a batch are decoded."""
        self._ahead_by(-planned.size)
        requests, size = self._count()
        self.counters.requests, self.counters.bytes = requests - self._before[0], size - self._before[1]
        self.counters.tiles += sum(len(step.tiles) for step in planned.steps.values())
        self.counters.again += sum(step.again for step in planned.steps.values())

    def starved(self, seconds: float) -> None:
        """Note that decoding waited for bytes: more are asked for ahead from now on."""
        self.counters.starved += seconds
        self._window = min(_WIDEST, self._window + (_WINDOW >> 2))

    def _ahead_by(self, size: int) -> None:
        with self._lock:
            self._ahead += size

    def _steps(self, place: int) -> Steps:
        return {name: plan.step(place) for name, plan in self.plans.items()}

    def _planned(self, place: int, steps: Steps, stored: Future[Stored]) -> Planned:
        return Planned(place, self._patches[place], self._changes(place), steps, stored)

    def _count(self) -> tuple[int, int]:
        """Return the requests and bytes of all modalities so far."""
        traffic = [reader.traffic for reader in self.readers.values()]
        return sum(item.requests for item in traffic), sum(item.bytes for item in traffic)

    def _load_indexes(self, places: range, pool: ThreadPoolExecutor) -> None:
        """Have the shard indexes read that some batches need, of all modalities at a time."""
        wanted = {name: sorted({s for place in places for s in plan.shards(place)}) for name, plan in self.plans.items()}
        jobs = [pool.submit(self.readers[name].indexes.load, shards) for name, shards in wanted.items() if shards]
        for job in jobs:
            job.result()

    def _fetch(self, group: list[Steps]) -> Stored:
        """Fetch what a group of batches needs."""
        begun = time.perf_counter()
        wanted = {name: sorted({tile for steps in group for tile in steps[name].tiles}) for name in self.readers}
        found = fetch([(self.readers[name], tiles) for name, tiles in wanted.items()])
        stored = {name: dict(zip(tiles, part, strict=True)) for (name, tiles), part in zip(wanted.items(), found, strict=True)}
        with self._lock:
            self.counters.fetching += time.perf_counter() - begun
        return stored


def _size(steps: Steps) -> int:
    return sum(tile.length for step in steps.values() for tile in step.tiles)
