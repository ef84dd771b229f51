"""Which tile of which patch shows each piece of ground first, and where patches lie in the picture of their scene. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.geo.projection import numbered

_CLOSE = 0.05
"""Pixels by which a patch may be off its grid; files round their coordinates."""
_LARGEST = 2**28
"""Most pixels of a scene's picture before it is reduced; of a scene that is wider apart the patches are laid side by side."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GroundSlice:
    """What is known of the ground of some patches."""

    scene: Ints
    """(patch): which of all scenes."""
    grounded: NDArray[np.bool_]
    """(patch): whether its scene counts by ground; otherwise each distinct tile of a shard counts once."""
    top: Ints
    left: Ints
    """(patch): pixels from the upper left corner of the scene's picture."""
    owned: NDArray[np.bool_]
    """(patch, modality, place): whether this tile of this patch is the one that counts."""
    side: int
    """Pixels along a side of a patch, of which those above are."""
    counted: int = 0
    """The first patches of these, that an earlier survey has counted."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The ground of all scenes of a cube."""

    scenes: tuple[tuple[str, int], ...]
    """(season, scene), in the order of the cube."""
    grounded: NDArray[np.bool_]
    """(scene): whether its patches lie on one grid, whole tiles apart."""
    drawn: NDArray[np.bool_]
    """(scene): whether its picture is a map; otherwise the patches lie side by side."""
    shape: Ints
    """(scene, 2): height and width of its picture in pixels."""
    patches: GroundSlice

    def take(self, rows: slice, counted: int = 0) -> GroundSlice:
        """Return what is known of some patches, of which an earlier survey has counted the first."""
        all_of = self.patches
        return GroundSlice(
            all_of.scene[rows],
            all_of.grounded[rows],
            all_of.top[rows],
            all_of.left[rows],
            all_of.owned[rows],
            all_of.side,
            counted,
        )


def find_ground(labels: Mapping[str, NDArray[Any]], *, size: int, tile: int) -> Ground:
    """Find out, from a cube's labels alone, which tile of which patch counts.

    On a grid, a piece of ground counts once for each modality: in the first patch, in the order of the cube, that has an
    image of it. Patches of a scene that lie in several CRSs, off a common grid, fractions of a tile apart or nowhere do not
    count by ground: all their tiles are owned. ``size`` and ``tile`` are the sides of a patch and of a tile in pixels.
    """
    scenes, scene = scenes_of(labels["season"], labels["scene"])
    order = np.argsort(scene, kind="stable")
    parts = np.split(order, np.searchsorted(scene[order], np.arange(1, len(scenes))))
    corner = np.zeros((len(scene), 2), np.int64)
    grounded, drawn = np.zeros(len(scenes), bool), np.zeros(len(scenes), bool)
    shape = np.zeros((len(scenes), 2), np.int64)
    shown: NDArray[np.bool_] = np.any(labels["present"], axis=1)
    for number, rows in enumerate(parts):
        seen = rows[shown[rows]]
        found = _on_grid(labels, seen, size) if "transform" in labels else None
        drawn[number] = found is not None
        grounded[number] = found is not None and not np.any(found % tile)
        corner[seen] = _side_by_side(len(seen), size) if found is None else found
        shape[number] = corner[seen].max(axis=0, initial=0) + (size if len(seen) else 0)
    by_patch: NDArray[np.bool_] = np.take(grounded, scene)
    owned = np.repeat(labels["present"][..., None], (size // tile) ** 2, axis=-1)
    for kind in range(owned.shape[1]):
        rows = np.flatnonzero(by_patch & labels["present"][:, kind])
        owned[rows, kind] = _first(scene[rows], corner[rows] // tile, size // tile)
    patches = GroundSlice(scene, by_patch, corner[:, 0], corner[:, 1], owned, size)
    return Ground(scenes=scenes, grounded=grounded, drawn=drawn, shape=shape, patches=patches)


def scenes_of(season: NDArray[np.str_], scene: NDArray[Any]) -> tuple[tuple[tuple[str, int], ...], Ints]:
    """Return the scenes of a cube, in its order, and (patch): which of them."""
    _, code = np.unique(season, return_inverse=True)
    keys, first, inverse = np.unique(code.astype(np.int64) << 32 | scene, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys))
    return tuple((str(season[row]), int(scene[row])) for row in first[order]), rank[inverse]


def _on_grid(labels: Mapping[str, NDArray[Any]], rows: Ints, size: int) -> Ints | None:
    """Return (patch, [top, left]) in pixels from the scene's corner; None where the patches lie on no common grid."""
    crs, transform = numbered(labels["epsg"], labels.get("crs_index"))[rows], labels["transform"][rows]
    if not len(rows) or not np.isfinite(transform).all() or (crs != crs[0]).any():
        return None
    linear = transform[:, [0, 1, 3, 4]]
    axes = linear[0].reshape(2, 2)
    if not np.isclose(linear, linear[0], rtol=1e-7, atol=1e-9).all() or not np.linalg.det(axes):
        return None
    pixels = (transform[:, [2, 5]] - transform[0, [2, 5]]) @ np.linalg.inv(axes).T
    whole = np.rint(pixels)
    corner = (whole - whole.min(axis=0)).astype(np.int64)[:, ::-1]
    if np.abs(pixels - whole).max() > _CLOSE or np.prod(corner.max(axis=0) + float(size)) > _LARGEST:
        return None
    return np.asarray(corner)


def _side_by_side(count: int, size: int) -> Ints:
    """Return (patch, [top, left]) of patches in rows, in the order of the cube."""
    across = max(1, int(np.ceil(np.sqrt(count))))
    return np.stack(np.divmod(np.arange(count), across), axis=1) * size


def _first(scene: Ints, corner: Ints, across: int) -> NDArray[np.bool_]:
    """Return (patch, place): whether no patch before shows this tile of ground; ``corner`` counts tiles."""
    rows, columns = np.divmod(np.arange(across**2), across)
    keys = np.stack(np.broadcast_arrays(scene[:, None], corner[:, :1] + rows, corner[:, 1:] + columns), axis=-1).reshape(-1, 3)
    spans = keys.max(axis=0, initial=0) + 1
    _, first = np.unique((keys[:, 0] * spans[1] + keys[:, 1]) * spans[2] + keys[:, 2], return_index=True)
    found = np.zeros(len(keys), bool)
    found[first] = True
    return found.reshape(-1, across**2)
