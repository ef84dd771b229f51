"""Scenes and single patches as georeferenced rasters, read lazily, every tile of ground once.

Patches of a scene overlap. A raster has each pixel once, so that statistics over it count no pixel twice.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import rioxarray  # noqa: F401 (registers ``.rio``)
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

import cube.read.pictures  # noqa: F401 (registers ``Dataset.cube``)
from cube.errors import RequestError
from cube.geo.projection import known_crs
from cube.read.open import open_cube
from cube.read.opened import open_certified
from cube.read.pixels import PixelReader
from cube.read.placements import Placements, placements

_CHUNK = 8
"""Tiles along a side of what Dask reads at once."""
_COMPARED = 5000
"""Ids among which the nearest are looked for."""

Options = Mapping[str, Any] | None
Ints = NDArray[np.int64]


def open_scene(
    url: str,
    *,
    season: str | None = None,
    scene: int,
    storage_options: Options = None,
    expect: str | None = None,
    version: int | None = None,
) -> xr.Dataset:
    """Open one scene as a raster; no pixel of a georeferenced scene is read.

    Returns one variable (band, y, x) per modality in its stored type, with the coordinates of a cube that are not per patch,
    pixel centres ``x`` and ``y``, the CRS in ``spatial_ref``, ``NAME_covered`` (y, x) that says where a modality has pixels
    and ``covered`` (y, x) where all have. Elsewhere stands the array's fill value: NaN for floats.

    Patches without a georeference are placed where equal tiles prove it (this reads them all); the raster is the largest part,
    without a CRS, and ``x`` and ``y`` count pixels. The attributes ``patches``, ``patches_placed``, ``parts`` and
    ``patches_not_placed`` tell what was left out. Where patches disagree about a pixel, the first one says what it is.

    ``expect`` is the digest that was noted of the cube, ``version`` takes one that has grown as it was. ``season`` may be left
    out if only one has a scene of this number. Raises ``RequestError`` for an unknown season or scene, and for patches that
    make no raster: several CRSs or pixel sizes, or a rotated grid.
    """
    source = open_certified(url, storage_options, expect, version)
    cube = open_cube(source.url, storage_options=storage_options, version=version)
    rows, season = _rows(cube, season, scene)
    where = placements(cube, rows)
    placed = where.part == 0
    present = cube["present"].values[rows]
    raster = cube.drop_dims("patch").assign_coords({"season": season, "scene": scene})
    covers: dict[tuple[str, str], list[NDArray[np.bool_]]] = {}
    for name in source.modalities:
        kind, layout, axes = list(cube["modality"].values).index(name), source.reader(name).layout, _spatial(cube[name])
        scaled = _stored(where, source.visible).resampled(layout.size, source.size)
        shape = int(scaled.top[placed].max()) + layout.size, int(scaled.left[placed].max()) + layout.size
        layers = _layers(scaled, placed & present[:, kind], layout.size, layout.tile)
        variable = _variable(cube[name], _Raster(source.reader(name), tuple(layers), shape))
        covers.setdefault(axes, []).append(_covered(layers, shape, layout.tile))
        raster = raster.assign({name: variable}).assign_coords(_axes(scaled, shape, axes))
        raster = raster.assign_coords({f"{name}_covered": (axes, covers[axes][-1])})
    said = {"long_name": "whether every modality of this size has pixels here"}
    whole = {f"covered{axes[0][1:]}": (axes, np.logical_and.reduce(of), said) for axes, of in covers.items()}
    raster = raster.assign_coords(whole)
    facts = {"patches": len(rows), "patches_placed": int(placed.sum()), "parts": where.parts}
    left_out = cube["patch"].values[rows[~placed]].tolist()
    kept = {key: cube.attrs[key] for key in ("title", "Conventions", "cube") if key in cube.attrs}
    raster.attrs = kept | facts | {"patches_not_placed": left_out}
    return raster


def open_patch(
    url: str, patch_id: str, *, storage_options: Options = None, expect: str | None = None, version: int | None = None
) -> xr.Dataset:
    """Open one patch as a raster; no pixel is read.

    Returns one variable (band, y, x) per modality, its labels as scalar coordinates, pixel centres ``x`` and ``y`` and the CRS
    in ``spatial_ref``. Without a georeference ``x`` and ``y`` count pixels. An image that is absent (see ``present``) holds the
    fill value. ``expect`` is the digest that was noted of the cube, ``version`` takes one that has grown as it
    was. Raises ``RequestError`` for an unknown id.
    """
    source = open_certified(url, storage_options, expect, version)
    cube = open_cube(source.url, storage_options=storage_options, version=version)
    found = np.flatnonzero(cube["patch"].values == patch_id)
    if not len(found):
        raise RequestError(
            f"{url} has no patch {patch_id!r}; nearest are {', '.join(_nearest(patch_id, cube['patch'].values))}"
        )
    where = placements(cube, found) if "transform" in cube.coords else _alone(found)
    patch = cube.isel(patch=int(found[0]))
    for name in patch.data_vars:
        height, width = patch[name].shape[-2:]
        patch = patch.assign_coords(_axes(where.resampled(height, source.size), (height, width), _spatial(patch[name])))
    for name in patch.data_vars:
        patch[name].encoding = _encoding(patch)
        patch[name].attrs["nodata"] = source.reader(str(name)).fill
    return patch


def _rows(cube: xr.Dataset, season: str | None, scene: int) -> tuple[Ints, str]:
    """Return the positions of a scene's patches, and its season."""
    seasons, scenes = cube["season"].values, cube["scene"].values
    known = sorted(set(seasons.tolist()))
    if season is not None and season not in known:
        raise RequestError(f"no season is {season!r}; known are {', '.join(known)}")
    having = sorted(set(seasons[scenes == scene].tolist()))
    if season is None and len(having) > 1:
        raise RequestError(f"scene {scene} is another place in each season: say which of {', '.join(having)}")
    season = season if season is not None or not having else having[0]
    rows = np.flatnonzero((scenes == scene) & (seasons == season))
    if season is None or not len(rows):
        there = np.unique(scenes if season is None else scenes[seasons == season])
        near = sorted(there[np.argsort(np.abs(there - scene), kind="stable")][:10].tolist())
        also = f"; {', '.join(having)} has one" if having else ""
        raise RequestError(f"{season or 'the cube'} has no scene {scene}; nearest are {', '.join(map(str, near))}{also}")
    return rows, season


