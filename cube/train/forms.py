"""The forms in which training scripts take batches: images and masks, images and labels. Needs the extra ``torch``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from cube.train.samples import Samples
from cube.train.states import require_one, require_whole

Sample = dict[str, Any]
Form = Callable[[Sample], Sample]
"""Turns a batch, or a sample, of tensors into what a training script takes. Must be picklable for worker processes."""


@runtime_checkable
class Shaping(Protocol):
    """A form that says beforehand what it takes, so that it is made while tiles are copied, not afterwards."""

    @property
    def stack(self) -> Mapping[str, tuple[str, ...]]:
        """Name → modalities whose bands are joined in an array of that name."""

    @property
    def dtypes(self) -> Mapping[str, Any]:
        """Modality → type of its pixels."""

    def wanted(self, samples: Samples) -> Samples:
        """Return the samples with what the form needs of them, and no more."""

    def __call__(self, sample: Sample) -> Sample:
        """Return the sample in this form."""


@dataclass(frozen=True)
class ImageAndMask:
    """The form that TorchGeo's SEN12MS has: ``image`` (…, band, y, x) float32 and ``mask`` (…, y, x) int64.

    ``image`` stacks the bands of ``images`` in order, ``mask`` is the band ``band`` of ``classes``. Where a ``table`` is
    given, codes are looked up in it: see :func:`group_table`.
    """

    images: tuple[str, ...] = ("s1", "s2")
    classes: str = "lc"
    band: int = 0
    table: tuple[int, ...] | None = None

    def __call__(self, sample: Sample) -> Sample:
        """Return ``image``, ``mask`` and whatever is neither."""
        image = sample.get("image")
        if image is None:
            image = torch.cat([sample[name].to(torch.float32) for name in self.images], dim=-3)
        mask = sample["mask"][..., 0, :, :] if "mask" in sample else sample[self.classes][..., self.band, :, :].to(torch.int64)
        if self.table is not None:
            mask = torch.tensor(self.table, device=mask.device)[mask]
        rest = {name: value for name, value in sample.items() if name not in (*self.images, self.classes, "image", "mask")}
        return {"image": image, "mask": mask, **rest}

    @property
    def stack(self) -> dict[str, tuple[str, ...]]:
        """What is joined while it is copied."""
        return {"image": self.images, "mask": (self.classes,)}

    @property
    def dtypes(self) -> dict[str, Any]:
        """Types that are made while copying."""
        return {**dict.fromkeys(self.images, np.dtype(np.float32)), self.classes: np.dtype(np.int64)}

    def wanted(self, samples: Samples) -> Samples:
        """Return the same samples with only the band of ``classes`` that makes the mask, where they have any."""
        if self.classes not in samples.modalities:
            return samples
        part = copy(samples)
        every = np.arange(samples.readers[self.classes].layout.bands)[samples.modalities[self.classes]]
        require_whole("band", self.band, -len(every), len(every) - 1)
        part.modalities = {**samples.modalities, self.classes: every[[self.band]]}
        return part


@dataclass(frozen=True)
class Classification:
    """``image`` (…, band, y, x) float32, and ``label``: the class of each patch, or which of several classes it has.

    ``image`` stacks the bands of ``images``, in order. ``by`` names the label of the patches: ``label10`` and its like, a
    text, or a class of the recipe give int64 codes, positions in ``samples.classes(by)``, -1 where there is none; those of
    several, such as ``labels10``, give float32 of 0 and 1 (…, class); numbers stay numbers.
    """

    by: str
    images: tuple[str, ...] = ("s1", "s2")

    @property
    def stack(self) -> dict[str, tuple[str, ...]]:
        """What is joined while it is copied."""
        return {"image": self.images}

    @property
    def dtypes(self) -> dict[str, Any]:
        """Types that are made while copying."""
        return dict.fromkeys(self.images, np.dtype(np.float32))

    def wanted(self, samples: Samples) -> Samples:
        """Return the same samples, of these images and with the label."""
        part = copy(samples)
        part.modalities = {name: bands for name, bands in samples.modalities.items() if name in self.images}
        part.labels = tuple(dict.fromkeys((*samples.labels, self.by)))
        part.forget()
        return part

    def __call__(self, sample: Sample) -> Sample:
        """Return ``image``, ``label`` and whatever is neither."""
        image = sample.get("image")
        if image is None:
            image = torch.cat([sample[name].to(torch.float32) for name in self.images], dim=-3)
        rest = {name: value for name, value in sample.items() if name not in (*self.images, self.by, "image")}
        return {"image": image, "label": sample[self.by], **rest}


@dataclass(frozen=True)
class Scaled:
    """Another form, of images whose values were scaled before they were joined.

    ``by`` maps a modality to what makes float32 of its pixels (…, band, y, x), a function over NumPy arrays such as
    ``functools.partial(cube.tasks.scaled, low=-25, high=0)`` or ``functools.partial(cube.tasks.standardized,
    **samples.statistics("s1"))``; other images of the form stay as they are.
    """

    form: ImageAndMask | Classification
    by: Mapping[str, Callable[[Any], Any]]

    @property
    def stack(self) -> dict[str, tuple[str, ...]]:
        """What is joined while it is copied: everything but the images."""
        return {name: parts for name, parts in self.form.stack.items() if name != "image"}

    @property
    def dtypes(self) -> dict[str, Any]:
        """Types that are made while copying."""
        return self.form.dtypes

    def wanted(self, samples: Samples) -> Samples:
        """Return what the form wants. Raises ``RequestError`` for a modality that is no image of it."""
        for name in self.by:
            require_one("a modality that is scaled", name, self.form.images)
        return self.form.wanted(samples)

    def __call__(self, sample: Sample) -> Sample:
        """Return the sample in the form, its images scaled."""
        parts = [torch.from_numpy(self._of(name, sample[name].numpy())) for name in self.form.images]
        rest = {name: value for name, value in sample.items() if name not in self.form.images}
        return self.form({**rest, "image": torch.cat(parts, dim=-3)})

    def _of(self, name: str, values: Any) -> Any:
        return self.by[name](values) if name in self.by else values.astype(np.float32, copy=False)


def group_table(samples: Samples, legend: str) -> tuple[int, ...]:
    """Return the code of the wider class for every code of a legend, by position; 0 for codes the legend does not know.

    Wider classes are numbered from 1, as their names first appear. Raises ``RequestError`` for a legend without them.
    """
    codes, groups = samples.constant(f"{legend}_code").tolist(), samples.constant(f"{legend}_group").tolist()
    names = list(dict.fromkeys(name for name in groups if name))
    table = np.zeros(256, np.int64)
    for code, name in zip(codes, groups, strict=True):
        table[code] = names.index(name) + 1 if name else 0
    return tuple(table.tolist())


def class_shares(mask: Any, classes: int) -> Any:
    """Return (patch, class): which share of each mask (patch, y, x) is of each class 1 … ``classes``.

    The class of a scene is the one with the largest share; with several labels, those with a share of 0.1 or more.
    """
    counts = torch.zeros(len(mask), classes + 1, dtype=torch.float32)
    flat = mask.reshape(len(mask), -1)
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float32))
    return counts[:, 1:] / flat.shape[1]
