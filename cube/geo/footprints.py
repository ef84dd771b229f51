"""Where scenes lie: from patches' transforms to polygons and boxes in degrees, as GeoJSON (RFC 7946) wants them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cube.geo.projection import DECIMALS, System, to_degrees

Rectangle = tuple[float, float, float, float]
"""West, south, east, north, or the same in the units of a CRS. In degrees, west > east says that it crosses 180°."""

Points = NDArray[np.float64]
"""(point, 2)."""
Shape = Any
"""A shapely geometry: a polygon, or several, in the units of a CRS."""

_AROUND = 359.0
"""Degrees: what spans more is shown by its rectangle, as longitudes of an outline would be ambiguous."""
_MARGIN = 1e-5
"""Degrees by which an outline may leave its rectangle, by rounding."""
WORLD: Rectangle = (-180.0, -90.0, 180.0, 90.0)
_STEPS = 16
"""Parts of each edge of a rectangle: straight lines of a CRS are curves in degrees."""
_EARTH = 6_371_000.0
"""Metres."""
_SAG = 0.1
"""Metres by which a straight line of longitude and latitude may leave a straight line of a CRS."""
_MOST = 64
"""Points added to one edge at most, however near the pole."""
_SLIVER = 1e-9
"""Square degrees of a part that comes from rounding alone: a strip of some centimetres."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """A place on Earth."""

    geometry: Mapping[str, Any]
    """GeoJSON Polygon, or MultiPolygon where it is cut at 180° or has several parts."""
    bbox: Rectangle


def rectangle(transforms: NDArray[np.float64], size: int) -> Rectangle:
    """Return the rectangle around patches in the units of their CRS.

    ``transforms`` is (patch, 6) as rasterio orders an affine, ``size`` the patches' side in pixels.
    """
    a, b, c, d, e, f = transforms.T
    corners = [(0, 0), (size, 0), (size, size), (0, size)]
    x = np.stack([a * column + b * row + c for column, row in corners])
    y = np.stack([d * column + e * row + f for column, row in corners])
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def outline(transforms: NDArray[np.float64], size: int, tile: int) -> Shape:
    """Return what patches cover together, holes and all, in the units of their CRS; every corner of a tile on it is a point.

    ``transforms`` is (patch, 6). The patches lie on one grid, whole tiles apart; ``size`` and ``tile`` are sides in pixels.
    """
    a, b, _, d, e, _ = transforms[0]
    axes = np.array([[a, b], [d, e]]) * tile
    cells = np.rint((transforms[:, [2, 5]] - transforms[0, [2, 5]]) @ np.linalg.inv(axes).T).astype(np.int64)
    corner, across = cells.min(axis=0), size // tile
    columns, rows = (cells - corner).T
    covered = np.zeros((rows.max() + across, columns.max() + across), bool)
    for row, column in np.ndindex(across, across):
        covered[rows + row, columns + column] = True
    row, column = np.argwhere(covered).T
    cover = shapely.coverage_union_all(shapely.box(column, row, column + 1, row + 1))
    return shapely.transform(cover, lambda points: (points + corner) @ axes.T + transforms[0, [2, 5]])


def footprint(rectangles: Mapping[System, Rectangle], covered: Mapping[System, Shape] | None = None) -> Footprint | None:
    """Return the footprint of patches; None where none of them has a place on Earth.

    ``rectangles`` are those around them and ``covered`` what they cover, by their CRS. The rectangle stands
    for patches without an outline, where it holds a pole and where it spans the globe.
    """
    parts, boxes = [], []
    for crs, bounds in rectangles.items():
        around_all = _refined(crs, shapely.segmentize(shapely.box(*bounds), max(np.subtract(bounds[2:], bounds[:2])) / _STEPS))
        if around_all is None:
            continue
        ring = _in_degrees(crs, shapely.get_coordinates(around_all))
        ring[:, 0] = np.unwrap(ring[:, 0], period=360)
        if holds_pole := abs(ring[-1, 0] - ring[0, 0]) > 180:
            found = _with_pole(ring)
        elif covered and crs in covered and np.ptp(ring[:, 0]) < _AROUND:
            found = shapely.transform(_refined(crs, covered[crs]), partial(_in_degrees, crs, west=ring[:, 0].min() - _MARGIN))
        else:
            found = shapely.Polygon(ring)
        parts += _cut(found)
        boxes.append(_box(found, holds_pole=holds_pole))
    if not parts:
        return None
    whole = shapely.orient_polygons(shapely.normalize(parts[0] if len(parts) == 1 else shapely.multipolygons(parts)))
    return Footprint(geometry=geojson(whole), bbox=around(boxes))


def geojson(shape: Shape) -> dict[str, Any]:
    """Return a polygon, or several, as GeoJSON."""
    found: dict[str, Any] = json.loads(shapely.to_geojson(shape))
    return found


def around(boxes: Iterable[Rectangle]) -> Rectangle:
    """Return the box around boxes in degrees; one that would cross 180° and span half the globe goes all around it."""
    west, south, east, north = np.array(list(boxes)).T
    low, high = float(south.min()), float(north.max())
    if (west <= east).all():
        return float(west.min()), low, float(east.max()), high
    start = west % 360
    stop = start + (east - west) % 360
    if stop.max() - start.min() > 180:
        return -180.0, low, 180.0, high
    return round(float(start.min()), DECIMALS), low, round(float(stop.max()) - 360, DECIMALS), high


def _refined(crs: System, shape: Shape) -> Shape | None:
    """Return a shape of a CRS with more points near a pole; None where it has no place on Earth."""
    points = shapely.get_coordinates(shape)
    lat = _in_degrees(crs, points)[:, 1]
    if not np.isfinite(lat).all():
        return None
    to_pole = _EARTH * np.tan(np.radians(90 - np.abs(lat).max()))
    return shapely.segmentize(shape, max(np.sqrt(8 * to_pole * _SAG), np.hypot(*(points[1] - points[0])) / _MOST))


def _in_degrees(crs: System, points: Points, *, west: float | None = None) -> Points:
    """Return points of a CRS in degrees; their longitudes begin at ``west`` where it is given."""
    lon, lat = to_degrees(crs).transform(*points.T)
    if west is not None:
        lon = west + (lon - west) % 360
    return np.round(np.stack([lon, lat], axis=1), DECIMALS)


def _with_pole(ring: Points) -> Shape:
    """Return a ring that goes once around the Earth, as a polygon that begins and ends at 180° and has the pole in it."""
    lon, order = np.unique((ring[:-1, 0] + 180) % 360 - 180, return_index=True)
    lat = ring[order, 1]
    pole = 90.0 if lat.mean() > 0 else -90.0
    crossing = round(float(np.interp(180.0, [lon[-1], lon[0] + 360], [lat[-1], lat[0]])), DECIMALS)
    edge = [(-180.0, crossing), *zip(lon.tolist(), lat.tolist(), strict=True), (180.0, crossing)]
    return shapely.Polygon([*edge, (180.0, pole), (-180.0, pole)])


def _cut(shape: Shape) -> list[Shape]:
    """Return the polygons of a shape between 180° west and 180° east."""
    parts = []
    for turn in (-360.0, 0.0, 360.0):
        inside = shape.intersection(shapely.box(-180.0 - turn, -90.0, 180.0 - turn, 90.0))
        moved = shapely.transform(shapely.affinity.translate(inside, turn), partial(np.round, decimals=DECIMALS))
        parts += [part for part in shapely.get_parts(moved) if part.area > _SLIVER]
    return parts


def _box(shape: Shape, *, holds_pole: bool) -> Rectangle:
    west, south, east, north = shape.bounds
    if holds_pole:
        return -180.0, south, 180.0, north
    return round(west + 360 * (west < -180), DECIMALS), south, round(east - 360 * (east > 180), DECIMALS), north
