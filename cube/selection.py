"""Which patches of a cube a filter and a box choose. Reads the labels they need and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from cube.errors import FilterError, RequestError
from cube.filters import check_fields, parse, select

Array = NDArray[Any]
Box = tuple[float, float, float, float]
"""West, south, east and north in degrees; a box whose west is greater than its east crosses the antimeridian."""


def select_patches(
    labels: Callable[[str], Array], names: Sequence[str], where: str | None = None, bbox: Box | None = None, *, size: int = 0
) -> NDArray[np.int64]:
    """Return the positions of the chosen patches, in order.

    ``labels`` reads one label (patch, …) by name, ``names`` are those there are, ``size`` is the side of a patch in pixels.
    Raises ``FilterError`` for a filter that cannot be read or names what is not there, ``RequestError`` for a box that is
    none, or patches without a place on Earth.
    """
    rows = np.arange(len(labels("patch")))
    if where is not None:
        clauses = parse(where)
        check_fields(clauses, names)
        fields = {clause.field: _column(clause.field, labels(clause.field)) for clause in clauses}
        rows = rows[select(where, fields)]
    if bbox is not None:
        if "transform" not in names:
            raise RequestError("the patches of this cube have no place on Earth, so no box can choose among them")
        rows = rows[_meets(_bounds(labels("epsg")[rows], labels("transform")[rows], size), _checked(bbox))]
    return rows


def as_slice(rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return positions that form a run as a slice, others as they are."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _column(name: str, values: Array) -> Array:
    if values.ndim != 1:
        raise FilterError(f"{name} holds several values per patch: a filter compares one")
    return values


def _checked(bbox: Box) -> Box:
    west, south, east, north = (float(value) for value in bbox)
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise RequestError(f"{bbox} is no box: expected west, south, east, north in degrees, south below north")
    return west, south, east, north


def _bounds(epsg: Array, transform: Array, size: int) -> Array:
    """Return (patch, [west, south, east, north]) in degrees; west is greater than east across the antimeridian."""
    a, b, c, d, e, f = transform.T
    along = np.linspace(0, size, 5)  # points along the edges: they bend in degrees
    u, v = np.array([(s, t) for s in along for t in along if s in (0, size) or t in (0, size)]).T[..., None]
    x, y = a * u + b * v + c, d * u + e * v + f
    lon, lat = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    for code in np.unique(epsg[epsg > 0]):
        here = epsg == code
        lon[:, here], lat[:, here] = Transformer.from_crs(int(code), 4326, always_xy=True).transform(x[:, here], y[:, here])
    across = np.ptp(lon, axis=0) > 180
    turned = np.where(across & (lon < 0), lon + 360, lon)
    west, east = turned.min(axis=0), turned.max(axis=0)
    return np.stack([west, lat.min(axis=0), np.where(across, east - 360, east), lat.max(axis=0)], axis=1)


def _meets(bounds: Array, bbox: Box) -> NDArray[np.bool_]:
    west, south, east, north = bounds.T
    inside = (south <= bbox[3]) & (north >= bbox[1])
    meets = np.zeros(len(bounds), bool)
    for low, high in _spans(bbox[0], bbox[2]):
        whole = west <= east
        meets |= np.where(whole, (west <= high) & (east >= low), (west <= high) | (east >= low))
    return np.asarray(inside & meets)


def _spans(west: float, east: float) -> list[tuple[float, float]]:
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
