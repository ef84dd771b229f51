"""From planned batches to finished ones: tiles decoded once into slots, gathered from there into arrays.

One thread plans and fetches; a few others work. Each takes the first piece of work whose forerunners are done: some tiles to
decode, of the next batch first, or some patches to copy. So one batch is decoded while the one before is copied, and nobody
waits at the end of a batch.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from numpy.typing import NDArray

from cube.read.pixels import TileReader
from cube.store.protocol import Opened
from cube.train.fetching import Fetching, Planned
from cube.train.pools import Modality
from cube.train.sinks import Arrays, Places, Sink
from cube.train.threads import handing_to

Array = NDArray[Any]
_PIECE = 2 << 20
"""Bytes of pixels that are decoded as one piece of work."""


class _Work:
    """One batch on its way from plan to arrays."""

    def __init__(self, planned: Planned, tile_bytes: Mapping[str, int], copying: Iterable[tuple[str, slice]]) -> None:
        self.planned = planned
        self.places: Places | None = None
        """Where its tiles are decoded into, and …"""
        self.arrays: Arrays = {}
        """… the arrays it is copied to; None and empty as long as nothing is begun."""
        self.decoding = deque[tuple[str, slice]]()
        """Pieces not begun: some tiles of a modality."""
        self.copying = deque(copying)
        """Pieces not begun: some patches of an array."""
        for name, step in planned.steps.items():
            size = max(1, _PIECE // tile_bytes[name])
            starts = range(0, len(step.tiles), size)
            self.decoding.extend((name, slice(start, min(start + size, len(step.tiles)))) for start in starts)
        self.left = {"decode": len(self.decoding), "copy": len(self.copying)}
        """Pieces that are not done."""


class Assembly:
    """The work on one epoch of one stream."""

    def __init__(
        self, fetching: Fetching, modalities: Mapping[str, Modality], sink: Sink, *, threads: int, prefetch: int
    ) -> None:
        """Work for a sink, with so many threads, at most ``prefetch`` batches ahead of the consumer."""
        self._fetching, self._modalities, self._sink = fetching, modalities, sink
        self._counters = fetching.counters
        self._threads, self._prefetch = threads, prefetch
        self._tile_bytes = {name: part.reader.layout.tile_bytes for name, part in modalities.items()}
        self._change = threading.Condition()
        self._works = deque[_Work]()
        """Batches that are planned and not given to the consumer."""
        self._planned = self._decoded = self._copied = self._taken = 0
        """Batches, counted from the first, that are planned, decoded, copied, and given to the consumer."""
        self._count: int | None = None
        """How many batches there are, once that is known."""
        self._error: BaseException | None = None
        self._stopped = False
        self._failing = handing_to(self._fail)

    def run(self) -> Iterator[Arrays]:
        """Yield name → array of each batch, in order."""
        with ExitStack() as stack:
            files = stack.enter_context(next(iter(self._modalities.values())).reader.store.opened())
            threads = [threading.Thread(target=self._plan, args=(files,), name="cube-plan", daemon=True)]
            for _ in range(self._threads):
                threads.append(threading.Thread(target=self._work, args=(files,), name="cube-assemble", daemon=True))
            end = partial(self._end, threads)
            stack.callback(end)
            atexit.register(end)  # a thread that is at work when the interpreter ends is torn out, and the process aborts
            stack.callback(atexit.unregister, end)
            for thread in threads:
                thread.start()
            while (arrays := self._next()) is not None:
                begun = time.perf_counter()
                self._counters.batches += 1
                yield arrays
                del arrays  # its memory may be used again while the next one is waited for
                self._counters.consuming += time.perf_counter() - begun

    def _next(self) -> Arrays | None:
        begun = time.perf_counter()
        with self._change:
            self._change.wait_for(lambda: self._copied > self._taken or self._error or self._count == self._taken)
            self._counters.waiting += time.perf_counter() - begun
            if self._copied > self._taken:
                self._taken += 1
                self._change.notify_all()
                work = self._works.popleft()
            elif self._error is not None:
                raise self._error
            else:
                return None
        return self._sink.give(work.planned, work.places or self._sink.places(work.planned), work.arrays)

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        """Stop the threads and wait for them; a forked process has none of them."""
        if not any(thread.is_alive() for thread in threads):
            return
        with self._change:
            self._stopped = True
            self._change.notify_all()
        for thread in threads:
            thread.join()

    def _fail(self, error: BaseException) -> None:
        with self._change:
            self._error = self._error or error
            self._stopped = True
            self._change.notify_all()

    def _plan(self, files: Opened) -> None:
        """Plan batch after batch and put them into the line, with their bytes on the way."""
        with self._failing:
            for planned in self._fetching.run(files):
                work = _Work(planned, self._tile_bytes, self._sink.pieces(planned))
                planned.stored.add_done_callback(self._arrived)
                with self._change:
                    self._works.append(work)
                    self._planned += 1
                    self._advance()
                    self._change.wait_for(lambda: self._stopped or not self._fetching.enough(self._planned - self._copied))
                    if self._stopped:
                        return
            with self._change:
                self._count = self._planned
                self._change.notify_all()

    def _arrived(self, _: Any) -> None:
        with self._change:
            self._change.notify_all()

    def _work(self, files: Opened) -> None:
        with self._failing:
            readers = {name: TileReader(part.reader, files, part.bands) for name, part in self._modalities.items()}
            while (found := self._piece()) is not None:
                work, kind, piece = found
                begun, reading = time.perf_counter(), 0.0
                if kind == "decode":
                    reading = self._decode(work, readers[piece[0]], piece)
                else:
                    self._sink.copy(work.planned, work.arrays, piece)
                self._done(work, kind, time.perf_counter() - begun - reading, reading)

    def _piece(self) -> tuple[_Work, str, tuple[str, slice]] | None:
        """Return the first piece of work that can be done, waiting for one; None at the end."""
        with self._change:
            while not self._stopped and self._count != self._copied:
                begun, lacking = time.perf_counter(), False
                for work in self._works:
                    if work.decoding and self._sink.may_decode(work.planned.place, self._copied, self._taken):
                        if work.planned.stored.done():
                            work.places = work.places or self._sink.places(work.planned)
                            return work, "decode", work.decoding.popleft()
                        lacking = True
                for work in self._works:
                    if work.copying and work.planned.place < min(self._decoded, self._taken + self._prefetch):
                        if not work.arrays:
                            work.arrays = self._sink.arrays(work.planned)
                        return work, "copy", work.copying.popleft()
                self._change.wait()
                if lacking:
                    self._fetching.starved((time.perf_counter() - begun) / self._threads)
            return None

    def _decode(self, work: _Work, reader: TileReader, piece: tuple[str, slice]) -> float:
        """Decode some tiles into their places; return the seconds that reading them took."""
        name, part = piece
        assert work.places is not None
        tiles, rows = work.places[name]
        stored, chosen = work.planned.stored.result().get(name, {}), work.planned.steps[name].tiles[part]
        return sum(reader.decode(tile, stored.get(tile), tiles[row]) for tile, row in zip(chosen, rows[part], strict=True))

    def _done(self, work: _Work, kind: str, seconds: float, reading: float) -> None:
        with self._change:
            self._counters.assembling += seconds / self._threads
            self._counters.starved += reading / self._threads
            work.left[kind] -= 1
            if not work.left[kind]:
                if kind == "decode":
                    self._fetching.decoded(work.planned)
                self._advance()

    def _advance(self) -> None:
        """Count on which batches are decoded and copied, in order, and wake whoever waits for that."""
        for work in self._works:
            place = work.planned.place
            self._decoded += place == self._decoded and not work.left["decode"]
            self._copied += place == self._copied < self._decoded and not work.left["copy"]
        self._change.notify_all()