def _nearest(patch_id: str, ids: NDArray[np.str_]) -> list[str]:
    """Return a few ids like this one, looked for among those that begin alike."""
    start = patch_id
    while not (alike := np.char.startswith(ids, start)).any():
        start = start[:-1]
    return difflib.get_close_matches(patch_id, ids[alike][:_COMPARED].tolist(), n=3, cutoff=0.0)


def _stored(where: Placements, visible: NDArray[Any] | None) -> Placements:
    """Return the places with the rows that patches have in the store, where replaced ones stand between them."""
    return where if visible is None else replace(where, rows=visible[where.rows])


def _alone(rows: Ints) -> Placements:
    zero = np.zeros(1, np.int64)
    return Placements(rows=rows, top=zero, left=zero, part=zero)


def _spatial(pixels: xr.DataArray) -> tuple[str, str]:
    """Return the names of rows and columns: ``y`` and ``x``, or such as ``y_60`` for images of fewer pixels than others."""
    return str(pixels.dims[-2]), str(pixels.dims[-1])


def _axes(where: Placements, shape: tuple[int, int], names: tuple[str, str]) -> dict[str, Any]:
    """Return the coordinates of rows and columns and, where the CRS is known, ``spatial_ref``."""
    vertical, horizontal = names
    rows, columns = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
    if where.affine is None:
        return {
            horizontal: (horizontal, columns, {"axis": "X", "long_name": "pixels from the left edge"}),
            vertical: (vertical, rows, {"axis": "Y", "long_name": "pixels from the upper edge"}),
        }
    a, b, c, d, e, f = where.affine
    if b or d:
        raise RequestError(f"the affine {where.affine} is rotated, so its pixels have no x and y of their own")
    if not (where.epsg or where.wkt):
        return {
            horizontal: (horizontal, a * columns + c, {"axis": "X"}),
            vertical: (vertical, e * rows + f, {"axis": "Y"}),
        }
    crs = known_crs(where.wkt or where.epsg)
    axes = {axis["axis"]: axis for axis in crs.cs_to_cf()}
    facts = {**crs.to_cf(), "spatial_ref": crs.to_wkt()}
    return {
        horizontal: (horizontal, a * columns + c, axes["X"]),
        vertical: (vertical, e * rows + f, axes["Y"]),
        "spatial_ref": ((), np.int32(0), facts),
    }


def _encoding(raster: xr.Dataset) -> dict[str, Any]:
    return {"grid_mapping": "spatial_ref"} if "spatial_ref" in raster.coords else {}


@dataclass(frozen=True)
class _Layer:
    """Tiles of ground that do not overlap, in pixels of the raster."""

    patches: Ints
    """(tile): positions in the cube."""
    places: Ints
    """(tile): which tile of the patch."""
    top: Ints
    left: Ints


