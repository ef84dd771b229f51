"""The plan of a build: everything that will be done, batch by batch. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.format.arrays import ArraySpec
from cube.format.layout import FORMAT
from cube.format.tiles import TileLayout
from cube.recipes.recipe import Recipe
from cube.recipes.sections import Incomplete
from cube.source.expectations import Expectation
from cube.source.inventory import Inventory

WORKER_BASE_BYTES = 165 * 10**6
"""Resident memory of an idle Dask worker with this package loaded (measured, see docs/performance.md)."""
READ_AHEAD = 8
"""Patches whose files are asked for together."""
_TABLE_BYTES_PER_TILE = 420
"""Memory of one distinct tile's entry in the table of seen tiles (measured)."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every batch of a build has in common. Small and picklable."""

    layouts: Mapping[str, TileLayout]
    """Modality → layout, in the order of the cube."""
    expectations: Mapping[str, Expectation]
    """Modality → what its files must be."""
    incomplete: Incomplete
    header_bytes: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Whole shards of every modality for a run of patches. One task owns it."""

    index: int
    """Position of the shards along ``patch``."""
    start: int
    stop: int
    """First and one past the last patch."""
    digest: str
    """Hash of all that decides the bytes: files, sizes, layouts, software."""
    patch: tuple[str, ...]
    path: tuple[tuple[str, ...], ...]
    """Per patch and file, relative to the source; empty where there is no file."""
    sizes: tuple[tuple[int, ...], ...]
    stamps: tuple[tuple[str, ...], ...]
    """Per patch and file, as the source was listed."""
    stamp: str = ""
    """What changes when one of the files is written anew."""
    kept: int = 0
    """Patches that the shards hold already, of the cube that grows: these follow them."""
    headers: int = 0
    """Chunks of headers that are stored of those."""

    @property
    def files(self) -> Iterator[str]:
        """Paths of all files there are."""
        return (path for paths in self.path for path in paths if path)

    def head(self, length: int) -> Batch:
        """Return the first patches of the batch, to sample them."""
        return replace(
            self,
            stop=min(self.stop, self.start + length),
            patch=self.patch[:length],
            path=self.path[:length],
            sizes=self.sizes[:length],
            stamps=self.stamps[:length],
        )


@dataclass(frozen=True, kw_only=True)
class Base:
    """The cube that a plan adds patches to."""

    patches: int
    """All that it holds; new ones come after them."""
    root: str
    """Digest of its root document."""
    headers: int
    """Chunks of headers that are stored of the batch that is cut short; 0 where none is."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a build will do."""

    recipe: Recipe
    inventory: Inventory
    """The patches to write, in order, and the rejected files."""
    job: Job
    arrays: tuple[ArraySpec, ...]
    software: Mapping[str, str]
    """Versions that decide the stored bytes."""
    batch_digests: tuple[str, ...]
    digest: str
    """Equal inputs, equal digest."""
    base: Base | None = None
    """The cube that it adds to; None for a new one."""
    supersedes: NDArray[Any] = field(default_factory=lambda: np.empty(0, np.intp))
    """(patch): the row of the cube whose place it takes; -1 where it takes none."""
    known: int = 0
    """Patches of the source that this cube has already."""
    others: tuple[str, ...] = ()
    """Ids of those whose files have other sizes here."""

    @property
    def patches(self) -> int:
        """Number of patches to write."""
        return len(self.inventory)

    @property
    def before(self) -> int:
        """Number of patches that are there before."""
        return self.base.patches if self.base is not None else 0

    @property
    def slots(self) -> int:
        """Patches of a batch."""
        return self.recipe.layout.shard

    @property
    def indexes(self) -> range:
        """Positions of the batches along ``patch``; a batch that is cut short is gone on with."""
        first = self.before // self.slots
        return range(first, first + self.tasks)

    @property
    def tasks(self) -> int:
        """Number of batches."""
        return len(self.batch_digests)

    @cached_property
    def objects(self) -> int:
        """Objects in the finished ``.zarr``: shards, chunks and metadata documents."""
        groups = 1 + len({spec.path.partition("/")[0] for spec in self.arrays if "/" in spec.path})
        return sum(math.prod(spec.grid) for spec in self.arrays) + len(self.arrays) + groups

    @property
    def shards(self) -> int:
        """Number of shard objects."""
        return self.tasks * len(self.job.layouts)

    @property
    def raw_bytes(self) -> int:
        """Decoded bytes of all pixels."""
        return sum(self.raw_by_modality().values())

    def typical_bytes(self) -> dict[str, int]:
        """Stored bytes by modality, by the recipe's typical ratios; no file has been read for it."""
        ratios = {name: modality.typical_ratio for name, modality in self.recipe.modalities.items()}
        return {name: round(size / ratios[name]) for name, size in self.raw_by_modality().items()}

    def raw_by_modality(self) -> dict[str, int]:
        """Decoded bytes by modality."""
        files = self.inventory.has.sum(axis=0).tolist()
        layouts = self.job.layouts.items()
        return {name: layout.patch_bytes * count for (name, layout), count in zip(layouts, files, strict=True)}

    def peak_bytes(self, *, spool: int, base: int = 0) -> int:
        """Memory one worker needs at most, with ``spool`` bytes of each unfinished object held in memory.

        ``base`` is the resident memory of an idle worker, if it has been measured.
        """
        return (base or WORKER_BASE_BYTES) + batch_bytes(self.job, spool=spool)

    def batch_digest(self, index: int) -> str:
        """Return the digest of one batch."""
        return self.batch_digests[index - self.indexes.start]

    def cut_short(self, index: int) -> bool:
        """Tell whether a batch goes on with shards of the cube that grows."""
        return index * self.slots < self.before

    def batch(self, index: int) -> Batch:
        """Return one batch."""
        rows = self._rows(index)
        start = self.before + rows.start
        kept = start - index * self.slots
        return Batch(
            index=index,
            start=start,
            stop=self.before + rows.stop,
            digest=self.batch_digest(index),
            patch=tuple(self.inventory.patch[rows]),
            path=tuple(map(tuple, self.inventory.path[rows])),
            sizes=tuple(map(tuple, self.inventory.size[rows].tolist())),
            stamps=tuple(map(tuple, self.inventory.stamp[rows])),
            stamp=self.stamp(index),
            kept=kept,
            headers=self.base.headers if self.base is not None and kept else 0,
        )

    def stamp(self, index: int) -> str:
        """Return what changes when a file of a batch is written anew; it decides no byte of the cube."""
        stamps = self.inventory.stamp[self._rows(index)]
        return blake2b("\n".join(stamps.ravel()).encode(), digest_size=16).hexdigest()

    def _rows(self, index: int) -> slice:
        """Return which patches of the inventory a batch writes."""
        return slice(max(0, index * self.slots - self.before), min((index + 1) * self.slots - self.before, self.patches))

    def document(self) -> dict[str, Any]:
        """Return the plan as plain data, as it is kept beside the cube."""
        return {
            "format": FORMAT,
            "digest": self.digest,
            "recipe": self.recipe.model_dump(mode="json"),
            "source": self.inventory.source,
            "incomplete": self.job.incomplete,
            "software": dict(self.software),
            "patches": self.patches,
            **({"grows": {"patches": self.base.patches, "root": self.base.root}} if self.base is not None else {}),
            "tasks": self.tasks,
            "shards": self.shards,
            "objects": self.objects,
            "bytes_in": self.inventory.total_bytes,
            "raw_bytes": self.raw_bytes,
            "batches": list(self.batch_digests),
            "copies": self.inventory.copies,
            "rejected": [[item.path, item.reason, item.detail] for item in self.inventory.rejected],
            "arrays": [{"path": spec.path, **spec.document()} for spec in self.arrays],
        }


def batch_bytes(job: Job, *, spool: int) -> int:
    """Memory one batch needs on top of the worker itself; headers longer than a chunk come on top, up to 64 kB a file."""
    layouts_of, layouts = job.layouts, job.layouts.values()
    first = next(iter(layouts))
    ahead = READ_AHEAD if spool else 1  # an object store is asked for several patches at once
    files = ahead * sum(layout.patch_bytes + job.header_bytes for layout in layouts)
    buffers = sum(layout.patch_bytes + 2 * layout.tile_bytes for layout in layouts)
    buffers += sum(layouts_of[name].patch_bytes for name, expected in job.expectations.items() if expected.files > 1)
    tables = len(job.layouts) * first.slots * first.across**2 * _TABLE_BYTES_PER_TILE
    headers = 2 * first.slots * len(job.layouts) * job.header_bytes
    return files + buffers + tables + headers + spool * len(job.layouts)
