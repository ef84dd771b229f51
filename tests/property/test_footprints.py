"""Footprints, judged by PROJ and GEOS: nothing of a scene lies outside, and nothing beyond a scene lies inside.

Scenes lie anywhere on Earth: across 180°, near and around the poles, with holes, and in a UTM zone that is not the one of their
longitude.
"""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from cube.geo.footprints import Footprint, footprint, outline, rectangle

PIXEL, SIZE, TILE = 10.0, 256, 128
STRIDE = PIXEL * TILE
CLOSE = 0.15
"""Metres: footprints are rounded to 1e-7 degrees, and have straight lines where PROJ has curves."""
POLE = 5_000.0
"""Metres from a pole within which straight lines of longitude and latitude follow an outline less closely."""

places = st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30)
"""(row, column) of patches at the stride of a tile."""
zones = st.tuples(st.integers(1, 60), st.booleans(), st.floats(-9, 9), st.floats(0, 84))
"""Zone, south or not, degrees from the zone's middle (its own half width is 3), and from the equator."""


@settings(max_examples=60, deadline=None)
@given(zone=zones, cells=places)
def test_scenes_of_utm_zones(zone: tuple[int, bool, float, float], cells: set[tuple[int, int]]) -> None:
    number, south, offset, latitude = zone
    code = (32700 if south else 32600) + number
    longitude = (number * 6 - 183 + offset + 180) % 360 - 180
    forward = Transformer.from_crs(4326, code, always_xy=True)
    origin = forward.transform(longitude, min(latitude, 80.0) * (-1 if south else 1) if south else latitude)
    check(code, origin, cells)


@settings(max_examples=40, deadline=None)
@given(
    south=st.booleans(),
    step=st.floats(-9_000, 9_000),
    latitude=st.floats(-80, 83),
    cells=places,
    zone=st.sampled_from([60, 1]),
)
def test_scenes_around_180_degrees(
    *, south: bool, step: float, latitude: float, cells: set[tuple[int, int]], zone: int
) -> None:
    code = (32700 if south else 32600) + zone
    x, y = Transformer.from_crs(4326, code, always_xy=True).transform(180.0, latitude)
    check(code, (x + step, y), cells)


@settings(max_examples=40, deadline=None)
@given(code=st.sampled_from([32661, 32761, 3413, 3031]), x=st.floats(-5e5, 5e5), y=st.floats(-5e5, 5e5), cells=places)
def test_scenes_near_the_poles(code: int, x: float, y: float, cells: set[tuple[int, int]]) -> None:
    middle = 2e6 if code in (32661, 32761) else 0.0
    check(code, (middle + x, middle + y), cells)


@settings(max_examples=20, deadline=None)
@given(code=st.sampled_from([32661, 32761]), x=st.floats(500, 8 * STRIDE - 500), y=st.floats(500, 8 * STRIDE - 500))
def test_a_scene_with_the_pole_in_it_has_the_pole(code: int, x: float, y: float) -> None:
    full = {(row, column) for row in range(7) for column in range(7)}
    transforms, bounds = place(full, (2e6 - x, 2e6 + y))
    found = footprint({code: bounds}, {code: outline(transforms, SIZE, TILE)})
    assert found is not None
    pole = 90.0 if code == 32661 else -90.0
    shape = shapely.geometry.shape(found.geometry)
    assert shape.is_valid
    assert all(shape.covers(shapely.Point(lon, pole)) for lon in (-180, -77, 0, 123, 180))
    assert (found.bbox[0], found.bbox[2]) == (-180, 180)
    assert pole in found.bbox


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6))
def test_outlines_cover_the_cells_and_no_others(rows: list[list[bool]]) -> None:
    covered = np.array(rows)
    assume(covered.any())
    cells = np.argwhere(covered)
    whole = outline(np.array([(1.0, 0.0, column, 0.0, 1.0, row) for row, column in cells]), 1, 1)
    assert whole.is_valid
    for row, column in np.ndindex(covered.shape):
        assert whole.contains(shapely.Point(column + 0.5, row + 0.5)) == covered[row, column]
    assert whole.area == covered.sum()
    for ring in shapely.get_rings(shapely.get_parts(whole)):
        assert (
            np.abs(np.diff(shapely.get_coordinates(ring), axis=0)).sum(axis=1) == 1
        ).all()  # a point at each corner of a tile


