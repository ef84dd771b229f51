"""Where scenes lie: from patches' transforms to polygons and boxes in degrees, as GeoJSON (RFC 7946) wants them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

Box = tuple[float, float, float, float]
"""West, south, east, north, or the same in the units of a CRS. In degrees, west > east says that it crosses 180°."""
Ring = NDArray[np.float64]
"""(point, 2) closed: the last point is the first one again."""

WORLD: Box = (-180.0, -90.0, 180.0, 90.0)
_STEPS = 16
"""Points along each edge of a rectangle: straight lines of a CRS are curves in degrees."""
_DECIMALS = 7
"""Of a degree: about a centimetre, and the same with every PROJ."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """A place on Earth."""

    geometry: Mapping[str, Any]
    """GeoJSON Polygon, or MultiPolygon where it is cut at 180° or has several parts."""
    bbox: Box


def rectangle(transforms: NDArray[np.float64], size: int) -> Box:
    """Return the rectangle around patches in the units of their CRS.

    ``transforms`` is (patch, 6) as rasterio orders an affine, ``size`` the patches' side in pixels.
    """
    a, b, c, d, e, f = transforms.T
    corners = [(0, 0), (size, 0), (size, size), (0, size)]
    x = np.stack([a * column + b * row + c for column, row in corners])
    y = np.stack([d * column + e * row + f for column, row in corners])
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def footprint(rectangles: Mapping[int, Box]) -> Footprint | None:
    """Return the footprint of rectangles, each given with the EPSG code of its CRS; None where none has a place on Earth."""
    parts, boxes = [], []
    for code, bounds in rectangles.items():
        ring = _in_degrees(code, bounds)
        if np.isfinite(ring).all():
            pieces = _cut(ring)
            parts += pieces
            boxes.append(_box(ring, pieces))
    if not parts:
        return None
    polygons = [[_anticlockwise(part).tolist()] for part in parts]
    if len(polygons) == 1:
        return Footprint(geometry={"type": "Polygon", "coordinates": polygons[0]}, bbox=boxes[0])
    return Footprint(geometry={"type": "MultiPolygon", "coordinates": polygons}, bbox=around(boxes))


def around(boxes: Iterable[Box]) -> Box:
    """Return the box around boxes in degrees; one that would cross 180° and span half the globe goes all around it."""
    west, south, east, north = np.array(list(boxes)).T
    low, high = float(south.min()), float(north.max())
    if (west <= east).all():
        return float(west.min()), low, float(east.max()), high
    start = west % 360
    stop = start + (east - west) % 360
    if stop.max() - start.min() > 180:
        return -180.0, low, 180.0, high
    return round(float(start.min()), _DECIMALS), low, round(float(stop.max()) - 360, _DECIMALS), high


def _in_degrees(code: int, bounds: Box) -> Ring:
    """Return a rectangle of a CRS with many points along its edges, its longitudes without jumps."""
    west, south, east, north = bounds
    corners = np.array([(west, south), (east, south), (east, north), (west, north), (west, south)])
    x, y = (np.interp(np.linspace(0, 4, 4 * _STEPS + 1), np.arange(5), axis) for axis in corners.T)
    lon, lat = Transformer.from_crs(code, 4326, always_xy=True).transform(x, y)
    if not np.isfinite(lon).all():
        return np.full((len(x), 2), np.nan)
    lon = np.unwrap(lon, period=360)
    ring = np.round(np.stack([lon, lat], axis=1), _DECIMALS)
    return _with_pole(ring) if abs(lon[-1] - lon[0]) > 180 else ring


def _with_pole(ring: Ring) -> Ring:
    """Close a ring that goes once around the Earth by way of the pole inside it."""
    pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
    return np.vstack([ring, (ring[-1, 0], pole), (ring[0, 0], pole), ring[0]])


def _cut(ring: Ring) -> list[Ring]:
    """Return the parts of a ring between 180° west and 180° east."""
    parts = []
    for turn in (-360.0, 0.0, 360.0):
        part = _clip(_clip(ring + np.array([turn, 0.0]), -180.0, keep_above=True), 180.0, keep_above=False)
        if len(part) > 3 and _doubled_area(part):
            parts.append(part)
    return parts


def _clip(ring: Ring, limit: float, *, keep_above: bool) -> Ring:
    """Return the part of a ring on one side of a meridian."""
    kept = []
    for (lon, lat), (next_lon, next_lat) in pairwise(ring):
        inside, next_inside = ((value >= limit) if keep_above else (value <= limit) for value in (lon, next_lon))
        if inside:
            kept.append((lon, lat))
        if inside != next_inside and limit not in (lon, next_lon):
            share = (limit - lon) / (next_lon - lon)
            kept.append((limit, round(lat + share * (next_lat - lat), _DECIMALS)))
    return np.round(np.array([*kept, *kept[:1]]).reshape(-1, 2), _DECIMALS)


def _box(ring: Ring, parts: list[Ring]) -> Box:
    south, north = float(ring[:, 1].min()), float(ring[:, 1].max())
    if np.ptp(ring[:, 0]) >= 360:
        return -180.0, south, 180.0, north
    west = max(float(part[:, 0].min()) for part in parts)
    east = min(float(part[:, 0].max()) for part in parts)
    return west, south, east, north


def _doubled_area(ring: Ring) -> float:
    lon, lat = ring.T
    return float(np.sum(lon[:-1] * lat[1:] - lon[1:] * lat[:-1]))


def _anticlockwise(ring: Ring) -> Ring:
    return ring if _doubled_area(ring) > 0 else ring[::-1]
