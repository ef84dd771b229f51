"""From the survey of a cube to that of the cube it has grown into: may it be gone on with, and where its pictures go. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cube.format.tiles import TileLayout
from cube.survey.counted import Counted
from cube.survey.ground import Ground
from cube.survey.overviews import Pixels, pixels_of
from cube.survey.tally import reduction


def goes_on(counted: Counted, before: Ground, now: Ground, layouts: Mapping[str, TileLayout]) -> bool:
    """Tell whether what was counted of the first patches of a cube is what would be counted of them in the whole.

    It is not where patches that came later show that a scene lies on no grid, or that nothing they share was new.
    """
    known = len(before.scenes)
    if counted.scenes != before.scenes or now.scenes[:known] != before.scenes:
        return False
    if any(set(counted.pictures.get(scene, {})) != set(layouts) for scene in before.scenes):
        return False
    if any(pixels_of(picture) is None for of in counted.pictures.values() for picture in of.values()):
        return False
    for name, was, kept in (("grounded", before.grounded, counted.grounded), ("drawn", before.drawn, counted.drawn)):
        if not np.array_equal(was, kept) or not np.array_equal(getattr(now, name)[:known], was):
            return False
    owned = now.patches.owned[: counted.patches]
    return np.array_equal(owned, before.patches.owned) and not _shifted(before, now, layouts)


def _shifted(before: Ground, now: Ground, layouts: Mapping[str, TileLayout]) -> bool:
    """Tell whether a picture would have to be moved by a part of its pixels."""
    moved = (now.patches.top[: len(before.patches.top)] - before.patches.top) | (
        now.patches.left[: len(before.patches.left)] - before.patches.left
    )
    drawn = now.drawn[now.patches.scene[: len(moved)]]
    side = before.patches.side
    return any(bool((moved[drawn] * layout.size % (side * reduction(layout.tile))).any()) for layout in layouts.values())


def carry_over(picture: bytes, to: Pixels, scene: int, grounds: tuple[Ground, Ground], layout: TileLayout) -> None:
    """Copy what the earlier picture of a scene shows of its patches to where they lie now."""
    old = pixels_of(picture)
    assert old is not None
    before, now = grounds
    factor, side = reduction(layout.tile), layout.size
    length, scale = side // factor, before.patches.side
    for row in np.flatnonzero((before.patches.scene == scene) & before.patches.owned.any(axis=(1, 2))).tolist():
        at, there = (
            [int(values[row]) * side // scale // factor for values in (ground.patches.top, ground.patches.left)]
            for ground in (before, now)
        )
        part = old[at[0] : at[0] + length, at[1] : at[1] + length]
        to[there[0] : there[0] + len(part), there[1] : there[1] + part.shape[1]] = part
