"""Where scenes lie: from patches' transforms to polygons and boxes in degrees, as GeoJSON (RFC 7946) wants them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.geo.contours import contours
from cube.geo.projection import System, to_degrees

Rectangle = tuple[float, float, float, float]
"""West, south, east, north, or the same in the units of a CRS. In degrees, west > east says that it crosses 180°."""
Ring = NDArray[np.float64]
"""(point, 2) closed: the last point is the first one again."""

Outline = list[list[Ring]]
"""Polygons in the units of a CRS: each a ring around it, and rings around its holes."""

WORLD: Rectangle = (-180.0, -90.0, 180.0, 90.0)
_STEPS = 16
"""Points along each edge of a rectangle: straight lines of a CRS are curves in degrees."""
_EARTH = 6_371_000.0
"""Metres."""
_SAG = 0.1
"""Metres by which a straight line of longitude and latitude may leave a straight line of a CRS."""
_MOST = 64
"""Points that are added to one edge."""
_SLIVER = 1e-9
"""Square degrees of a part that comes from rounding alone: a strip of some centimetres."""
_DECIMALS = 7
"""Of a degree: about a centimetre, and the same with every PROJ."""


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


def outline(transforms: NDArray[np.float64], size: int, tile: int) -> Outline:
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
    origin = transforms[0, [2, 5]] + axes @ corner
    return [[ring @ axes.T + origin for ring in polygon] for polygon in contours(covered)]


def footprint(rectangles: Mapping[System, Rectangle], covered: Mapping[System, Outline] | None = None) -> Footprint | None:
    """Return the footprint of patches; None where none of them has a place on Earth.

    ``rectangles`` are those around them and ``covered`` what they cover, by their CRS. The rectangle stands
    for patches without an outline, and where it crosses 180° or holds a pole.
    """
    polygons, boxes = [], []
    for crs, bounds in rectangles.items():
        ring = _in_degrees(crs, _around(bounds))
        if not np.isfinite(ring).all():
            continue
        pieces = _cut(ring)
        if covered and crs in covered and len(pieces) == 1 and (np.abs(ring) < (180, 90)).all():
            rings = [[_in_degrees(crs, part) for part in polygon] for polygon in covered[crs]]
            polygons += rings
            boxes.append(_bounds(np.concatenate([exterior for exterior, *_ in rings])))
        else:
            polygons += [[piece] for piece in pieces]
            boxes.append(_box(ring, pieces))
    if not polygons:
        return None
    parts = [[_turned(ring, inside=bool(hole)).tolist() for hole, ring in enumerate(polygon)] for polygon in polygons]
    if len(parts) == 1:
        return Footprint(geometry={"type": "Polygon", "coordinates": parts[0]}, bbox=boxes[0])
    return Footprint(geometry={"type": "MultiPolygon", "coordinates": parts}, bbox=around(boxes))


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
    return round(float(start.min()), _DECIMALS), low, round(float(stop.max()) - 360, _DECIMALS), high


def _around(bounds: Rectangle) -> Ring:
    """Return a rectangle with many points along its edges."""
    west, south, east, north = bounds
    corners = np.array([(west, south), (east, south), (east, north), (west, north), (west, south)])
    steps, places = np.linspace(0, 4, 4 * _STEPS + 1), np.arange(5)
    return np.stack([np.interp(steps, places, axis) for axis in corners.T], axis=1)


def _in_degrees(crs: System, ring: Ring) -> Ring:
    """Return a ring of a CRS in degrees, its longitudes without jumps; near a pole it gets more points."""
    transformer = to_degrees(crs)
    lon, lat = transformer.transform(*ring.T)
    if not np.isfinite(lon).all():
        return np.full(ring.shape, np.nan)
    to_pole = _EARTH * np.tan(np.radians(90 - np.abs(lat).max()))
    lon, lat = transformer.transform(*_refined(ring, np.sqrt(8 * to_pole * _SAG)).T)
    lon = np.unwrap(lon, period=360)
    ring = np.round(np.stack([lon, lat], axis=1), _DECIMALS)
    return _with_pole(ring) if abs(lon[-1] - lon[0]) > 180 else ring


def _refined(ring: Ring, longest: float) -> Ring:
    """Return a ring with points added so that no edge is longer, within limits."""
    parts = []
    for start, stop in pairwise(ring):
        count = np.clip(np.ceil(np.hypot(*(stop - start)) / max(longest, 1e-9)), 1, _MOST)
        parts.append(np.linspace(start, stop, int(count), endpoint=False))
    return np.vstack([*parts, ring[-1:]])


def _with_pole(ring: Ring) -> Ring:
    """Close a ring that goes once around the Earth by way of the pole inside it; it begins and ends at 180°."""
    pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
    edge = 180.0 if ring[-1, 0] > ring[0, 0] else -180.0
    around = ring[:-1] - np.array([360.0, 0.0]) * np.floor((ring[:-1, :1] + 180) / 360)
    jump = int(np.argmax(np.abs(np.diff(around[:, 0], prepend=around[-1, 0]))))
    around = np.roll(around, -jump, axis=0)
    (lon, lat), (last_lon, last_lat) = around[0], around[-1]
    share = (edge - last_lon) / (lon + 2 * edge - last_lon)
    crossing = round(last_lat + share * (lat - last_lat), _DECIMALS)
    return np.vstack([(-edge, crossing), around, (edge, crossing), (edge, pole), (-edge, pole), (-edge, crossing)])


def _cut(ring: Ring) -> list[Ring]:
    """Return the parts of a ring between 180° west and 180° east."""
    parts = []
    for turn in (-360.0, 0.0, 360.0):
        part = _clip(_clip(ring + np.array([turn, 0.0]), -180.0, keep_above=True), 180.0, keep_above=False)
        parts += [lobe for lobe in _lobes(part) if abs(_doubled_area(lobe)) > _SLIVER]
    return parts


def _lobes(part: Ring) -> list[Ring]:
    """Return the lobes of a part that touches 180° more than twice on the way around, as an edge along it may by rounding."""
    on_edge = np.flatnonzero(np.abs(part[:-1, 0]) == 180)
    if len(on_edge) < 2 or np.ptp(part[:, 0]) == 360:
        return [part] if len(part) else []
    rolled = np.roll(part[:-1], -on_edge[0], axis=0)
    stops = [*(on_edge - on_edge[0]).tolist(), len(rolled)]
    closed = np.vstack([rolled, rolled[:1]])
    chains = [closed[start : stop + 1] for start, stop in pairwise(stops) if stop - start > 1]
    turning = np.sign(_doubled_area(part))
    return [
        np.vstack([chain, chain[:1]]) for chain in chains if np.sign(_doubled_area(np.vstack([chain, chain[:1]]))) == turning
    ]


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


def _box(ring: Ring, parts: list[Ring]) -> Rectangle:
    whole = _bounds(ring)
    if np.ptp(ring[:, 0]) >= 360:
        return -180.0, whole[1], 180.0, whole[3]
    west = max(float(part[:, 0].min()) for part in parts)
    east = min(float(part[:, 0].max()) for part in parts)
    return west, whole[1], east, whole[3]


def _bounds(ring: Ring) -> Rectangle:
    west, south = ring.min(axis=0).tolist()
    east, north = ring.max(axis=0).tolist()
    return west, south, east, north


def _doubled_area(ring: Ring) -> float:
    lon, lat = ring.T
    return float(np.sum(lon[:-1] * lat[1:] - lon[1:] * lat[:-1]))


def _turned(ring: Ring, *, inside: bool) -> Ring:
    """Return a ring anticlockwise, or clockwise where it goes around a hole."""
    return ring if (_doubled_area(ring) > 0) != inside else ring[::-1]
