"""Epochs of shuffled batches: seeded, exactly once, divided over ranks and workers, resumable, with bounded memory."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cube.errors import RequestError
from cube.format.tiles import TileLayout
from cube.read.memory import Workspace, Workspaces
from cube.tasks.augmenting import Augmentation, Changes
from cube.train.assembly import Assembly
from cube.train.counters import Counters
from cube.train.fetching import Fetching
from cube.train.planning import AHEAD, TilePlan
from cube.train.pools import Modality, Output, outputs_of
from cube.train.samples import Samples
from cube.train.shuffle import Shuffle, in_order, shuffled, stream_bounds
from cube.train.sinks import HostSink, Sink
from cube.train.states import GREATEST, read_state, require_dtypes, require_one, require_stack, require_stream, require_whole

Array = NDArray[Any]


_LOOKED_AT = 64
"""Batches after which it is told that tiles are decoded again."""
_MUCH = 0.15
"""Part of the tiles that are decoded again which is worth to be told."""
_LEAST = {"batch_size": 1, "seed": 0, "threads": 1, "memory": 1, "prefetch": 1, "epoch": 0, "start": 0}
"""Least value of every option that is a whole number."""


@dataclass
class Batches:
    """Batches of samples; iterating gives one epoch.

    A batch is a dictionary from modality to (patch, band, y, x), and from ``patch`` to ids. Each epoch of one seed holds
    every sample exactly once over all streams, always in the same order. Arrays are the consumer's to keep; their memory
    is used again once nobody holds them.
    """

    samples: Samples
    _: KW_ONLY
    batch_size: int = 32
    shuffle: bool | Shuffle = True
    """Whether, or how, patches are mixed; in stored order if not."""
    seed: int = 0
    stream: tuple[int, int] = (0, 1)
    """Which of how many streams this is, such as rank and world size."""
    tail: Literal["keep", "drop", "repeat"] = "keep"
    """Streams differ by one sample at most. ``keep`` gives each sample once; ``drop`` leaves the last ones out so that all
    streams have equally many full batches; ``repeat`` repeats some so that all have equally many."""
    threads: int = 2
    """Threads that decode."""
    memory: int = 1 << 30
    """Most bytes of decoded tiles that are held; more means that fewer are decoded twice."""
    prefetch: int = 3
    """Finished batches that wait for the consumer."""
    dtypes: Mapping[str, Any] = field(default_factory=dict)
    """Modality → type of its arrays, where it is not the stored one."""
    stack: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Name → modalities whose bands are joined, in order, in one array of that name instead of one for each."""
    augment: Augmentation | None = None
    """Crops, flips and quarter turns, made while tiles are copied: the same as calling it with each batch."""
    epoch: int = 0
    """The epoch that iterating gives, or is giving."""
    start: int = 0
    """Batches of this epoch that are left out, because they were consumed before."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            require_whole(name, getattr(self, name), least, GREATEST if name in ("seed", "epoch") else None)
        require_stream(self.stream)
        require_one("tail", self.tail, ("keep", "drop", "repeat"))
        if not isinstance(self.shuffle, (bool, Shuffle)):
            raise RequestError(f"shuffle is {self.shuffle!r}: expected True, False or a Shuffle")
        require_dtypes(self.dtypes)
        sides = {name: reader.layout.size for name, reader in self.samples.readers.items()} if self.stack else {}
        require_stack(self.stack, self.samples.modalities, sides)
        named = {*self.dtypes, *(name for names in self.stack.values() for name in names)}
        if unknown := sorted(named - set(self.samples.modalities)):
            raise RequestError(f"{unknown} are named, but not read; expected {', '.join(self.samples.modalities)}")
        require_whole("start", self.start, 0, len(self))
        if self.augment is not None and not isinstance(self.augment, Augmentation):
            raise RequestError(f"augment is {self.augment!r}: expected a cube.tasks.Augmentation")
        self._changes(np.arange(1), 0)
        self._workspaces, self._warned = Workspaces(), False
        self.counters = Counters()
        """What the running epoch has cost, and what limits it."""

    def __len__(self) -> int:
        """Return the batches of an epoch of this stream."""
        count = self._length()
        return count // self.batch_size if self.tail == "drop" else -(-count // self.batch_size)

    def order(self) -> NDArray[np.int64]:
        """Return the samples of this epoch in order, as positions among the samples."""
        if self.shuffle:
            shuffle = self.shuffle if isinstance(self.shuffle, Shuffle) else Shuffle()
            order = shuffled(self.samples.runs, shuffle, (self.seed, self.epoch), self.stream)
        else:
            order = in_order(len(self.samples), self.stream)
        if not len(order):
            return order
        return np.resize(order, max(len(order), self._length())) if self.tail == "repeat" else order[: self._length()]

    def __iter__(self) -> Iterator[dict[str, Array]]:
        """Yield the batches of the epoch that are left, then go on to the next epoch."""
        order, epoch = self.order(), self.epoch

        def part(number: int) -> NDArray[np.int64]:
            return order[number * self.batch_size :][: self.batch_size]

        first, workspace = self.start, self._workspaces.take(self.prefetch + 4)
        fetching = self._fetching(order[first * self.batch_size : len(self) * self.batch_size], epoch)
        self.counters = fetching.counters
        outputs = self._outputs()
        sink = self._sink(outputs, self._slots(fetching.plans.values()), workspace)
        modalities = {name: part for output in outputs for name, part in output.modalities.items()}
        assembly = Assembly(fetching, modalities, sink, threads=self.threads, prefetch=self.prefetch)
        try:
            for number, batch in enumerate(assembly.run(), first):
                # Who counts the batches does not ask for one more, so with the last one begins the next epoch.
                self.epoch, self.start = (epoch, number + 1) if number + 1 < len(self) else (epoch + 1, 0)
                yield {**batch, **self.samples.about(part(number))}
                del batch
                if number + 1 in (first + _LOOKED_AT, len(self)):
                    self._warn_of_memory(fetching)
        finally:
            self._workspaces.give_back(workspace)
        self.epoch, self.start = epoch + 1, 0

    def _fetching(self, order: NDArray[np.int64], epoch: int) -> Fetching:
        """Plan the samples of an epoch, or those that are left of it."""
        rows, plans = self.samples.rows[order], {}
        for name, reader in self.samples.readers.items():
            plans[name] = TilePlan(
                rows,
                self.batch_size,
                shard=reader.layout.slots,
                places=reader.layout.across**2,
                entries=reader.indexes.entries,
                wanted=self._wanted(reader.layout, order, epoch),
            )
        parts = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return Fetching(plans, self.samples.readers, list(map(len, parts)), lambda place: self._changes(parts[place], epoch))

    def _wanted(self, layout: TileLayout, order: NDArray[np.int64], epoch: int) -> Callable[[Array], Array] | None:
        """Return what tells which tiles are looked at; None where that is all."""
        if self.augment is None or self.augment.crop is None:
            return None

        def touched(at: Array) -> Array:
            changes = self._changes(order[at], epoch)
            assert changes is not None
            return changes.touched(layout.across, layout.tile, layout.size)

        return touched

    def _warn_of_memory(self, fetching: Fetching) -> None:
        """Say once what memory would do, where tiles are decoded again for lack of it."""
        if self._warned or fetching.counters.again <= _MUCH * fetching.counters.tiles:
            return
        self._warned = True
        needed = max(plan.needed(plan.planned - 1) for plan in fetching.plans.values()) * self._tile_bytes
        shown = f"{fetching.counters.again / fetching.counters.tiles:.0%} of the tiles were decoded before"
        warnings.warn(
            f"memory={self.memory:_} ({self.memory / 2**30:.2g} GiB) is little for this shuffle: {shown}. "
            f"memory={needed:_} ({needed / 2**30:.2g} GiB) decodes each once; a Shuffle with fewer lanes needs less",
            stacklevel=3,
        )

    def _sink(self, outputs: Sequence[Output], slots: int, workspace: Workspace) -> Sink:
        """Return what makes batches out of decoded tiles."""
        return HostSink(outputs, slots, workspace)

    def _slots(self, plans: Iterable[TilePlan]) -> int:
        """Divide the memory into slots of one tile of each modality; return how many there are at most."""
        limit = self.memory // self._tile_bytes
        for plan in plans:
            plan.slots.limit = limit
        return self._most_slots(limit)

    @property
    def memory_bytes(self) -> int:
        """Most bytes of tiles and batches that are held at a time, stored bytes of tiles on their way not counted."""
        patches = self._most_slots(self.memory // self._tile_bytes) * self._tile_bytes
        return patches + (self.prefetch + 4) * self.batch_size * sum(output.patch_bytes for output in self._outputs())

    def state(self) -> dict[str, Any]:
        """Return where the consumer is, as a small dictionary of plain values: batches it was given count as consumed."""
        return {"epoch": self.epoch, "batch": self.start, "plan": self._plan()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken.

        Raises ``RequestError`` if it is no state, or one of other samples, modalities, batches, seed or streams.
        """
        self.epoch, self.start = read_state(state, {"plan": self._plan()}, len(self))

    def _changes(self, part: NDArray[np.int64], epoch: int) -> Changes | None:
        if self.augment is None:
            return None
        sides = [reader.layout.size for reader in self.samples.readers.values()]
        return self.augment.changes([str(name) for name in self.samples.ids[part]], epoch, sides)

    def _length(self) -> int:
        """Return the samples of this stream in one epoch."""
        lengths = np.diff(stream_bounds(len(self.samples), self.stream[1]))
        return int({"keep": lengths[self.stream[0]], "drop": lengths.min(), "repeat": lengths.max()}[self.tail])

    def _plan(self) -> str:
        rows = np.ascontiguousarray(self.samples.rows).tobytes()
        bands = {name: self.samples.bands(name) for name in self.samples.modalities}
        how: tuple[Any, ...] = (self.batch_size, str(self.shuffle), self.seed, tuple(self.stream), self.tail, bands)
        how += (self.augment,) if self.augment else ()
        return hashlib.sha256(rows + repr(how).encode()).hexdigest()[:16]

    @property
    def _tile_bytes(self) -> int:
        """Bytes of a decoded tile of all modalities together."""
        return sum(part.tile_bytes for output in self._outputs() for part in output.modalities.values())

    def _most_slots(self, limit: int) -> int:
        """Return how many slots are used at most: as many as are allowed, but never fewer than some batches need at a time."""
        places = max(reader.layout.across**2 for reader in self.samples.readers.values())
        least = (1 + AHEAD) * self.batch_size * places
        return 1 + min(max(limit, least), self._length() * places)

    def _outputs(self) -> list[Output]:
        modalities = {
            name: Modality(
                reader=self.samples.readers[name],
                bands=bands,
                dtype=np.dtype(self.dtypes.get(name, np.dtype(self.samples.readers[name].layout.dtype).newbyteorder("="))),
            )
            for name, bands in self.samples.modalities.items()
        }
        return outputs_of(modalities, self.stack)
