"""What differs between two cubes, by what they certify, or between a cube and files, by their listing: no pixel is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RequestError
from cube.format.defects import DEFECTS
from cube.format.target import target_of
from cube.read.opened import OpenedCube
from cube.recipes.recipe import read_recipe
from cube.source.inventory import Inventory
from cube.source.scan import recognise, scan
from cube.store.parquet import ColumnFile

_CERTIFIED = {"patch", "present", "digest", "kept", "nan_count", "zero_count", "saturated_count", *DEFECTS}
_CERTIFIED |= {"crs_index", "supersedes"}
"""Labels that say of pixels what their digests say already, or point into other arrays."""

INVENTORY = "inventory.parquet"
"""Kept beside a cube: the files it was built from, and their sizes."""
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
    ids = [cube.current("patch") for cube in (first, second)]
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


def source_difference(
    first: OpenedCube, source: str, recipe: str | None = None, options: Mapping[str, Any] | None = None
) -> Difference:
    """Compare a cube with a folder, prefix or archive of patch files, by what is listed there; no file is read.

    Files of a patch that both have differ where one of both lacks an image, or where a file has another size than it had when
    the cube was built, as the folder of the build beside it says; other bytes of the same length are found by
    ``cube verify --source``. Patches of which the source has not all images of the cube count as added only where the cube
    keeps such patches. ``recipe`` is recognised by the names of the files where it is None. Raises ``RequestError`` as ``scan``
    and ``recognise`` do, and for a recipe of other modalities; ``CorruptError`` where what the build kept is damaged.
    """
    known = read_recipe(recipe or recognise(source, options))
    if unknown := [name for name in first.modalities if name not in known.modalities]:
        raise RequestError(f"recipe {known.name!r} has no modality {unknown[0]!r}: which recipe was the cube built by?")
    found = scan(known, source, options)
    columns = [found.modalities.index(name) for name in first.modalities]
    there = found.has[:, columns]
    ids, present = first.current("patch"), first.current("present")
    wanted = there.any(axis=1) if not present.all() else there.all(axis=1)
    _, here, other = np.intersect1d(ids, found.patch.astype(str), return_indices=True)
    order = np.argsort(here)
    here, other = here[order], other[order]
    differ = (present[here] != there[other]) | _resized(first, found, ids[here], other)[:, columns]
    changed = {name: tuple(ids[here[differ[:, place]]].tolist()) for place, name in enumerate(first.modalities)}
    added = found.patch[wanted & ~np.isin(found.patch.astype(str), ids)]
    removed = ids[~np.isin(ids, found.patch.astype(str))]
    nothing: tuple[str, ...] = ()
    return Difference(
        added=tuple(map(str, added.tolist())),
        removed=tuple(removed.tolist()),
        changed=changed,
        labels={},
        modalities=(nothing, nothing),
    )


def _resized(first: OpenedCube, found: Inventory, ids: Array, rows: Array) -> NDArray[np.bool_]:
    """Return (patch, modality): whether a file has another size than when the cube was built; nothing where that is unknown."""
    resized = np.zeros((len(ids), len(found.modalities)), bool)
    file = ColumnFile(target_of(first.url, options=first.store.options).build, INVENTORY)
    names = [f"{name.replace(' ', '_')}_bytes" for name in found.columns]
    try:
        kept = [name for name in names if name in file.schema.names]
        table = file.read(["patch", *kept], file.groups)
    except FileNotFoundError:
        return resized
    place = {name: row for row, name in enumerate(table["patch"].to_pylist())}
    before = np.array([place.get(name, -1) for name in ids.tolist()], np.int64)
    for column, span in enumerate(found.spans):
        for at in range(span.start, span.stop):
            if names[at] in kept:
                then = table[names[at]].to_numpy()[before]
                now = found.size[rows, at]
                resized[:, column] |= (before >= 0) & (then >= 0) & (now >= 0) & (then != now)
    return resized


def _require_alike(first: OpenedCube, second: OpenedCube, name: str) -> None:
    kinds = [(cube.specs[name].dtype, cube.specs[name].shape[1:], cube.specs[name].inner) for cube in (first, second)]
    bands = [cube.modalities[name] for cube in (first, second)]
    if kinds[0] != kinds[1] or bands[0] != bands[1]:
        seen = " and ".join(f"{dtype} {shape} in tiles of {inner}" for dtype, shape, inner in kinds)
        raise RequestError(f"{name} is {seen}, or has other bands: such cubes cannot be compared by what they certify")


def _changed(first: OpenedCube, second: OpenedCube, name: str, here: Array, there: Array) -> Array:
    """Return (patch): whether an image differs."""
    images = [(cube, rows, list(cube.modalities).index(name)) for cube, rows in ((first, here), (second, there))]
    present, digest = ([cube.current(label)[rows, place] for cube, rows, place in images] for label in ("present", "digest"))
    return np.asarray((present[0] != present[1]) | (digest[0] != digest[1]).any(axis=1))


def _other(first: OpenedCube, second: OpenedCube, name: str, here: Array, there: Array) -> Array:
    """Return (patch): whether a label differs; not a number equals itself."""
    one, two = first.current(name)[here], second.current(name)[there]
    if one.shape != two.shape:
        return np.ones(len(here), bool)
    floats = one.dtype.kind == "f" and two.dtype.kind == "f"
    same = (one == two) | (np.isnan(one) & np.isnan(two)) if floats else one == two
    return np.asarray(~same.reshape(len(here), -1).all(axis=1))
