"""Recipe and inventory → everything that will be done, decided before anything is done. Pure: no I/O library at all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np

from cube.errors import IncompleteError, RequestError
from cube.format.arrays import ArraySpec
from cube.format.layout import FORMAT, all_arrays, tile_layouts
from cube.format.tiles import TileLayout
from cube.recipes.recipe import Recipe
from cube.recipes.sections import Incomplete
from cube.source.expectations import Expectation, expectations
from cube.source.inventory import Inventory
from cube.source.rejected import Rejected

WORKER_BASE_BYTES = 165 * 10**6
"""Resident memory of an idle Dask worker with this package loaded (measured, see docs/performance.md)."""
READ_AHEAD = 8
"""Patches whose files are asked for together."""
_TABLE_BYTES_PER_TILE = 420
"""Memory of one distinct tile's entry in the table of seen tiles (measured)."""
_SHOWN = 5
"""Patches named in a message."""


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
class Plan:
    """Everything a build will do."""

    recipe: Recipe
    inventory: Inventory
    """The patches of the cube, in order, and the rejected files."""
    job: Job
    arrays: tuple[ArraySpec, ...]
    software: Mapping[str, str]
    """Versions that decide the stored bytes."""
    batch_digests: tuple[str, ...]
    digest: str
    """Equal inputs, equal digest."""

    @property
    def patches(self) -> int:
        """Number of patches."""
        return len(self.inventory)

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

    def batch(self, index: int) -> Batch:
        """Return one batch."""
        start = index * self.recipe.layout.shard
        stop = min(start + self.recipe.layout.shard, self.patches)
        return Batch(
            index=index,
            start=start,
            stop=stop,
            digest=self.batch_digests[index],
            patch=tuple(self.inventory.patch[start:stop]),
            path=tuple(map(tuple, self.inventory.path[start:stop])),
            sizes=tuple(map(tuple, self.inventory.size[start:stop].tolist())),
            stamps=tuple(map(tuple, self.inventory.stamp[start:stop])),
            stamp=self.stamp(index),
        )

    def stamp(self, index: int) -> str:
        """Return what changes when a file of a batch is written anew; it decides no byte of the cube."""
        start = index * self.recipe.layout.shard
        stamps = self.inventory.stamp[start : start + self.recipe.layout.shard]
        return blake2b("\n".join(stamps.ravel()).encode(), digest_size=16).hexdigest()

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


def make_plan(
    recipe: Recipe, inventory: Inventory, *, incomplete: Incomplete, software: Mapping[str, str], spool: int = 0
) -> Plan:
    """Decide everything. ``spool`` is how much of each unfinished object a worker may hold in memory.

    Raises ``IncompleteError`` if patches lack files and the policy is ``fail``, or if none is left to convert;
    ``RequestError`` if a worker would need more memory than the recipe allows, an id is not unique, or an id or path too long.
    """
    inventory = _apply_policy(inventory, incomplete)
    if not len(inventory):
        shown = "; ".join(f"{item.path}: {item.reason}: {item.detail}" for item in inventory.rejected[:_SHOWN])
        raise IncompleteError(f"no patch of {inventory.source} is left to convert: {shown}")
    _check_rooms(recipe, inventory)
    job = _job(recipe, incomplete)
    _check_memory(recipe, job, spool)
    arrays = tuple(all_arrays(recipe, len(inventory)))
    digests = _batch_digests(recipe, inventory, job, software)
    whole = blake2b(digest_size=16)
    for part in (FORMAT, recipe.digest, incomplete, *digests):
        whole.update(part.encode())
    for name, values in inventory.labels.items():
        whole.update(f"{name} {values.tolist()}".encode())
    return Plan(
        recipe=recipe,
        inventory=inventory,
        job=job,
        arrays=arrays,
        software=software,
        batch_digests=digests,
        digest=whole.hexdigest(),
    )


def _job(recipe: Recipe, incomplete: Incomplete) -> Job:
    return Job(
        layouts=tile_layouts(recipe),
        expectations=expectations(recipe),
        incomplete=incomplete,
        header_bytes=recipe.layout.header_bytes,
    )


def _apply_policy(inventory: Inventory, incomplete: Incomplete) -> Inventory:
    complete = inventory.complete
    if incomplete == "keep":
        return inventory.take(np.flatnonzero((inventory.size >= 0).any(axis=1)))
    if complete.all():
        return inventory
    missing = []
    for row in range(len(inventory)):
        if not complete[row]:
            lacks = [name for name, size in zip(inventory.columns, inventory.size[row], strict=True) if size < 0]
            missing.append(Rejected(str(inventory.patch[row]), "incomplete", f"lacks {', '.join(lacks)}"))
    if incomplete == "fail":
        shown = "; ".join(f"{item.path} {item.detail}" for item in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
        raise IncompleteError(
            f"{len(missing):,} of {len(inventory):,} patches are incomplete: {shown}{more}. "
            "Give the missing files, or choose --incomplete reject (leave these patches out) or keep (mark the gaps)"
        )
    return inventory.take(complete).reject(missing)


def _check_rooms(recipe: Recipe, inventory: Inventory) -> None:
    longest = max(inventory.patch, key=len)
    if len(longest) > recipe.patch.id_length:
        raise RequestError(
            f"the id {longest!r} has {len(longest)} characters, the recipe has room for {recipe.patch.id_length}: "
            "raise patch.id_length"
        )
    if len(set(inventory.patch)) != len(inventory):
        twice = Counter(inventory.patch).most_common(1)[0][0]
        raise RequestError(f"the id {twice!r} is that of several patches: patch.id needs more of the pattern's groups")
    path = max(inventory.images.ravel(), key=lambda item: len(item.encode()))
    if len(path.encode()) > recipe.layout.path_bytes:
        raise RequestError(
            f"the path {path!r} has {len(path.encode())} bytes, the recipe has room for {recipe.layout.path_bytes}: "
            "raise layout.path_bytes, or give a source nearer to the files"
        )


def _check_memory(recipe: Recipe, job: Job, spool: int) -> None:
    limit = recipe.layout.memory_limit_mb * 10**6
    need = WORKER_BASE_BYTES + batch_bytes(job, spool=spool)
    if need > limit:
        raise RequestError(
            f"a worker would need {need / 1e6:.0f} MB, the recipe allows {limit / 1e6:.0f} MB: "
            "lower layout.shard or raise layout.memory_limit_mb"
        )


def _batch_digests(recipe: Recipe, inventory: Inventory, job: Job, software: Mapping[str, str]) -> tuple[str, ...]:
    common = repr((FORMAT, job, sorted(software.items()))).encode()
    digests = []
    for start in range(0, len(inventory), recipe.layout.shard):
        rows = slice(start, start + recipe.layout.shard)
        content = (inventory.patch[rows].tolist(), inventory.path[rows].tolist(), inventory.size[rows].tolist())
        digests.append(blake2b(common + repr((start, content)).encode(), digest_size=16).hexdigest())
    return tuple(digests)
