"""What a source holds: one row per patch, in the order of the cube, and the files that are no part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cube.source.files import Source, open_source
from cube.source.rejected import Rejected
from cube.source.stacks import joined


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Patches sorted by (season, scene, patch number); columns of equal length."""

    source: str
    modalities: tuple[str, ...]
    seasons: tuple[str, ...]
    """Season names; ``season`` holds positions in it."""
    patch: NDArray[Any]
    """Unique ids (objects of ``str``)."""
    season: NDArray[np.int8]
    scene: NDArray[np.int32]
    number: NDArray[np.int32]
    """Patch number, as the file names say it."""
    path: NDArray[Any]
    """(patch, file) paths relative to the source; empty where the file is missing."""
    size: NDArray[np.int64]
    """(patch, file) bytes; -1 where the file is missing."""
    stamp: NDArray[Any]
    """(patch, file) what changes when a file is written anew; decides no byte of a cube."""
    bands: tuple[tuple[str, str], ...] = ()
    """(file): modality, and band where each is a file of its own; one file of each modality where empty."""
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Label of the recipe → (patch) its values; dates are days since 1970."""
    found: Mapping[str, tuple[int, int]]
    """Season → scenes and patches in the whole source, whatever was chosen of them."""
    rejected: tuple[Rejected, ...] = ()
    ignored: int = 0
    """Files the recipe names as not being data."""
    copies: int = 0
    """Files that are the same to the byte as the one that is used in their place."""
    files: Source | None = field(default=None, repr=False, compare=False)
    """What reads the files, once they were listed; part of no document, for its options may hold secrets."""

    def __len__(self) -> int:
        return len(self.patch)

    @property
    def opened(self) -> Source:
        """What reads the files."""
        return open_source(self.source) if self.files is None else self.files

    @property
    def columns(self) -> tuple[str, ...]:
        """(file): what it holds, such as ``s2``, or ``s2 B04``."""
        return tuple(f"{name} {band}".rstrip() for name, band in self.bands) or self.modalities

    @property
    def spans(self) -> list[slice]:
        """(modality): its files."""
        if not self.bands:
            return [slice(place, place + 1) for place in range(len(self.modalities))]
        counts = Counter(name for name, _ in self.bands)
        ends = np.cumsum([counts[name] for name in self.modalities]).tolist()
        return [slice(end - counts[name], end) for name, end in zip(self.modalities, ends, strict=True)]

    @property
    def has(self) -> NDArray[np.bool_]:
        """(patch, modality): whether there are all files of the image."""
        return np.stack([(self.size[:, span] >= 0).all(axis=1) for span in self.spans], axis=1)

    @cached_property
    def images(self) -> NDArray[Any]:
        """(patch, modality): paths of the images; those of one file per band as :mod:`cube.source.stacks` joins them."""
        if not self.bands:
            return self.path
        found, spans = np.full((len(self), len(self.modalities)), "", object), self.spans
        for row, place in np.argwhere(self.has).tolist():
            found[row, place] = joined(self.path[row, spans[place]].tolist())
        return found

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Patches that have a file of every modality."""
        return np.asarray((self.size >= 0).all(axis=1))

    @property
    def total_bytes(self) -> int:
        """Bytes of all files together."""
        return int(self.size[self.size >= 0].sum())

    def take(self, rows: NDArray[Any]) -> Inventory:
        """Return the inventory of some rows, named by position or by a mask."""
        columns = ("patch", "season", "scene", "number", "path", "size", "stamp")
        labels = {name: values[rows] for name, values in self.labels.items()}
        return replace(self, labels=labels, **{name: getattr(self, name)[rows] for name in columns})

    def reject(self, more: list[Rejected]) -> Inventory:
        """Return the inventory with more rejections."""
        return replace(self, rejected=tuple(sorted({*self.rejected, *more}, key=lambda item: (item.path, item.reason))))

    def without_files(self, bad: Mapping[tuple[int, int], Rejected]) -> Inventory:
        """Return the inventory without some files, each given as (row, file) and its rejection.

        Other bands of an image go with it.
        """
        path, size, stamp = self.path.copy(), self.size.copy(), self.stamp.copy()
        spans = self.spans
        for row, column in bad:
            span = next(span for span in spans if span.start <= column < span.stop)
            path[row, span], size[row, span], stamp[row, span] = "", -1, ""
        return replace(self, path=path, size=size, stamp=stamp).reject(list(bad.values()))

    def parquet(self) -> bytes:
        """Return one row per patch as a Parquet file: id, season, scene, number, and path and bytes of each file."""
        columns: dict[str, Any] = {
            "patch": self.patch.tolist(),
            "season": [self.seasons[place] for place in self.season],
            "scene": self.scene,
            "number": self.number,
        }
        columns |= {name: values.tolist() for name, values in self.labels.items()}
        for place, name in enumerate(name.replace(" ", "_") for name in self.columns):
            columns[f"{name}_path"] = self.path[:, place].tolist()
            columns[f"{name}_bytes"] = self.size[:, place]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink, compression="zstd")
        return bytes(sink.getvalue())

    def reasons(self) -> dict[str, int]:
        """Count the rejections by reason."""
        return dict(sorted(Counter(item.reason for item in self.rejected).items()))

    def scene_keys(self) -> list[tuple[str, int]]:
        """Return every (season, scene), in order."""
        pairs = np.unique(np.stack([self.season.astype(np.int64), self.scene.astype(np.int64)], axis=1), axis=0)
        return [(self.seasons[season], int(scene)) for season, scene in pairs]
