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

from cube.read.memory import Workspace
from cube.read.pixels import TileReader
from cube.store.protocol import Opened
from cube.train.fetching import Fetching, Planned
from cube.train.planning import AHEAD
from cube.train.pools import Output, Pool
from cube.train.threads import handing_to

Array = NDArray[Any]
_PIECE = 2 << 20
"""Bytes of pixels that are decoded, or copied, as one piece of work."""


class _Work:
    """One batch on its way from plan to arrays."""

    def __init__(self, planned: Planned, outputs: Iterable[Output], tile_bytes: Mapping[str, int]) -> None:
        self.planned, self.arrays = planned, dict[str, Array]()
        self.decoding = deque[tuple[str, slice]]()
        """Pieces not begun: some tiles of a modality."""
        self.copying = deque[tuple[str, slice]]()
        """Pieces not begun: some patches of an array."""
        for name, step in planned.steps.items():
            self.decoding.extend((name, part) for part in _parts(len(step.tiles), _PIECE // tile_bytes[name]))
        for output in outputs:
            self.copying.extend((output.name, part) for part in _parts(planned.patches, _PIECE // output.patch_bytes))
        self.left = {"decode": len(self.decoding), "copy": len(self.copying)}
        """Pieces that are not done."""


def _parts(length: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


class Assembly:
    """The work on one epoch of one stream."""

    def __init__(
        self, fetching: Fetching, outputs: Sequence[Output], slots: int, workspace: Workspace, *, threads: int, prefetch: int
    ) -> None:
        """Work with so many ``slots`` for each modality."""
        self._fetching, self._workspace = fetching, workspace
        self._outputs = {output.name: output for output in outputs}
        self._counters = fetching.counters
        self._threads, self._prefetch = threads, prefetch
        self._modalities = {name: part for output in outputs for name, part in output.modalities.items()}
        self._pools = {
            name: Pool(part, slots, workspace.room(name, slots * part.tile_bytes)) for name, part in self._modalities.items()
        }
        self._tile_bytes = {name: part.reader.layout.tile_bytes for name, part in self._modalities.items()}
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

    def run(self) -> Iterator[dict[str, Array]]:
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

    def _next(self) -> dict[str, Array] | None:
        begun = time.perf_counter()
        with self._change:
            self._change.wait_for(lambda: self._copied > self._taken or self._error or self._count == self._taken)
            self._counters.waiting += time.perf_counter() - begun
            if self._copied > self._taken:
                self._taken += 1
                self._change.notify_all()
                return self._works.popleft().arrays
            if self._error is not None:
                raise self._error
            return None

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
                work = _Work(planned, self._outputs.values(), self._tile_bytes)
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
                work, kind, (name, part) = found
                begun, reading = time.perf_counter(), 0.0
                if kind == "decode":
                    reading = self._decode(work.planned, readers[name], name, part)
                else:
                    self._copy(work, name, part)
                self._done(work, kind, time.perf_counter() - begun - reading, reading)

    def _piece(self) -> tuple[_Work, str, tuple[str, slice]] | None:
        """Return the first piece of work that can be done, waiting for one; None at the end."""
        with self._change:
            while not self._stopped and self._count != self._copied:
                begun, lacking = time.perf_counter(), False
                for work in self._works:
                    if work.decoding and work.planned.place <= self._copied + AHEAD:
                        if work.planned.stored.done():
                            return work, "decode", work.decoding.popleft()
                        lacking = True
                for work in self._works:
                    if work.copying and work.planned.place < min(self._decoded, self._taken + self._prefetch):
                        if not work.arrays:
                            work.arrays.update(self._room(work.planned))
                        return work, "copy", work.copying.popleft()
                self._change.wait()
                if lacking:
                    self._fetching.starved((time.perf_counter() - begun) / self._threads)
            return None

    def _decode(self, planned: Planned, reader: TileReader, name: str, part: slice) -> float:
        """Decode some tiles into their slots; return the seconds that reading them took."""
        step, stored, tiles = planned.steps[name], planned.stored.result().get(name, {}), self._pools[name].tiles
        chosen = step.tiles[part]
        slots = step.slots[part].tolist()
        return sum(reader.decode(tile, stored.get(tile), tiles[slot]) for tile, slot in zip(chosen, slots, strict=True))

    def _copy(self, work: _Work, name: str, part: slice) -> None:
        output, changes = self._outputs[name], work.planned.changes
        for modality, bands in output.parts.items():
            pool, gathered = self._pools[modality], work.planned.steps[modality].gathered[part]
            out = work.arrays[name][part, bands]
            if changes is None:
                pool.copy(gathered, out)
            else:
                pool.place(gathered, out, changes, part.start)

    def _room(self, planned: Planned) -> dict[str, Array]:
        """Return the arrays of a batch, to be filled."""
        arrays = {}
        for output in self._outputs.values():
            side = output.size if planned.changes is None else planned.changes.side(output.size)
            shape = planned.patches, output.bands, side, side
            arrays[output.name] = self._workspace.recycler.empty(shape, output.dtype)
        return arrays

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
