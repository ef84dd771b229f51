"""Patches as TorchGeo's datasets have them: one image, one mask, transforms, a plot. Needs the extra ``torch``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cube.errors import RequestError
from cube.train.samples import Samples

Sample = dict[str, Any]


class MaskedPatches(Dataset[Sample]):
    """Patches of a cube with the samples, arguments and methods of a non-geospatial dataset of TorchGeo.

    A sample is ``image`` (band, y, x) float32, bands of several modalities in the order in which they were asked for, and
    ``mask`` (y, x) int64, the first band of the classes. It works in a ``DataLoader``, with samplers and with kornia's
    augmentations. :class:`cube.torch.BatchLoader` with the form ``ImageAndMask`` gives the same in whole batches, several times
    faster.

    Parameters
    ----------
    root
        URL of the cube, where TorchGeo's datasets take a folder of files.
    split
        Official part of the data set; all patches where None.
    bands
        Names of bands, of all modalities but the classes; all where None. Those of one modality must not be called as those
        of another.
    transforms
        Is given each sample and returns another.
    checksum
        Whether each tile is held against its checksum. They always are, so this changes nothing.
    where, storage_options
        As in :class:`cube.train.samples.Samples`; ``classes`` names the modality of the mask.

    Raises ``RequestError`` for bands and parts that are not there, and as ``Samples`` does.
    """

    rgb_names = ("red", "green", "blue")

    def __init__(
        self,
        root: str,
        split: str | None = "train",
        bands: Sequence[str] | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
        checksum: bool = False,
        **options: Any,
    ) -> None:
        classes = options.pop("classes", None)
        chosen = [part for part in (f"split={split}" if split else "", options.pop("where", None) or "") if part]
        known = Samples(root, incomplete="keep", storage_options=options.get("storage_options"))
        images = _images(known, classes)
        self.bands = tuple(bands) if bands is not None else tuple(name for names in images.values() for name in names)
        self._wanted = _by_modality(self.bands, images)
        mask = next(name for name in known.modalities if name not in images)
        modalities = {
            **{name: [band for _, band in pairs] for name, pairs in self._wanted.items()},
            mask: known.bands(mask)[:1],
        }
        where = " and ".join(f"({part})" for part in chosen) or None
        self.samples = Samples(root, modalities=modalities, where=where, **options)
        self.split, self.transforms, self.checksum, self._mask = split, transforms, checksum, mask
        self.ids: list[str] = self.samples.ids.tolist()
        """The ids of the patches, in the order of the dataset."""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return many samples, read at once: what a ``DataLoader`` asks for."""
        batch = self.samples.read(list(indices))
        side = max(batch[name].shape[-1] for name in self._wanted)
        image = np.empty((len(indices), len(self.bands), side, side), np.float32)
        for name, pairs in self._wanted.items():
            image[:, [place for place, _ in pairs]] = batch[name]
        mask = batch[self._mask][:, 0].astype(np.int64)
        made = [{"image": torch.from_numpy(one), "mask": torch.from_numpy(two)} for one, two in zip(image, mask, strict=True)]
        return [self.transforms(sample) for sample in made] if self.transforms is not None else made

    def plot(self, sample: Sample, show_titles: bool = True, suptitle: str | None = None) -> Any:
        """Return a matplotlib figure of a sample: colours, mask and, where it has one, ``prediction``.

        Colours are stretched between the 2nd and the 98th percentile. Raises ``RequestError`` where red, green and blue are
        not among the bands. Needs matplotlib.
        """
        from matplotlib.figure import Figure

        colors = self._colors()
        image = sample["image"][colors].numpy()
        low, high = np.percentile(image, (2, 98), axis=(1, 2), keepdims=True)
        picture = np.clip((image - low) / np.maximum(high - low, 1e-6), 0, 1).transpose(1, 2, 0)
        shown = {"Image": picture, "Mask": sample["mask"].numpy()}
        if "prediction" in sample:
            shown["Prediction"] = sample["prediction"].numpy()
        figure = Figure((4 * len(shown), 4.4), layout="constrained")
        for axes, (title, values) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
            axes.imshow(values, interpolation="nearest")
            axes.axis("off")
            if show_titles:
                axes.set_title(title)
        if suptitle is not None:
            figure.suptitle(suptitle)
        return figure

    def _colors(self) -> list[int]:
        names = {band: common for name in self._wanted for band, common in self.samples.common_names(name).items()}
        place = {names.get(band, band): number for number, band in enumerate(self.bands)}
        if missing := [name for name in self.rgb_names if name not in place]:
            raise RequestError(f"a picture needs the bands red, green and blue: there is no {', '.join(missing)}")
        return [place[name] for name in self.rgb_names]


def _images(samples: Samples, classes: str | None) -> dict[str, list[str]]:
    """Return modality → bands of those that are no classes."""
    labelled = [classes] if classes is not None else [name for name in samples.modalities if samples.legends(name)]
    images = {name: samples.bands(name) for name in samples.modalities if name not in labelled}
    if len(labelled) != 1 or not images or labelled[0] not in samples.modalities:
        raise RequestError(f"{samples.url}: expected images and one modality of classes: name it, as classes=…")
    return images


def _by_modality(bands: Sequence[str], images: dict[str, list[str]]) -> dict[str, list[tuple[int, str]]]:
    """Return modality → (place in the image, band) of bands by their names alone."""
    wanted: dict[str, list[tuple[int, str]]] = {}
    for place, band in enumerate(bands):
        homes = [name for name, names in images.items() if band in names]
        if len(homes) != 1:
            known = ", ".join(name for names in images.values() for name in names)
            what = f"is a band of {' and '.join(homes)}" if homes else "is an invalid band name"
            raise RequestError(f"{band!r} {what}; known are {known}")
        wanted.setdefault(homes[0], []).append((place, band))
    return wanted
