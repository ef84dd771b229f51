"""What a source holds: one row per patch, in the order of the cube, and the files that are no part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cube.source.files import Source, open_source
from cube.source.rejected import Rejected


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
    """(patch, modality) paths relative to the source; empty where the file is missing."""
    size: NDArray[np.int64]
    """(patch, modality) bytes; -1 where the file is missing."""
    stamp: NDArray[Any]
    """(patch, modality) what changes when a file is written anew; decides no byte of a cube."""
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
        """Return the inventory without some files, each given as (row, modality) and its rejection."""
        path, size, stamp = self.path.copy(), self.size.copy(), self.stamp.copy()
        for place in bad:
            path[place], size[place], stamp[place] = "", -1, ""
        return replace(self, path=path, size=size, stamp=stamp).reject(list(bad.values()))

    def parquet(self) -> bytes:
        """Return one row per patch as a Parquet file: id, season, scene, number, and path and bytes by modality."""
        columns: dict[str, Any] = {
            "patch": self.patch.tolist(),
            "season": [self.seasons[place] for place in self.season],
            "scene": self.scene,
            "number": self.number,
        }
        columns |= {name: values.tolist() for name, values in self.labels.items()}
        for place, name in enumerate(self.modalities):
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
