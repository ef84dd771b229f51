"""Places of patches, many at once, against shapes found one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import shapely
from pyproj import Transformer

from cube.geo.boxes import bounds
from cube.geo.footprints import footprint, outline, rectangle
from cube.geo.polygons import geometry, polygons

SIZE = 256


def placed(code: int, lon: float, lat: float) -> tuple[int, list[float]]:
    x, y = Transformer.from_crs(4326, code, always_xy=True).transform(lon, lat)
    return code, [10.0, 0.0, x, 0.0, -10.0, y]


PLACES = {
    "munich": placed(32632, 11.5, 48.1),
    "chile": placed(32719, -71.0, -33.0),
    "fiji": placed(32760, 179.99, -17.0),
    "svalbard": placed(32633, 15.0, 78.0),
    "pole": (3413, [10.0, 0.0, -1280.0, 0.0, -10.0, 1280.0]),
    "nowhere": (0, [np.nan] * 6),
}
EPSG = np.array([code for code, _ in PLACES.values()])
TRANSFORM = np.array([transform for _, transform in PLACES.values()])


def test_polygons_are_the_footprints_found_one_by_one() -> None:
    for name, wkb, (code, transform) in zip(PLACES, polygons(EPSG, TRANSFORM, SIZE), PLACES.values(), strict=True):
        alone = footprint({code: rectangle(np.array([transform]), SIZE)}) if code else None
        if alone is None:
            assert wkb is None
            continue
        assert wkb is not None
        shape = geometry(wkb)
        assert shape["type"] == alone.geometry["type"], name
        corners = np.concatenate([np.reshape(ring, (-1, 2)) for ring in _rings(shape)])
        west, south, east, north = alone.bbox
        assert ((corners[:, 1] >= south - 1e-6) & (corners[:, 1] <= north + 1e-6)).all()
        if west <= east:
            assert ((corners[:, 0] >= west - 1e-6) & (corners[:, 0] <= east + 1e-6)).all()


@pytest.mark.parametrize("name", ["munich", "chile", "svalbard"])
def test_a_plain_patch_is_its_four_corners_anticlockwise(name: str) -> None:
    code, transform = PLACES[name]
    (wkb,) = polygons(np.array([code]), np.array([transform]), SIZE)
    assert wkb is not None
    (ring,) = geometry(wkb)["coordinates"]
    x, y, side = transform[2], transform[5], 10.0 * SIZE
    corners = np.array([(x, y), (x, y - side), (x + side, y - side), (x + side, y), (x, y)])
    expected = np.stack(Transformer.from_crs(code, 4326, always_xy=True).transform(*corners.T), axis=1)
    assert np.allclose(ring, expected, rtol=0, atol=1e-7)
    lon, lat = np.array(ring).T
    assert (lon[:-1] * lat[1:] - lon[1:] * lat[:-1]).sum() > 0


def test_boxes_hold_their_polygons() -> None:
    for box, wkb in zip(bounds(EPSG, TRANSFORM, SIZE), polygons(EPSG, TRANSFORM, SIZE), strict=True):
        if wkb is None:
            assert np.isnan(box).all()
            continue
        lon, lat = np.concatenate([np.reshape(ring, (-1, 2)) for ring in _rings(geometry(wkb))]).T
        west, south, east, north = box
        assert south <= lat.min()
        assert lat.max() <= north
        inside = (lon >= west) & (lon <= east) if west <= east else (lon >= west) | (lon <= east)
        assert inside.all()


def test_a_patch_across_180_degrees_has_two_parts_and_its_west_in_the_east() -> None:
    place = list(PLACES).index("fiji")
    wkb, box = polygons(EPSG, TRANSFORM, SIZE)[place], bounds(EPSG, TRANSFORM, SIZE)[place]
    assert wkb is not None
    assert geometry(wkb)["type"] == "MultiPolygon"
    assert len(geometry(wkb)["coordinates"]) == 2
    assert box[0] > 179
    assert box[2] < -179


def test_a_patch_around_the_pole_meets_every_longitude() -> None:
    west, south, east, north = bounds(EPSG, TRANSFORM, SIZE)[list(PLACES).index("pole")]
    assert (west, east, north) == (-180, 180, 90)
    assert 89.9 < south < 90


def test_patches_all_around_the_globe_have_the_rectangle_around_them() -> None:
    """Of a CRS of degrees: no ring around a pole, and no side of 180° is the wrong one."""
    transforms = np.array([[0.01, 0.0, west, 0.0, -0.01, 2.56] for west in (-180.0, 177.44)])
    whole = rectangle(transforms, SIZE)
    found = footprint({4326: whole}, {4326: outline(transforms, SIZE, 128)})
    assert found is not None
    assert found.bbox == (-180.0, 0.0, 180.0, 2.56)
    assert geometry_area(found.geometry) == pytest.approx(360 * 2.56)


def test_an_outline_is_cut_at_180_degrees_and_not_where_it_has_a_gap() -> None:
    code, first = placed(32760, 179.97, -17.0)
    east = [*first[:2], first[2] + 6 * 1280.0, *first[3:]]
    transforms = np.array([first, east])
    found = footprint({code: rectangle(transforms, SIZE)}, {code: outline(transforms, SIZE, 128)})
    assert found is not None
    assert found.geometry["type"] == "MultiPolygon"
    one = footprint({code: rectangle(transforms[:1], SIZE)})
    assert one is not None
    assert geometry_area(found.geometry) == pytest.approx(2 * geometry_area(one.geometry), rel=1e-4)


def geometry_area(shape: Mapping[str, Any]) -> float:
    return float(shapely.geometry.shape(shape).area)


def test_mirrored_patches_are_anticlockwise_too() -> None:
    code, transform = PLACES["munich"]
    mirrored = np.array([[10.0, 0.0, transform[2], 0.0, 10.0, transform[5]]])
    (wkb,) = polygons(np.array([code]), mirrored, SIZE)
    assert wkb is not None
    lon, lat = np.array(geometry(wkb)["coordinates"][0]).T
    assert (lon[:-1] * lat[1:] - lon[1:] * lat[:-1]).sum() > 0


def _rings(shape: dict[str, object]) -> list[list[list[float]]]:
    parts = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
    return [ring for part in parts for ring in part]  # type: ignore[attr-defined]
