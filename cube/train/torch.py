"""PyTorch: a thin skin over :mod:`cube.train.samples` and :mod:`cube.train.batches`. Needs the extra ``torch``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from cube.errors import RequestError
from cube.train.batches import Batches
from cube.train.device import DeviceBatches, usable
from cube.train.forms import Form, Sample, Scaled, Shaping
from cube.train.samples import CHOICES, OPENING, Samples
from cube.train.states import read_state, require_known, require_one, require_whole

_WIDER: dict[Any, Any] = {np.dtype("uint16"): np.dtype("int32"), np.dtype("uint32"): np.dtype("int64")}
"""Types PyTorch computes with in place of those it only stores."""


OPTIONS = tuple(item.name for item in fields(Batches) if item.name not in ("samples", "_"))
"""Options of batches."""


class PatchDataset(Dataset[Sample]):
    """Patches of a cube as a map-style dataset, for existing scripts; :class:`BatchLoader` is several times faster.

    A sample maps each modality to a tensor (band, y, x), in stored units and type (``uint16`` becomes ``int32``), and
    ``patch`` to the id. ``form`` turns it into something else. Options, such as ``where="split=train"``, are those of
    :class:`cube.train.samples.Samples`, and so are the errors. The store is opened where it is used, so that instances can be
    sent to worker processes.
    """

    def __init__(self, url: str, *, form: Form | None = None, **options: Any) -> None:
        require_known("PatchDataset", options, (*CHOICES, *OPENING))
        samples = Samples(url, **options)
        self.samples, self.form = form.wanted(samples) if isinstance(form, Shaping) else samples, form

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample."""
        return self._formed(_tensors(self.samples[index]))

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return many samples, read at once: what a ``DataLoader`` asks for."""
        batch = _tensors(self.samples.read(list(indices)))
        return [self._formed({name: values[row] for name, values in batch.items()}) for row in range(len(indices))]

    def _formed(self, sample: Sample) -> Sample:
        return self.form(sample) if self.form else sample


class BatchDataset(IterableDataset[Sample]):
    """Whole batches as an iterable dataset, for ``DataLoader(dataset, batch_size=None)``.

    A batch maps each modality to a tensor (patch, band, y, x) and ``patch`` to the ids. Each worker process gives its own
    part of the epoch. Options are those of :class:`cube.train.batches.Batches`. Prefer :class:`BatchLoader`, which also counts
    epochs, knows ranks and can be resumed; this dataset alone gives the epoch and part that its ``batches`` say.
    """

    def __init__(self, samples: Samples, *, form: Form | None = None, device: Any = None, **options: Any) -> None:
        require_known("BatchDataset", options, OPTIONS)
        if isinstance(form, Shaping):
            samples = form.wanted(samples)
        if isinstance(form, Scaled) and device is not None:
            raise RequestError("Scaled works on arrays of this process: leave it or device out, and scale on the device")
        self.device = None if device is None else usable(device)
        """Where the tensors are made; None where they are made of arrays here."""
        self.batches = (
            Batches(samples, **options) if self.device is None else DeviceBatches(samples, device=self.device, **options)
        )
        readable = {name: _WIDER.get(np.dtype(r.layout.dtype)) for name, r in samples.readers.items()}
        self.batches.dtypes = {**{name: kind for name, kind in readable.items() if kind}, **self.batches.dtypes}
        if isinstance(form, Shaping):  # joined and cast while they are copied, not afterwards
            self.batches.stack, self.batches.dtypes = form.stack, {**self.batches.dtypes, **form.dtypes}
        self.form = form
        self._own: tuple[tuple[int, int], Batches] | None = None
        """Which part this process gave last, of how many, and its batches."""
        self.position = torch.tensor([self.batches.epoch, self.batches.start]).share_memory_()
        """Epoch, and batches of it that this rank had consumed when it began to iterate; seen by all workers."""

    def __iter__(self) -> Iterator[Sample]:
        """Yield the batches that are left of this process's part of the epoch."""
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, consumed = self.position.tolist()
        lengths = [len(self.part(part, workers)) for part in range(workers)]
        part, start = _turn(lengths, consumed)[number]
        if self._own is None or self._own[0] != (part, workers):
            self._own = (part, workers), self.part(part, workers)
        batches = self._own[1]  # the same in every epoch: its memory is used again
        batches.epoch, batches.start = epoch, start
        for batch in batches:
            tensors = _tensors(batch)
            if self.device is not None:
                tensors = {name: value.to(self.device) if hasattr(value, "to") else value for name, value in tensors.items()}
            yield self.form(tensors) if self.form else tensors

    def __len__(self) -> int:
        """Return the batches of an epoch where no worker processes divide it."""
        return len(self.batches)

    def part(self, part: int, workers: int) -> Batches:
        """Return the batches of one of some worker processes of this rank."""
        rank, world = self.batches.stream
        return replace(self.batches, start=0, stream=(rank * workers + part, world * workers))


