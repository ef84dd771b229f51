"""Boxes in degrees of patches, all of them at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.geo.projection import DECIMALS, system, to_degrees

Array = NDArray[Any]


def bounds(crs: Array, transform: Array, size: int, definitions: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return (patch, [west, south, east, north]) in degrees; west is greater than east across the antimeridian.

    ``crs`` is (patch), numbered as in :mod:`cube.geo.projection`, ``transform`` (patch, 6) as rasterio orders an affine,
    ``size`` the patches' side in pixels. NaN or infinite where the place is unknown.
    """
    along = np.linspace(0, size, 5)  # points along the edges: they bend in degrees
    points = np.array([(s, t) for s in along for t in along if s in (0, size) or t in (0, size)])
    lon, lat = in_degrees(crs, transform, points, definitions)
    across = np.ptp(lon, axis=0) > 180
    turned = np.where(across & (lon < 0), lon + 360, lon)
    west, east = turned.min(axis=0), turned.max(axis=0)
    box = np.stack([west, lat.min(axis=0), np.where(across, east - 360, east), lat.max(axis=0)], axis=1)
    return _outward(_around_poles(box, across & (east - west > 180)))


def in_degrees(crs: Array, transform: Array, points: Array, definitions: Sequence[str]) -> tuple[Array, Array]:
    """Return longitude and latitude (point, patch) of points given as (column, row) in pixels."""
    a, b, c, d, e, f = transform.T
    u, v = points.T[..., None]
    x, y = a * u + b * v + c, d * u + e * v + f
    lon, lat = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    for number in np.unique(crs[crs != 0]):
        here = crs == number
        lon[:, here], lat[:, here] = to_degrees(system(number, definitions)).transform(x[:, here], y[:, here])
    return lon, lat


def _outward(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round boxes so that they still hold what they held."""
    unit = 10.0**DECIMALS
    box[:, :2], box[:, 2:] = np.floor(box[:, :2] * unit) / unit, np.ceil(box[:, 2:] * unit) / unit
    return box


def _around_poles(box: NDArray[np.float64], around: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Widen the boxes of patches that hold a pole: every longitude meets them."""
    box[around, 0], box[around, 2] = -180.0, 180.0
    north = around & (box[:, 1] + box[:, 3] > 0)
    box[north, 3], box[around & ~north, 1] = 90.0, -90.0
    return box
