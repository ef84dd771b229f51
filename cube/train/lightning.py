"""A cube as a data module of Lightning. Needs ``lightning``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

from lightning import LightningDataModule

from cube.errors import RequestError
from cube.train.forms import Form, Sample
from cube.train.samples import CHOICES, OPENING, Samples
from cube.train.splitting import Split, make_split, read_split
from cube.train.states import require_known
from cube.train.torch import OPTIONS, BatchDataset, BatchLoader, current_rank

_LOADING = ("workers", "pin_memory", "context")


class Epochs:
    """Batches with a length, and nothing else: Lightning warns of datasets that are iterable and have one."""

    def __init__(self, batches: BatchLoader | BatchDataset) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class Training(Epochs):
    """Epochs of which Lightning keeps, with each checkpoint, where training stood."""

    def __init__(self, batches: BatchLoader) -> None:
        super().__init__(batches)
        self.state_dict, self.load_state_dict = batches.state_dict, batches.load_state_dict


class PatchDataModule(LightningDataModule):
    """Epochs scenes of a cube for training, validation and test, in batches of any form.

    Parameters
    ----------
    url
        The cube.
    form
        Turns each batch into what the model takes, such as ``ImageAndMask()``.
    split
        A :class:`Split`, the path of one that was written, or what :func:`make_split` takes as its ``parts``. Parts are called
        ``train``, ``val`` and ``test``.
    batch_size
        Patches a batch; the last, smaller one of an epoch is left out of training and kept elsewhere.
    **options
        Those of ``Samples`` (such as ``modalities`` or ``labels``), of ``Batches`` (such as ``seed``) and of ``BatchLoader``
        (such as ``workers``).

    Where training stood is part of Lightning's checkpoints: a trainer that goes on gives the patches that were left.
    Raises ``RequestError`` for an unknown option, and for a split without a part that is asked for.
    """

    def __init__(
        self,
        url: str,
        form: Form | None = None,
        split: Split | str | PathLike[str] | Mapping[str, float | str] | None = None,
        batch_size: int = 32,
        **options: Any,
    ) -> None:
        super().__init__()
        choosing = (*CHOICES, *OPENING)
        require_known("PatchDataModule", options, (*choosing, *OPTIONS, *_LOADING))
        self.url, self.form, self.batch_size = url, form, batch_size
        self._choice = {name: options[name] for name in choosing if name in options}
        self._loading = {name: value for name, value in options.items() if name not in choosing}
        if not isinstance(split, Split | str | PathLike | Mapping | None):
            raise RequestError(f"split is {split!r}: expected a Split, the path of one, or name → share of its parts")
        made = read_split(os.fspath(split)) if isinstance(split, str | PathLike) else split
        self.split = made if isinstance(made, Split) else None
        self._parts: Mapping[str, float | str] = (
            split if isinstance(split, Mapping) else {"train": 0.9, "val": 0.1, "test": "official"}
        )
        self._training: Training | None = None

    def setup(self, stage: str) -> None:
        """Make the split, once; nothing is downloaded."""
        self._divided()

    def _divided(self) -> Split:
        if self.split is None:
            self.split = make_split(Samples(self.url, **{**self._choice, "incomplete": "leave out"}), self._parts)
        return self.split

    def samples(self, part: str) -> Samples:
        """Return the patches of a part."""
        return Samples(self.url, **{**self._choice, "ids": self._divided().ids(part)})

    def train_dataloader(self) -> Epochs:
        """Return shuffled batches of the part ``train``."""
        if self._training is None:
            options = {"tail": "drop", **self._loading}
            loader = BatchLoader(self.samples("train"), batch_size=self.batch_size, form=self.form, **options)
            self._training = Training(loader)
        return self._training

    def val_dataloader(self) -> Epochs:
        """Return batches of the part ``val``, in order, from the first one whenever it is iterated."""
        return self._whole("val")

    def test_dataloader(self) -> Epochs:
        """Return batches of the part ``test``, in order."""
        return self._whole("test")

    def _whole(self, part: str) -> Epochs:
        options = {name: value for name, value in self._loading.items() if name not in _LOADING}
        options.setdefault("stream", current_rank())
        dataset = BatchDataset(
            self.samples(part), batch_size=self.batch_size, form=self.form, **{**options, "shuffle": False, "tail": "keep"}
        )
        return Epochs(dataset)