class BatchLoader:
    """Epochs of batches for training: shuffled, divided over ranks and worker processes, resumable.

    ``workers`` 0 assembles in threads of this process, which is fastest as long as the training step leaves the
    interpreter free. ``rank`` and ``world`` are those of ``torch.distributed`` where it is initialised. With ``pin_memory``
    tensors can be copied to a device asynchronously. Options are those of :class:`cube.train.batches.Batches` and ``form``.

    With ``device``, such as ``"cuda"``, batches are tensors there: only distinct tiles are sent, each once as long as
    ``memory`` bytes of the device hold it, and joined, cast and augmented there. The current stream waits, not the program.

    ``state_dict`` is small and plain; after ``load_state_dict`` the loader gives exactly the batches that were left, in the
    same order, with as many workers and ranks as before. Raises ``RequestError`` for a state of another loader, for a device
    that is not there, and for worker processes together with one.
    """

    def __init__(
        self, samples: Samples, *, workers: int = 0, pin_memory: bool = False, context: str = "spawn", **options: Any
    ) -> None:
        require_known("BatchLoader", options, (*OPTIONS, "form", "device"))
        require_whole("workers", workers, 0)
        if workers and options.get("device") is not None:
            raise RequestError("workers and device exclude each other: threads of this process feed the device; say workers=0")
        require_one("context", context, ("spawn", "forkserver", "fork"))
        options.setdefault("stream", current_rank())
        self.dataset, self.workers = BatchDataset(samples, **options), workers
        self._epoch, self._consumed = self.dataset.position.tolist()
        self._loader = DataLoader(
            self.dataset,
            batch_size=None,
            num_workers=workers,
            pin_memory=pin_memory and self.dataset.device is None,
            multiprocessing_context=context if workers else None,
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        """Return the batches of an epoch on this rank."""
        return sum(len(self.dataset.part(part, max(1, self.workers))) for part in range(max(1, self.workers)))

    def __iter__(self) -> Iterator[Sample]:
        """Yield the batches of the epoch that are left, then go on to the next epoch."""
        epoch, consumed, last = self._epoch, self._consumed, len(self)
        self.dataset.position.copy_(torch.tensor([epoch, consumed]))
        for batch in self._loader:
            consumed += 1
            # Who counts the batches does not ask for one more, so with the last one begins the next epoch.
            self._epoch, self._consumed = (epoch, consumed) if consumed < last else (epoch + 1, 0)
            yield batch
        self._epoch, self._consumed = epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the consumer is: batches it was given count as consumed."""
        plan = self.dataset.batches.state()["plan"]
        return {"epoch": self._epoch, "batch": self._consumed, "workers": self.workers, "plan": plan}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        mine = self.state_dict()
        own = {name: mine[name] for name in ("workers", "plan")}
        self._epoch, self._consumed = read_state(state, own, len(self))


def _turn(lengths: Sequence[int], consumed: int) -> list[tuple[int, int]]:
    """Return for each worker which part it gives and how many of its batches were consumed.

    A ``DataLoader`` takes turns, beginning with worker 0; so after a resume the part whose turn it is must be worker 0's.
    """
    turns = [part for number in range(max(lengths)) for part, length in enumerate(lengths) if number < length]
    done = [turns[:consumed].count(part) for part in range(len(lengths))]
    order = list(dict.fromkeys([*turns[consumed:], *range(len(lengths))]))
    return [(part, done[part]) for part in order]


def current_rank() -> tuple[int, int]:
    """Return rank and world size of ``torch.distributed``, 0 of 1 where it is not initialised."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _tensors(values: Mapping[str, Any]) -> Sample:
    return {name: _tensor(value) for name, value in values.items()}


def _tensor(value: Any) -> Any:
    """Return an array of numbers as a tensor, texts as they are."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind != "U":
        return torch.from_numpy(_widened(value))
    if isinstance(value, np.generic) and value.dtype.kind != "U":
        return torch.tensor(value.item(), dtype=torch.from_numpy(_widened(np.array([value]))).dtype)
    return value.tolist() if isinstance(value, np.ndarray) else str(value)


def _widened(values: NDArray[Any]) -> NDArray[Any]:
    wider = _WIDER.get(values.dtype)
    return values if wider is None else values.astype(wider)