def _layers(where: Placements, used: NDArray[np.bool_], size: int, tile: int) -> list[_Layer]:
    """Return which tile of which patch gives each tile of ground: of the first patch that has it.

    There is one layer where all patches lie whole tiles apart. Otherwise there are several, and a later one lies above.
    """
    across = size // tile
    use, place = (part.ravel() for part in np.meshgrid(np.flatnonzero(used), np.arange(across**2), indexing="ij"))
    top, left = where.top[use] + place // across * tile, where.left[use] + place % across * tile
    _, firsts = np.unique(np.stack([top, left]), axis=1, return_index=True)
    kept = np.sort(firsts)
    use, place, top, left = use[kept], place[kept], top[kept], left[kept]
    shift = top % tile * tile + left % tile
    order = list(dict.fromkeys(shift.tolist()))[::-1]
    return [_Layer(where.rows[use[at]], place[at], top[at], left[at]) for value in order for at in [shift == value]]


def _covered(layers: Iterable[_Layer], shape: tuple[int, int], tile: int) -> NDArray[np.bool_]:
    covered = np.zeros(shape, bool)
    for layer in layers:
        for top, left in zip(layer.top.tolist(), layer.left.tolist(), strict=True):
            covered[top : top + tile, left : left + tile] = True
    return covered


def _variable(array: xr.DataArray, pixels: _Raster) -> xr.Variable:
    tile = pixels.reader.layout.tile
    chunks = dict(zip(array.dims[1:], (pixels.shape[0], _CHUNK * tile, _CHUNK * tile), strict=True))
    data = indexing.LazilyIndexedArray(pixels)
    attributes = array.attrs | {"nodata": pixels.reader.fill}
    return xr.Variable(array.dims[1:], data, attributes, {"preferred_chunks": chunks, "grid_mapping": "spatial_ref"})


class _Wanted:
    """Positions wanted along one axis, in any order, repeated if asked for."""

    def __init__(self, key: Any, length: int) -> None:
        self.positions = np.atleast_1d(np.arange(length)[key])
        self._order = np.argsort(self.positions, kind="stable")
        self._sorted = self.positions[self._order]

    def within(self, start: int, length: int) -> tuple[Any, Any]:
        """Return which wanted positions lie in a tile, and where in it."""
        low, high = np.searchsorted(self._sorted, [start, start + length])
        chosen = self._order[low:high]
        inside = self._sorted[low:high] - start
        if len(chosen) > 1 and (np.diff(chosen) == 1).all() and (np.diff(inside) == 1).all():
            return slice(chosen[0], chosen[-1] + 1), slice(inside[0], inside[-1] + 1)
        return chosen, inside

    def touches(self, starts: Ints, length: int) -> NDArray[np.bool_]:
        """Return in which tiles any wanted position lies."""
        low, high = np.searchsorted(self._sorted, starts), np.searchsorted(self._sorted, starts + length)
        return np.asarray(high > low)


@dataclass
class _Raster(BackendArray):
    """The pixels of one modality of a scene (band, y, x)."""

    reader: PixelReader
    layers: tuple[_Layer, ...]
    extent: tuple[int, int]

    def __post_init__(self) -> None:
        self.shape = (self.reader.layout.bands, *self.extent)
        self.dtype = np.dtype(self.reader.layout.dtype).newbyteorder("=")

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

    def _get(self, key: tuple[Any, ...]) -> Any:
        """Read an outer product of integers, slices and integer arrays."""
        bands = np.atleast_1d(np.arange(self.shape[0])[key[0]])
        y, x = _Wanted(key[1], self.shape[1]), _Wanted(key[2], self.shape[2])
        out = np.full((len(bands), len(y.positions), len(x.positions)), self.reader.fill, self.dtype)
        for layer in self.layers:
            self._paste(layer, bands, (y, x), out)
        drop = tuple(axis for axis, part in enumerate(key) if isinstance(part, (int, np.integer)))
        return out.squeeze(axis=drop) if drop else out

    def _paste(self, layer: _Layer, bands: Ints, wanted: tuple[_Wanted, _Wanted], out: NDArray[Any]) -> None:
        size = self.reader.layout.tile
        y, x = wanted
        uses = np.flatnonzero(y.touches(layer.top, size) & x.touches(layer.left, size))

        def take(found: list[int], tile: NDArray[Any] | None) -> None:
            for use in uses[found] if tile is not None else ():
                to_y, from_y = y.within(int(layer.top[use]), size)
                to_x, from_x = x.within(int(layer.left[use]), size)
                part = tile[:, from_y][:, :, from_x]  # type: ignore[index]
                if isinstance(to_y, slice) or isinstance(to_x, slice):
                    out[:, to_y, to_x] = part
                else:
                    out[:, to_y[:, None], to_x] = part

        if len(uses):
            self.reader.gather(layer.patches[uses], layer.places[uses], take, bands)
