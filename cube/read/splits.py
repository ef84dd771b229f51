"""Whether training and test patches show the same ground: patches overlap, so a split must go by scene, or leave a margin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cube.errors import RequestError
from cube.read.placements import patch_side, placements


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """A scene of which one tile of ground is in patches of more than one split."""

    season: str
    scene: int
    splits: tuple[str, ...]
    tiles: int
    """Tiles of ground that several splits show."""
    patches: tuple[str, ...]
    """Ids of the patches that show them."""


def split_leaks(cube: xr.Dataset, label: str = "split") -> list[Leak]:
    """Return where splits share ground; nothing where every scene is of one split, without reading a pixel.

    ``cube`` is what ``open_cube`` gives, ``label`` the per-patch coordinate (patch) that names the split; assign your own
    to check a split you made. Raises ``RequestError`` if there is no such label.
    """
    if label not in cube.coords or cube[label].dims != ("patch",):
        raise RequestError(f"there is no per-patch label {label!r} to check")
    seasons, scenes, splits = cube["season"].values, cube["scene"].values, cube[label].values
    keys = np.array([f"{season}/{scene}" for season, scene in zip(seasons, scenes, strict=True)])
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(np.diff(np.unique(keys[order], return_inverse=True)[1], prepend=-1))
    found = []
    for rows in np.split(order, bounds[1:]):
        if len(np.unique(splits[rows])) > 1:
            found += _of_scene(cube, np.sort(rows), splits)
    return found


def _of_scene(cube: xr.Dataset, rows: NDArray[np.int64], splits: NDArray[np.str_]) -> list[Leak]:
    placed = placements(cube, rows)
    tile, size = int(cube.attrs["cube"]["tile"]), patch_side(cube)
    ground: dict[tuple[int, int, int], set[int]] = {}
    for row, top, left, part in zip(placed.rows, placed.top, placed.left, placed.part, strict=True):
        for y in range(int(top) // tile, -(-(int(top) + size) // tile)):
            for x in range(int(left) // tile, -(-(int(left) + size) // tile)):
                ground.setdefault((int(part), y, x), set()).add(int(row))
    shared = [here for here in ground.values() if len({splits[row] for row in here}) > 1]
    if not shared:
        return []
    patches = sorted(set().union(*shared))
    names = tuple(sorted({str(splits[row]) for row in patches}))
    first = int(rows[0])
    season, scene = str(cube["season"].values[first]), int(cube["scene"].values[first])
    return [
        Leak(season=season, scene=scene, splits=names, tiles=len(shared), patches=tuple(cube["patch"].values[patches].tolist()))
    ]
