"""Which patches of a source are others than those a cube has: their files are read and their pixels hashed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cube.convert.deciding import job_of
from cube.convert.plan import Batch
from cube.convert.standing import Standing
from cube.convert.worker import read_patches
from cube.format.tiles import pixels_digest_of
from cube.recipes.recipe import Recipe
from cube.source.inventory import Inventory
from cube.source.rejected import Rejected

_AT_ONCE = 256
"""Patches of which is told that they are read."""


def replaced(
    recipe: Recipe, standing: Standing, inventory: Inventory, rows: NDArray[np.intp], say: Callable[[str], None]
) -> tuple[NDArray[np.bool_], list[Rejected]]:
    """Return (patch): whether its images have other pixels than row ``rows`` (patch) of a cube, and what cannot be used.

    A patch of which an image is missing or damaged here, that the cube has, is not taken. Raises ``OSError`` if the source
    does not answer.
    """
    differ, bad = np.zeros(len(inventory), bool), list[Rejected]()
    job = replace(job_of(recipe, "keep"), incomplete="keep")
    source, read = inventory.opened, 0
    for batch in _batches(inventory):
        for row, (rasters, rejected) in enumerate(read_patches(job, batch, source.part(batch.files)), batch.start):
            bad += rejected
            has, there = standing.values["present"][rows[row]], standing.values["digest"][rows[row]]
            lacks = [name for name, known in zip(job.layouts, has.tolist(), strict=True) if known and name not in rasters]
            if lacks:
                bad.append(
                    Rejected(batch.patch[row - batch.start], "incomplete", f"lacks {', '.join(lacks)}, which the cube has")
                )
                continue
            kinds = list(job.layouts.items())
            differ[row] = any(
                pixels_digest_of(layout, rasters[name].pixels) != there[place].tobytes()
                for place, (name, layout) in enumerate(kinds)
                if name in rasters
            )
        read += len(batch.patch)
        say(f"{inventory.source}: {read:,} of {len(inventory):,} patches compared with the cube")
    return differ, bad


def _batches(inventory: Inventory) -> Iterator[Batch]:
    for start in range(0, len(inventory), _AT_ONCE):
        part = inventory.take(np.arange(start, min(start + _AT_ONCE, len(inventory))))
        yield Batch(
            index=0,
            start=start,
            stop=start + len(part),
            digest="",
            patch=tuple(part.patch),
            path=tuple(map(tuple, part.path)),
            sizes=tuple(map(tuple, part.size.tolist())),
            stamps=tuple(map(tuple, part.stamp)),
        )
