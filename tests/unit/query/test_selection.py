from __future__ import annotations

import numpy as np
import pytest
from pyproj import Transformer

from cube.errors import FilterError, RequestError
from cube.query.choose import as_slice, select_patches

IDS = np.array(["a", "b", "c", "d"])
"""Two patches near Munich, one that crosses the antimeridian, one near the pole."""


def labels() -> dict[str, np.ndarray]:
    epsg = np.array([32632, 32632, 32760, 32633])
    corners = [(600000.0, 5400000.0), (602560.0, 5400000.0)]
    to_utm = Transformer.from_crs(4326, 32760, always_xy=True)
    corners.append(to_utm.transform(179.99, -17.0))
    corners.append(Transformer.from_crs(4326, 32633, always_xy=True).transform(15.0, 83.5))
    transform = np.array([[10.0, 0, x, 0, -10.0, y] for x, y in corners])
    return {
        "patch": IDS,
        "scene": np.array([1, 1, 2, 3]),
        "season": np.array(["spring", "spring", "fall", "fall"]),
        "epsg": epsg,
        "transform": transform,
    }


def chosen(where: str | None = None, bbox: tuple[float, float, float, float] | None = None) -> str:
    known = labels()
    return "".join(IDS[select_patches(known.__getitem__, list(known), where, bbox, size=256)])


@pytest.mark.parametrize(
    ("where", "expected"),
    [(None, "abcd"), ("season=fall", "cd"), ("scene<=2 and season=fall", "c"), ("patch=b,d", "bd"), ("scene>5", "")],
)
def test_filters_choose(where: str | None, expected: str) -> None:
    assert chosen(where) == expected


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ((10.3, 48.7, 10.365, 48.75), "a"),
        ((10.3, 48.7, 10.5, 48.75), "ab"),
        ((179.0, -18.0, -179.0, -16.0), "c"),
        ((-180.0, -18.0, -179.99, -16.0), "c"),
        ((179.995, -18.0, 180.0, -16.0), "c"),
        ((-179.9, -18.0, 179.9, -16.0), ""),
        ((-180.0, 83.0, 180.0, 90.0), "d"),
        ((-180.0, -90.0, 180.0, 90.0), "abcd"),
    ],
)
def test_boxes_choose(bbox: tuple[float, float, float, float], expected: str) -> None:
    assert chosen(bbox=bbox) == expected


def test_both_must_hold() -> None:
    assert chosen("patch=b,c", (-180.0, -90.0, 180.0, 0.0)) == "c"


def test_only_the_labels_named_are_read() -> None:
    known, read = labels(), []
    select_patches(lambda name: read.append(name) or known[name], list(known), "season=fall")
    assert sorted(read) == ["patch", "season"]


@pytest.mark.parametrize("bbox", [(0.0, 10.0, 1.0, 5.0), (-200.0, 0.0, 0.0, 1.0), (0.0, -91.0, 0.0, 1.0)])
def test_a_box_that_is_none_is_refused(bbox: tuple[float, float, float, float]) -> None:
    with pytest.raises(RequestError, match="is no box"):
        chosen(bbox=bbox)


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(FilterError, match="known are"):
        chosen("colour=red")
    with pytest.raises(FilterError, match="several values"):
        chosen("transform=1")
    with pytest.raises(RequestError, match="no place on Earth"):
        select_patches(lambda _: IDS, ["patch"], None, (0.0, 0.0, 1.0, 1.0))


def test_classes_are_asked_for_apart() -> None:
    known, asked = labels(), []

    def shares(field: str) -> np.ndarray:
        asked.append(field)
        return np.array([0.5, 0.0, np.nan, 0.4])

    rows = select_patches(known.__getitem__, list(known), "class:Urban>0.3 and scene<3", shares=shares)
    assert IDS[rows].tolist() == ["a"]
    assert asked == ["class:Urban"]
    select_patches(known.__getitem__, list(known), "scene<3", shares=shares)
    assert asked == ["class:Urban"]
    with pytest.raises(FilterError, match="unknown field 'class:Urban'"):
        select_patches(known.__getitem__, list(known), "class:Urban>0.3")


def test_runs_become_slices() -> None:
    assert as_slice(np.array([4, 5, 6])) == slice(4, 7)
    assert np.array_equal(as_slice(np.array([4, 6])), [4, 6])
    assert len(as_slice(np.array([], np.int64))) == 0
