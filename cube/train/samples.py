"""Random access to the patches of a cube as plain NumPy arrays, whole batches at once. No torch, no xarray, no Dask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cube.errors import RequestError
from cube.query.choose import Box, select_patches
from cube.read.disk_cache import LIMIT
from cube.read.labels import is_several, label_classes, label_values
from cube.read.opened import OpenedCube, open_certified
from cube.read.pixels import PixelReader
from cube.read.ranges import Window
from cube.train.states import require_known, require_one, require_positions, require_whole

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which patches of a cube, and what of them."""

    modalities: Sequence[str] | Mapping[str, Sequence[str] | None] | None = None
    """Names, or names and the bands wanted of each (None: all); all modalities by default."""
    where: str | None = None
    """Filter over the labels of patches, such as ``season=summer and split=train``."""
    bbox: Box | None = None
    """West, south, east, north in degrees; patches whose footprint meets it."""
    ids: Sequence[str] | None = None
    """Ids of patches, such as those of one part of a split; all by default. They come in the order in which they are stored."""
    labels: Sequence[str] = ()
    """Labels that come with each batch, as numbers: see :meth:`Samples.target`."""
    incomplete: Literal["refuse", "leave out", "keep"] = "refuse"
    """What becomes of patches that lack a wanted modality. Kept ones hold the fill value there; ``present`` tells."""


_DERIVED = ("readers", "ids", "present", "runs")
"""What is read again where it is needed."""
CHOICES = tuple(item.name for item in fields(Choice))
"""Options by which patches are chosen."""
OPENING = ("storage_options", "expect", "version", "cache", "cache_limit")
"""Options by which a cube is opened."""