def place(cells: set[tuple[int, int]], origin: tuple[float, float]) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Return (patch, 6) transforms, and the rectangle around the patches."""
    corners = [(origin[0] + STRIDE * column, origin[1] - STRIDE * row) for row, column in sorted(cells)]
    transforms = np.array([(PIXEL, 0.0, x, 0.0, -PIXEL, y) for x, y in corners])
    return transforms, rectangle(transforms, SIZE)


def check(code: int, origin: tuple[float, float], cells: set[tuple[int, int]]) -> None:
    transforms, bounds = place(cells, origin)
    back = Transformer.from_crs(4326, code, always_xy=True)
    pole = back.transform(0.0, 90.0 if origin_latitude(code, origin) > 0 else -90.0)
    assume(shapely.box(*bounds).distance(shapely.Point(pole)) > POLE)
    found = footprint({code: bounds}, {code: outline(transforms, SIZE, TILE)})
    assert found is not None
    shape = shapely.geometry.shape(found.geometry)
    assert shape.is_valid
    squares = shapely.union_all([shapely.box(x, y - 2 * STRIDE, x + 2 * STRIDE, y) for x, y in transforms[:, [2, 5]]])
    nothing_outside(code, shape, squares)
    in_metres = shapely.transform(shape, lambda points: np.stack(back.transform(*points.T), axis=1))
    assert max(squares.distance(shapely.Point(point)) for point in shapely.get_coordinates(in_metres)) < CLOSE
    assert abs(in_metres.area / squares.area - 1) < 1e-4
    assert_box(found, shape)


def origin_latitude(code: int, origin: tuple[float, float]) -> float:
    return float(Transformer.from_crs(code, 4326, always_xy=True).transform(*origin)[1])


def cut(found: Footprint) -> bool:
    """Tell whether a footprint touches 180°, where the rectangle stands for the patches."""
    points = shapely.get_coordinates(shapely.geometry.shape(found.geometry))
    return bool((np.abs(points[:, 0]) == 180).any())


def nothing_outside(code: int, shape: shapely.Geometry, squares: shapely.Geometry) -> None:
    """Every corner of every tile lies in the footprint."""
    x, y = shapely.get_coordinates(shapely.segmentize(squares, STRIDE)).T
    lon, lat = Transformer.from_crs(code, 4326, always_xy=True).transform(x, y)
    metres = np.min([metres_to(shape, lon + turn, lat) for turn in (-360, 0, 360)], axis=0)
    assert metres.max() < CLOSE


def metres_to(shape: shapely.Geometry, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Return how far points lie from a shape; 0 inside."""
    points = shapely.points(lon, lat)
    nearest = shapely.get_coordinates(shapely.shortest_line(points, shape)).reshape(-1, 2, 2)
    _, _, metres = Geod(ellps="WGS84").inv(*nearest[:, 0].T, *nearest[:, 1].T)
    return np.where(shapely.covers(shape, points), 0.0, metres)


def assert_box(found: Footprint, shape: shapely.Geometry) -> None:
    west, south, east, north = found.bbox
    lon, lat = shapely.get_coordinates(shape).T
    assert (south, north) == (lat.min(), lat.max())
    assert lon.min() >= -180
    assert lon.max() <= 180
    inside = (west <= lon) & (lon <= east) if west <= east else (lon >= west) | (lon <= east)
    assert inside.all()
    assert (east - west) % 360 < 90 or cut(found)
