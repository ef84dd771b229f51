"""Recipe and inventory → everything that will be done, decided before anything is done. Pure: no I/O library at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.convert.plan import WORKER_BASE_BYTES, Base, Job, Plan, batch_bytes
from cube.errors import IncompleteError, RequestError
from cube.format.arrays import ArraySpec
from cube.format.layout import FORMAT, all_arrays, tile_layouts
from cube.recipes.recipe import Recipe
from cube.recipes.sections import Incomplete
from cube.source.expectations import expectations
from cube.source.inventory import Inventory
from cube.source.rejected import Rejected

_NONE = np.empty(0, np.intp)
_SHOWN = 5
"""Patches named in a message."""


def make_plan(
    recipe: Recipe, inventory: Inventory, *, incomplete: Incomplete, software: Mapping[str, str], spool: int = 0
) -> Plan:
    """Decide everything for a new cube. ``spool`` is how much of each unfinished object a worker may hold in memory.

    Raises ``IncompleteError`` if patches lack files and the policy is ``fail``, or if none is left to convert;
    ``RequestError`` if a worker would need more memory than the recipe allows, an id is not unique, or an id or path too long.
    """
    inventory = apply_policy(inventory, incomplete)
    if not len(inventory):
        shown = "; ".join(f"{item.path}: {item.reason}: {item.detail}" for item in inventory.rejected[:_SHOWN])
        raise IncompleteError(f"no patch of {inventory.source} is left to convert: {shown}")
    return plan_of(recipe, inventory, all_arrays(recipe, len(inventory)), job_of(recipe, incomplete), software, spool=spool)


def plan_of(  # noqa: PLR0913 (the parts of a plan)
    recipe: Recipe,
    inventory: Inventory,
    arrays: Iterable[ArraySpec],
    job: Job,
    software: Mapping[str, str],
    *,
    spool: int = 0,
    base: Base | None = None,
    supersedes: NDArray[Any] = _NONE,
) -> Plan:
    """Return the plan to write all patches of an inventory. Raises ``RequestError`` as ``make_plan`` does."""
    if len(inventory):
        _check_rooms(recipe, inventory)
    _check_memory(recipe, job, spool)
    digests = _batch_digests(recipe, inventory, job, software, base)
    whole = blake2b(digest_size=16)
    for part in (FORMAT, recipe.digest, job.incomplete, *((base.root,) if base is not None else ()), *digests):
        whole.update(part.encode())
    for name, values in inventory.labels.items():
        whole.update(f"{name} {values.tolist()}".encode())
    if (supersedes >= 0).any():
        whole.update(repr(supersedes.tolist()).encode())
    return Plan(
        recipe=recipe,
        inventory=inventory,
        job=job,
        arrays=tuple(arrays),
        software=software,
        batch_digests=digests,
        digest=whole.hexdigest(),
        base=base,
        supersedes=supersedes,
    )


def job_of(recipe: Recipe, incomplete: Incomplete) -> Job:
    """Return what all batches of a build by a recipe have in common."""
    return Job(
        layouts=tile_layouts(recipe),
        expectations=expectations(recipe),
        incomplete=incomplete,
        header_bytes=recipe.layout.header_bytes,
    )


def apply_policy(inventory: Inventory, incomplete: Incomplete) -> Inventory:
    """Return the patches to convert; raises ``IncompleteError`` as ``make_plan`` does."""
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


def _batch_digests(
    recipe: Recipe, inventory: Inventory, job: Job, software: Mapping[str, str], base: Base | None
) -> tuple[str, ...]:
    common = repr((FORMAT, job, sorted(software.items()))).encode() + (repr(base).encode() if base is not None else b"")
    slots, before, digests = recipe.layout.shard, base.patches if base is not None else 0, []
    start = 0
    while start < len(inventory):
        stop = start + slots - (before + start) % slots
        rows = slice(start, stop)
        content = (inventory.patch[rows].tolist(), inventory.path[rows].tolist(), inventory.size[rows].tolist())
        digests.append(blake2b(common + repr((before + start, content)).encode(), digest_size=16).hexdigest())
        start = stop
    return tuple(digests)
