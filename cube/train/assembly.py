"""From an order of patches to finished batches: tiles fetched ahead, decoded once while they are wanted, copied into place.

Two threads and a small pool work for an epoch. One fetches the stored bytes of tiles that batches to come will want; one
assembles batch after batch, decoding with the pool. A decoded tile stays until the last of the planned batches has used it.
Planning goes only as far ahead as the tiles of all planned batches fit the memory that is allowed, so nothing is evicted.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.format.tiles import ABSENT
from cube.read.ranges import Tile
from cube.tasks.augmenting import Changes
from cube.train.placing import by_tile, fill_holes, place_tile
from cube.train.shelf import Modality, Shelf
from cube.train.threads import Channel, Closed, Recycler, handing_on

Array = NDArray[Any]
_Batch = tuple[int, Array, Changes | None]
_Job = tuple[Shelf, Array, Tile, list[tuple[int, int]]]
_GROUP = 8
"""Batches whose tiles are fetched together once an epoch is under way; the first batches are fetched alone."""


@dataclass
class Counters:
    """Seconds and amounts of one epoch so far."""

    batches: int = 0
    tiles: int = 0
    """Tiles decoded."""
    requests: int = 0
    bytes: int = 0
    """Bytes fetched."""
    fetching: float = 0.0
    """Seconds the fetching thread waited for the store."""
    assembling: float = 0.0
    """Seconds spent decoding and copying."""
    starved: float = 0.0
    """Seconds that assembling waited for bytes."""
    waiting: float = 0.0
    """Seconds the consumer waited for a batch."""
    consuming: float = 0.0
    """Seconds the consumer spent between batches."""

    @property
    def limit(self) -> str:
        """What limits the speed: ``consumer``, ``fetch`` or ``decode``."""
        if self.waiting <= 0.1 * (self.waiting + self.consuming):
            return "consumer"
        return "fetch" if self.starved > self.assembling else "decode"


@dataclass(frozen=True)
class _Planned:
    """One batch that is planned: which tiles go where."""

    number: int
    rows: Array
    changes: Changes | None
    uses: dict[str, dict[Tile, list[tuple[int, int]]]] = field(default_factory=dict)
    """Modality → tile → (row of the batch, place in the patch)."""
    holes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Modality → (row, place) where nothing is stored."""


