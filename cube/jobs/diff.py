"""What differs between two cubes, by what they certify: no pixel is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RequestError
from cube.read.opened import OpenedCube

_CERTIFIED = {"patch", "present", "digest", "kept", "nan_count", "zero_count", "saturated_count", "crs_index"}
"""Labels that say of pixels what their digests say already, or point into other arrays."""

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What the second cube has that the first has not, and the other way round."""

    added: tuple[str, ...]
    """Ids of patches that only the second has, in its order."""
    removed: tuple[str, ...]
    """Ids of patches that only the first has."""
    changed: Mapping[str, tuple[str, ...]]
    """Modality → ids of patches that both have, with other pixels, or an image in one of them alone."""
    labels: Mapping[str, tuple[str, ...]]
    """Label → ids of patches that both have, with another value."""
    modalities: tuple[tuple[str, ...], tuple[str, ...]]
    """Modalities that only the first has, and only the second."""

    @property
    def any(self) -> bool:
        """Whether anything differs."""
        return any((self.added, self.removed, *self.changed.values(), *self.labels.values(), *self.modalities))

    def document(self) -> dict[str, Any]:
        """Return the difference as plain data."""
        return {
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": {name: list(ids) for name, ids in self.changed.items() if ids},
            "labels": {name: list(ids) for name, ids in self.labels.items() if ids},
            "modalities": {"removed": list(self.modalities[0]), "added": list(self.modalities[1])},
        }


def difference(first: OpenedCube, second: OpenedCube) -> Difference:
    """Compare two opened cubes patch by patch, by ids and the digests of pixels; the order of patches does not matter.

    Raises ``RequestError`` where modalities of one name are of other sizes, bands, types or tiles: their digests say nothing of
    each other then; ``CorruptError`` where labels are not those certified.
    """
    ids = [cube.value("patch") for cube in (first, second)]
    _, here, there = np.intersect1d(ids[0], ids[1], return_indices=True)
    order = np.argsort(here)
    here, there = here[order], there[order]
    both = [name for name in first.modalities if name in second.modalities]
    for name in both:
        _require_alike(first, second, name)
    changed = {name: ids[0][here[_changed(first, second, name, here, there)]].tolist() for name in both}
    shared = [name for name in first.labels if name in second.labels and name not in _CERTIFIED]
    return Difference(
        added=tuple(ids[1][~np.isin(ids[1], ids[0])].tolist()),
        removed=tuple(ids[0][~np.isin(ids[0], ids[1])].tolist()),
        changed={name: tuple(of) for name, of in changed.items()},
        labels={name: tuple(ids[0][here[_other(first, second, name, here, there)]].tolist()) for name in shared},
        modalities=(
            tuple(name for name in first.modalities if name not in second.modalities),
            tuple(name for name in second.modalities if name not in first.modalities),
        ),
    )


def _require_alike(first: OpenedCube, second: OpenedCube, name: str) -> None:
    kinds = [(cube.specs[name].dtype, cube.specs[name].shape[1:], cube.specs[name].inner) for cube in (first, second)]
    bands = [cube.modalities[name] for cube in (first, second)]
    if kinds[0] != kinds[1] or bands[0] != bands[1]:
        seen = " and ".join(f"{dtype} {shape} in tiles of {inner}" for dtype, shape, inner in kinds)
        raise RequestError(f"{name} is {seen}, or has other bands: such cubes cannot be compared by what they certify")


def _changed(first: OpenedCube, second: OpenedCube, name: str, here: Array, there: Array) -> Array:
    """Return (patch): whether an image differs."""
    images = [(cube, rows, list(cube.modalities).index(name)) for cube, rows in ((first, here), (second, there))]
    present, digest = ([cube.value(label)[rows, place] for cube, rows, place in images] for label in ("present", "digest"))
    return np.asarray((present[0] != present[1]) | (digest[0] != digest[1]).any(axis=1))


def _other(first: OpenedCube, second: OpenedCube, name: str, here: Array, there: Array) -> Array:
    """Return (patch): whether a label differs; not a number equals itself."""
    one, two = first.value(name)[here], second.value(name)[there]
    if one.shape != two.shape:
        return np.ones(len(here), bool)
    floats = one.dtype.kind == "f" and two.dtype.kind == "f"
    same = (one == two) | (np.isnan(one) & np.isnan(two)) if floats else one == two
    return np.asarray(~same.reshape(len(here), -1).all(axis=1))