class Samples:
    """The patches of a cube, numbered from 0 in the order they are stored.

    ``samples[i]`` is one patch, ``samples.read([…])`` a batch: a dictionary from modality to (patch, band, y, x) in stored
    units and type, and from ``patch`` to the ids. Small to pickle; the store is opened where pixels are read.

    Options are those of :class:`Choice`; ``expect`` is the digest that was noted of the cube, and ``CorruptError`` is raised
    for any other; ``version`` takes a cube that has grown as it was. ``cache`` is a folder in which stored tiles of a cube in
    an object store are kept, so that a second epoch asks for none; it takes ``cache_limit`` bytes at most, what was used least
    recently leaves first, and several processes may share it. Raises ``RequestError`` for an unknown modality, band or
    filter, for an empty choice and for incomplete patches unless ``incomplete`` says what becomes of them;
    ``FileNotFoundError`` if nothing is there.
    """

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, Any] | None = None,
        expect: str | None = None,
        version: int | None = None,
        cache: str | Path | None = None,
        cache_limit: int = LIMIT,
        **choice: Any,
    ) -> None:
        require_known("Samples", choice, (*CHOICES, *OPENING))
        self.url, self.storage_options, self.choice = url, dict(storage_options or {}), Choice(**choice)
        require_one("incomplete", self.choice.incomplete, ("refuse", "leave out", "keep"))
        self._source, self._targets = open_certified(url, self.storage_options, expect, version), dict[str, Array]()
        self.labels = (self.choice.labels,) if isinstance(self.choice.labels, str) else tuple(self.choice.labels)
        """Labels that come with each batch."""
        self.modalities = _bands(self._source, self.choice.modalities)
        """Modality → positions of the wanted bands."""
        require_whole("cache_limit", cache_limit, 1)
        self.disk = self._source.disk_cache(cache, cache_limit) if cache is not None else None
        """Where stored tiles are kept that were fetched from far."""
        self.rows = self._chosen()
        """Positions of the patches in the cube."""
        for name in self.labels:
            self.target(name)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one patch: (band, y, x) per modality, and its id."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return {name: values[0] for name, values in self.read([index]).items()}

    def read(self, indices: ArrayLike) -> dict[str, Array]:
        """Return a batch: (patch, band, y, x) per modality and the ids, in the order of ``indices``."""
        indices = require_positions("what to read", indices)
        rows = self.rows[indices]
        batch = {name: self.readers[name].read(rows, Window(bands=bands)) for name, bands in self.modalities.items()}
        return {**batch, **self.about(indices)}

    def about(self, indices: NDArray[np.int64]) -> dict[str, Array]:
        """Return the ids of patches and, where gaps are kept, ``present`` (patch, modality): what is no gap."""
        known = {"patch": self.ids[indices], **{name: self.target(name)[indices] for name in self.labels}}
        return known | {"present": self.present[indices]} if self.choice.incomplete == "keep" else known

    @cached_property
    def readers(self) -> dict[str, PixelReader]:
        """Modality → what reads it."""
        return {name: self._source.reader(name, disk=self.disk) for name in self.modalities}

    @cached_property
    def ids(self) -> Array:
        """The ids of the patches."""
        return self.label("patch")

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """(patch, modality): which of the wanted modalities there are."""
        return self._present(self.rows)

    @cached_property
    def runs(self) -> NDArray[np.int64]:
        """(patch): the shard each patch lies in."""
        return self.rows // min(reader.layout.slots for reader in self.readers.values())

    @property
    def size(self) -> int:
        """Side of a patch in pixels, of the modality that has the most."""
        return self._source.size

    @property
    def known_labels(self) -> list[str]:
        """Names of the labels of patches."""
        return self._source.labels

    def label(self, name: str) -> Array:
        """Return a label of the patches, such as ``scene``. Raises ``RequestError`` if there is none of that name."""
        if name not in self._source.labels:
            raise RequestError(f"{self.url} has no label {name!r}; it has {', '.join(self._source.labels)}")
        return self._source.value(name)[self.rows]

    def target(self, name: str) -> Array:
        """Return a label of the patches (patch) as numbers.

        Texts and classes become int64 codes, positions in :meth:`classes`, -1 where there is none. Labels of several classes,
        such as ``labels10``, become float32 of 0 and 1 (patch, class). Numbers stay as they are; dates are days since 2000.
        ``label10`` and its like are labels by the shares of land cover (:mod:`cube.tasks.labelling`) and stand in the catalog
        beside the cube.

        Raises ``RequestError`` if there is no such label, or it holds several values per patch.
        """
        if name not in self._targets:
            self._targets[name] = self._target(name)
        return self._targets[name]

    def classes(self, name: str) -> list[str]:
        """Return the classes of a label, in the order of its codes.

        Those of ``label10`` are in the order of the legend, those of other texts sorted, of all patches of the cube.
        """
        return label_classes(self._source, name)

    def fractions(self, legend: str = "") -> NDArray[np.float32]:
        """Return the shares (patch, class) of the classes of a legend, the first of the catalog's where none is named.

        NaN where there is no land cover. They stand in the catalog beside the cube: no pixel is read. Raises ``RequestError``
        for a cube without a catalog, or a legend that it has not.
        """
        return np.asarray(self._source.fractions(legend)[self.rows])

    def statistics(self, modality: str) -> dict[str, Array]:
        """Return ``mean``, ``stddev``, ``minimum``, ``maximum`` and ``count`` (band) of the bands that are read of a modality.

        They are those of all patches of the cube, in stored units, counted while it was verified: each piece of ground counts
        once, NaN do not, and no pixel is read now. ``standardized(s1, stats["mean"], stats["stddev"])`` takes them.
        Raises ``RequestError`` for a cube without a catalog, an unknown modality, and one whose bands are classes.
        """
        if modality not in self.modalities:
            raise RequestError(f"there is no modality {modality!r} in these samples; they have {', '.join(self.modalities)}")
        if self.legends(modality):
            raise RequestError(f"bands of {modality} are classes, which have no mean: see Samples.fractions")
        found = self._source.statistics(modality)
        return {name: values[self.modalities[modality]] for name, values in found.items()}

    def forget(self) -> None:
        """Forget what was derived from the choice of modalities."""
        for name in _DERIVED:
            self.__dict__.pop(name, None)

    def _target(self, name: str) -> Array:
        values = label_values(self._source, name)[self.rows]
        if values.ndim != 1:
            raise RequestError(f"{name} holds several values per patch: expected a label that holds one")
        if values.dtype.kind not in "UO":
            return values
        classes = self.classes(name)
        if is_several(self._source, name):
            rows = [[known in text.split("; ") for known in classes] for text in values.tolist()]
            return np.array(rows, np.float32).reshape(len(values), len(classes))
        code = {text: place for place, text in enumerate(classes)}
        return np.array([code.get(text, -1) for text in values.tolist()], np.int64)

    def constant(self, name: str) -> Array:
        """Return what does not vary by patch, such as ``IGBP_code``. Raises ``RequestError`` if there is none of that name."""
        if name not in self._source.specs:
            raise RequestError(f"{self.url} has no array {name!r}")
        return self._source.value(name)

    def bands(self, modality: str) -> list[str]:
        """Return the names of the bands that are read of a modality, in order."""
        return [str(band) for band in np.array(self._source.modalities[modality])[self.modalities[modality]]]

    def common_names(self, modality: str) -> dict[str, str]:
        """Return band → common name in STAC's ``eo`` extension, such as ``red``, of the bands of a modality that have one."""
        name = f"{modality}_common_name"
        known = (
            self._source.value(name).tolist() if name in self._source.specs else [""] * len(self._source.modalities[modality])
        )
        return {band: common for band, common in zip(self._source.modalities[modality], known, strict=True) if common}

    def legends(self, modality: str) -> dict[str, str]:
        """Return band → legend of the bands of a modality that hold classes."""
        found = self._source.specs[modality].attributes.get("band_legends", {})
        return {band: array.removesuffix("_code") for band, array in found.items()}

    def _chosen(self) -> NDArray[np.int64]:
        known, choice = self._source, self.choice
        rows = select_patches(
            known.value,
            known.labels,
            choice.where,
            choice.bbox,
            size=known.size,
            shares=known.shares,
            shown=known.shown,
            seasons=known.seasons,
            among=known.visible,
        )
        rows = rows if choice.ids is None else self._of_ids(rows, choice.ids)
        complete = self._present(rows).all(axis=1)
        if not complete.all() and self.choice.incomplete == "refuse":
            raise RequestError(
                f"{(~complete).sum():,} of {len(rows):,} chosen patches lack one of {', '.join(self.modalities)}: "
                "say incomplete='leave out' or 'keep'"
            )
        rows = rows[complete] if self.choice.incomplete == "leave out" else rows
        if not len(rows):
            raise RequestError(f"{self.url} has no such patches: where={self.choice.where!r}, bbox={self.choice.bbox}")
        return rows

    def _of_ids(self, rows: NDArray[np.int64], ids: Sequence[str]) -> NDArray[np.int64]:
        wanted = np.array([ids] if isinstance(ids, str) else list(ids), str)
        if unknown := wanted[~np.isin(wanted, self._source.value("patch"))].tolist():
            raise RequestError(
                f"{self.url} has no patch {unknown[0]!r}{f' and {len(unknown) - 1:,} more' if unknown[1:] else ''}"
            )
        return rows[np.isin(self._source.value("patch")[rows], wanted)]

    def _present(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        places = [list(self._source.modalities).index(name) for name in self.modalities]
        present: NDArray[np.bool_] = self._source.value("present")[rows][:, places].astype(bool)
        return present

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _DERIVED}


def _bands(source: OpenedCube, wanted: Any) -> dict[str, NDArray[np.int64] | slice]:
    known = source.modalities
    names: Iterable[str] = known if wanted is None else [wanted] if isinstance(wanted, str) else wanted
    chosen: dict[str, NDArray[np.int64] | slice] = {}
    if not isinstance(names, Iterable) or not (names := list(names)):
        raise RequestError(f"modalities is {wanted!r}: expected some of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise RequestError(f"{source.url} has no modality {name!r}; it has {', '.join(known)}")
        bands = wanted.get(name) if isinstance(wanted, Mapping) else None
        if isinstance(bands, str) or (bands is not None and not len(bands)):
            raise RequestError(f"bands of {name} are {bands!r}: expected a list of some of {', '.join(known[name])}")
        if bands is None:
            chosen[name] = slice(None)
        elif unknown := [band for band in bands if band not in known[name]]:
            raise RequestError(f"{name} has no bands {unknown}; it has {', '.join(known[name])}")
        else:
            chosen[name] = np.array([known[name].index(band) for band in bands], np.int64)
    return chosen