class Assembly:
    """The work on one epoch of one stream."""

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        stack: Mapping[str, Sequence[str]],
        *,
        threads: int,
        memory: int,
        prefetch: int,
    ) -> None:
        self.modalities, self._stack = modalities, stack
        self.counters = Counters()
        self._shelves = {name: Shelf(modality) for name, modality in modalities.items()}
        self._memory, self._threads = memory, threads
        self._held = 0
        self._outstanding = 0
        self._change = threading.Condition()
        self._recycler = Recycler(prefetch + 4)
        self._fetched: Channel[_Planned] = Channel(None)
        self._finished: Channel[tuple[int, dict[str, Array]]] = Channel(prefetch)
        self._stopped = False

    def run(self, batches: Iterator[_Batch]) -> Iterator[tuple[int, dict[str, Array]]]:
        """Yield (number, modality → array) for batches given as (number, rows in the cube, what happens to them), in order."""
        threads = [
            threading.Thread(target=self._fetch, args=(batches,), name="cube-fetch", daemon=True),
            threading.Thread(target=self._assemble, name="cube-assemble", daemon=True),
        ]
        end = partial(self._end, threads)
        atexit.register(end)  # a thread that is at work when the interpreter ends is torn out of it, and the process aborts
        for thread in threads:
            thread.start()
        try:
            while (item := self._next()) is not None:
                begun = time.perf_counter()
                self.counters.batches += 1
                yield item
                self.counters.consuming += time.perf_counter() - begun
        finally:
            atexit.unregister(end)
            self._end(threads)

    def _next(self) -> tuple[int, dict[str, Array]] | None:
        begun = time.perf_counter()
        item = self._finished.get()
        self.counters.waiting += time.perf_counter() - begun
        return item

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        """Stop the threads and wait for them; a forked process has none of them."""
        if not any(thread.is_alive() for thread in threads):
            return
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._fetched.close()
        self._finished.close()
        for thread in threads:
            thread.join()

    def _fetch(self, batches: Iterator[_Batch]) -> None:
        """Plan as far ahead as memory allows, fetch in that order."""
        with handing_on(self._fetched):
            ahead: deque[tuple[_Planned, dict[str, list[Tile]]]] = deque()
            size, following = 1, self._next_planned(batches)
            while following is not None or ahead:
                planning = 0
                while following is not None and planning < 4 * size and (not ahead or self._fits(following)):
                    ahead.append((following, self._admit(following)))
                    following, planning = self._next_planned(batches), planning + 1
                self._hand_on([ahead.popleft() for _ in range(min(size, len(ahead)))])
                size = min(_GROUP, 2 * size)

    def _next_planned(self, batches: Iterator[_Batch]) -> _Planned | None:
        return next((self._planned(*batch) for batch in batches), None)

    def _planned(self, number: int, rows: Array, changes: Changes | None) -> _Planned:
        planned = _Planned(number, rows, changes)
        cropped = changes if changes is not None and changes.crop is not None else None
        for name, modality in self.modalities.items():
            layout = modality.reader.layout
            slots, across, tile, size = layout.slots, layout.across, layout.tile, layout.size
            uses: dict[Tile, list[tuple[int, int]]] = {}
            shards, entries = (rows // slots).tolist(), modality.reader.indexes.entries(rows).tolist()
            for row, (shard, places) in enumerate(zip(shards, entries, strict=True)):
                for place, (offset, length) in enumerate(places):
                    if cropped is not None and cropped.move(row, divmod(place, across), tile, size) is None:
                        continue  # outside the window
                    uses.setdefault(Tile(shard, offset, length), []).append((row, place))
            planned.holes[name] = [use for hole in [t for t in uses if t.offset == ABSENT] for use in uses.pop(hole)]
            planned.uses[name] = uses
        return planned

    def _more(self, planned: _Planned) -> int:
        """Return the decoded bytes of the tiles of a batch that no planned one wants."""
        return sum(
            sum(tile not in self._shelves[name].wanted for tile in uses) * self.modalities[name].reader.layout.tile_bytes
            for name, uses in planned.uses.items()
        )

    def _fits(self, planned: _Planned) -> bool:
        with self._change:
            return self._held + self._more(planned) <= self._memory

    def _admit(self, planned: _Planned) -> dict[str, list[Tile]]:
        """Count a batch among the planned ones once its tiles fit, or nothing else is left; return the tiles to fetch."""
        with self._change:
            self._change.wait_for(
                lambda: self._stopped or not self._outstanding or self._held + self._more(planned) <= self._memory
            )
            if self._stopped:
                raise Closed
            self._held += self._more(planned)
            self._outstanding += 1
            new: dict[str, list[Tile]] = {}
            for name, uses in planned.uses.items():
                wanted = self._shelves[name].wanted
                new[name] = [tile for tile in uses if tile not in wanted]
                for tile in uses:
                    wanted[tile] = wanted.get(tile, 0) + 1
            return new

    def _hand_on(self, group: list[tuple[_Planned, dict[str, list[Tile]]]]) -> None:
        """Fetch what a group of batches needs and give them to the assembling thread."""
        begun = time.perf_counter()
        for name, modality in self.modalities.items():
            reader, tiles = modality.reader, sorted(tile for _, new in group for tile in new[name])
            before = reader.traffic.requests, reader.traffic.bytes
            self._shelves[name].stored.update(zip(tiles, reader.fetch_ahead(tiles), strict=True))
            self.counters.requests += reader.traffic.requests - before[0]
            self.counters.bytes += reader.traffic.bytes - before[1]
        self.counters.fetching += time.perf_counter() - begun
        for planned, _ in group:
            self._fetched.put(planned)

    def _assemble(self) -> None:
        with handing_on(self._finished), ThreadPoolExecutor(self._threads, thread_name_prefix="cube-decode") as pool:
            while True:
                begun = time.perf_counter()
                planned = self._fetched.get()
                self.counters.starved += time.perf_counter() - begun
                if planned is None:
                    return
                begun = time.perf_counter()
                batch, reading = self._assembled(planned, pool)
                self._release(planned)
                self.counters.starved += reading
                self.counters.assembling += time.perf_counter() - begun - reading
                self._finished.put((planned.number, batch))

    def _assembled(self, planned: _Planned, pool: ThreadPoolExecutor) -> tuple[dict[str, Array], float]:
        """Return a batch, and how long its threads waited for bytes."""
        batch, parts = self._room(planned)
        todo: deque[_Job] = deque()
        for name, modality in self.modalities.items():
            layout = modality.reader.layout
            out = by_tile(parts[name], layout) if planned.changes is None else parts[name]
            fill_holes(out, planned.holes[name], layout, planned.changes, modality.reader.fill)
            todo.extend((self._shelves[name], out, tile, uses) for tile, uses in planned.uses[name].items())
        workers = [pool.submit(self._work, todo, planned.changes) for _ in range(self._threads)]
        done = [worker.result() for worker in workers]
        self.counters.tiles += sum(count for count, _ in done)
        return batch, sum(seconds for _, seconds in done) / self._threads

    def _room(self, planned: _Planned) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the arrays of a batch, and the part of them that each modality fills."""
        batch: dict[str, Array] = {}
        parts: dict[str, Array] = {}
        stacked = {name for names in self._stack.values() for name in names}
        for array, names in [*((name, (name,)) for name in self.modalities if name not in stacked), *self._stack.items()]:
            kinds = [self.modalities[name] for name in names]
            layout, dtype = kinds[0].reader.layout, np.result_type(*(kind.dtype for kind in kinds))
            ends = np.cumsum([0, *(kind.count for kind in kinds)]).tolist()
            side = layout.size if planned.changes is None else planned.changes.side(layout.size)
            batch[array] = self._recycler.empty((len(planned.rows), ends[-1], side, side), dtype)
            parts |= {name: batch[array][:, low:high] for name, (low, high) in zip(names, pairwise(ends), strict=True)}
        return batch, parts

    @staticmethod
    def _work(todo: deque[_Job], changes: Changes | None) -> tuple[int, float]:
        """Decode and copy until nothing is left to do; return how many tiles were decoded, and the seconds of reading."""
        count, reading = 0, 0.0
        while True:
            try:
                shelf, out, tile, uses = todo.popleft()
            except IndexError:
                return count, reading
            pixels, seconds = shelf.decoded(tile)
            if seconds is not None:
                count, reading = count + 1, reading + seconds
            place_tile(out, pixels, shelf.modality.bands, uses, shelf.modality.reader.layout, changes)

    def _release(self, planned: _Planned) -> None:
        with self._change:
            for name, uses in planned.uses.items():
                shelf = self._shelves[name]
                for tile in uses:
                    shelf.wanted[tile] -= 1
                    if not shelf.wanted[tile]:
                        del shelf.wanted[tile]
                        shelf.drop(tile)
                        self._held -= shelf.modality.reader.layout.tile_bytes
            self._outstanding -= 1
            self._change.notify_all()
