"""Epochs of shuffled batches: seeded, exactly once, divided over ranks and workers, resumable, with bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cube.errors import RequestError
from cube.tasks.augmenting import Augmentation, Changes
from cube.train.assembly import Assembly, Counters
from cube.train.samples import Samples
from cube.train.shelf import Modality
from cube.train.shuffle import Shuffle, in_order, shuffled, stream_bounds
from cube.train.states import GREATEST, read_state, require_dtypes, require_one, require_stack, require_stream, require_whole

Array = NDArray[Any]


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
    memory: int = 2 << 30
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

        given = (
            (number, self.samples.rows[part(number)], self._changes(part(number), epoch))
            for number in range(self.start, len(self))
        )
        assembly = Assembly(self._modalities(), self.stack, threads=self.threads, memory=self.memory, prefetch=self.prefetch)
        self.counters = assembly.counters
        for number, batch in assembly.run(given):
            # Who counts the batches does not ask for one more, so with the last one begins the next epoch.
            self.epoch, self.start = (epoch, number + 1) if number + 1 < len(self) else (epoch + 1, 0)
            yield {**batch, **self.samples.about(part(number))}
        self.epoch, self.start = epoch + 1, 0

    @property
    def memory_bytes(self) -> int:
        """Most bytes of tiles and batches that are held at a time, stored bytes of tiles on their way not counted."""
        sizes = [
            modality.reader.layout.patch_bytes * modality.dtype.itemsize // np.dtype(modality.reader.layout.dtype).itemsize
            for modality in self._modalities().values()
        ]
        return self.memory + (self.prefetch + 4) * self.batch_size * sum(sizes)

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

    def _modalities(self) -> dict[str, Modality]:
        return {
            name: Modality(
                reader=self.samples.readers[name],
                bands=bands,
                dtype=np.dtype(self.dtypes.get(name, np.dtype(self.samples.readers[name].layout.dtype).newbyteorder("="))),
            )
            for name, bands in self.samples.modalities.items()
        }
