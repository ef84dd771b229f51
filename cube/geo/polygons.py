"""Where patches lie, all of them at once: boxes in degrees and polygons as WKB. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.geo.footprints import footprint, rectangle
from cube.geo.projection import system, to_degrees

Array = NDArray[Any]

_DECIMALS = 7
"""Of a degree: about a centimetre, and the same with every PROJ."""
_POLYGON = np.dtype([("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("corners", "<f8", (5, 2))])
"""WKB of a polygon of four corners."""


def bounds(crs: Array, transform: Array, size: int, definitions: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return (patch, [west, south, east, north]) in degrees; west is greater than east across the antimeridian.

    ``crs`` is (patch), numbered as in :mod:`cube.geo.projection`, ``transform`` (patch, 6) as rasterio orders an affine,
    ``size`` the patches' side in pixels. NaN or infinite where the place is unknown.
    """
    along = np.linspace(0, size, 5)  # points along the edges: they bend in degrees
    points = np.array([(s, t) for s in along for t in along if s in (0, size) or t in (0, size)])
    lon, lat = _in_degrees(crs, transform, points, definitions)
    across = np.ptp(lon, axis=0) > 180
    turned = np.where(across & (lon < 0), lon + 360, lon)
    west, east = turned.min(axis=0), turned.max(axis=0)
    box = np.stack([west, lat.min(axis=0), np.where(across, east - 360, east), lat.max(axis=0)], axis=1)
    return _outward(_around_poles(box, across & (east - west > 180)))


def polygons(crs: Array, transform: Array, size: int, definitions: Sequence[str] = ()) -> list[bytes | None]:
    """Return the WKB of each patch: a polygon of its four corners, anticlockwise; two parts where it crosses 180°.

    Arguments are those of :func:`bounds`. None where the place is unknown.
    """
    lon, lat = _in_degrees(crs, transform, np.array([(0, 0), (0, size), (size, size), (size, 0), (0, 0)], float), definitions)
    corners = np.round(np.stack([lon, lat], axis=-1).swapaxes(0, 1), _DECIMALS)
    clockwise = _doubled_area(corners) < 0
    corners[clockwise] = corners[clockwise, ::-1]
    records = np.zeros(len(corners), _POLYGON)
    records["order"], records["type"], records["rings"], records["points"] = 1, 3, 1, 5
    records["corners"] = corners
    data, length = records.tobytes(), _POLYGON.itemsize
    made: list[bytes | None] = [data[start : start + length] for start in range(0, len(data), length)]
    for row in np.flatnonzero(~np.isfinite(corners).all(axis=(1, 2)) | (np.ptp(lon, axis=0) > 180)):
        known = {system(crs[row], definitions): rectangle(transform[row : row + 1], size)} if crs[row] else {}
        place = footprint(known)
        made[row] = _wkb(place.geometry) if place else None
    return made


def _in_degrees(crs: Array, transform: Array, points: Array, definitions: Sequence[str]) -> tuple[Array, Array]:
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
    unit = 10.0**_DECIMALS
    box[:, :2], box[:, 2:] = np.floor(box[:, :2] * unit) / unit, np.ceil(box[:, 2:] * unit) / unit
    return box


def _around_poles(box: NDArray[np.float64], around: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Widen the boxes of patches that hold a pole: every longitude meets them."""
    box[around, 0], box[around, 2] = -180.0, 180.0
    north = around & (box[:, 1] + box[:, 3] > 0)
    box[north, 3], box[around & ~north, 1] = 90.0, -90.0
    return box


def _doubled_area(rings: Array) -> NDArray[np.float64]:
    lon, lat = rings[..., 0], rings[..., 1]
    return np.asarray((lon[:, :-1] * lat[:, 1:] - lon[:, 1:] * lat[:, :-1]).sum(axis=1))


def _wkb(geometry: Any) -> bytes:
    parts = geometry["coordinates"]
    if geometry["type"] == "Polygon":
        return _polygon(parts)
    return struct.pack("<BII", 1, 6, len(parts)) + b"".join(_polygon(part) for part in parts)


def _polygon(rings: Any) -> bytes:
    packed = [struct.pack("<I", len(ring)) + np.array(ring, "<f8").tobytes() for ring in rings]
    return struct.pack("<BII", 1, 3, len(rings)) + b"".join(packed)


def geometry(wkb: bytes) -> dict[str, Any]:
    """Return the GeoJSON of what :func:`polygons` made."""
    kind, count = struct.unpack_from("<II", wkb, 1)
    if kind == 3:
        return {"type": "Polygon", "coordinates": _rings(wkb, 9, count)[0]}
    parts, place = [], 9
    for _ in range(count):
        rings, place = _rings(wkb, place + 9, *struct.unpack_from("<I", wkb, place + 5))
        parts.append(rings)
    return {"type": "MultiPolygon", "coordinates": parts}


def _rings(wkb: bytes, place: int, count: int) -> tuple[list[Any], int]:
    """Return some rings that begin at a place, and the place behind them."""
    rings = []
    for _ in range(count):
        (points,) = struct.unpack_from("<I", wkb, place)
        rings.append(np.frombuffer(wkb, "<f8", 2 * points, place + 4).reshape(points, 2).tolist())
        place += 4 + 16 * points
    return rings, place
