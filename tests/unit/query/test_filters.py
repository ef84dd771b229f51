"""The grammar of ``--where``."""

from __future__ import annotations

import numpy as np
import pytest

from cube.errors import FilterError, RequestError
from cube.query.filters import Clause, class_column, parse, select

FIELDS = {
    "season": np.array(["dry", "dry", "wet", "wet", "cold"]),
    "scene": np.array([1, 40, 1, 7, 40]),
    "patch": np.array(["a_1", "a_2", "b_1", "b_2", "c_1"], object),
    "split": np.array(["train", "test", "train", "train", "test"]),
}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("season=dry", [0, 1]),
        ("season=dry,cold", [0, 1, 4]),
        ("season = dry , cold", [0, 1, 4]),
        ("season!=dry", [2, 3, 4]),
        ("season!=dry,cold", [2, 3]),
        ("scene=1", [0, 2]),
        ("scene=1,7", [0, 2, 3]),
        ("scene!=1,7", [1, 4]),
        ("scene<7", [0, 2]),
        ("scene<=7", [0, 2, 3]),
        ("scene>7", [1, 4]),
        ("scene>=7", [1, 3, 4]),
        ("scene>=7.5", [1, 4]),
        ("scene=99", []),
        ("patch=a_2,c_1", [1, 4]),
        ("season=dry,wet and split=train and scene<=6", [0, 2]),
        ("season=wet\tand  scene>1", [3]),
    ],
)
def test_selection(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(select(text, FIELDS)).tolist() == rows


def test_parsing() -> None:
    assert parse("a=1,2 and b<=x y") == (Clause("a", "=", ("1", "2")), Clause("b", "<=", ("x y",)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read ''"),
        ("season", "cannot read 'season': expected field, operator and value"),
        ("season=", "cannot read"),
        ("=dry", "cannot read"),
        ("season=dry or scene=1", "cannot read 'season=dry or scene=1'"),
        ("season==dry", "cannot read"),
        ("season=dry and", "no season is 'dry and'"),
        ("season=dry and and scene=1", "cannot read"),
        ("season<dry", "season is a text: only = and != compare it"),
        ("scene<1,2", "only = and != take several values"),
        ("sesaon=dry", "unknown field 'sesaon'; did you mean 'season'"),
        ("colour=dry", "unknown field 'colour'; known are patch, scene, season, split"),
        ("season=dri", "no season is 'dri'; did you mean 'dry'"),
        ("season=Dry", "no season is 'Dry'; did you mean 'dry'"),
        ("season=humid", "no season is 'humid'; known are cold, dry, wet"),
        ("season=dry,,wet", "no season is ''"),
        ("scene=one", "scene is a number, 'one' is none"),
        ("scene=1,", "scene is a number, '' is none"),
        ("scene=nan", "scene is a number, 'nan' is none"),
        ("__import__('os')=1", "cannot read"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(FilterError) as caught:
        select(text, FIELDS)
    assert message in str(caught.value)
    assert isinstance(caught.value, RequestError)


COLUMNS = ["class:A:urban_and_built_up_lands", "class:A:open_forests", "class:A:forests", "class:B:urban", "class:B:open_water"]


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("class:Urban", "class:A:urban_and_built_up_lands"),
        ("class:URBAN_AND", "class:A:urban_and_built_up_lands"),
        ("class:forests", "class:A:forests"),
        ("class:b:Urban", "class:B:urban"),
        ("class:open", "class:A:open_forests"),
        ("class:open_w", "class:B:open_water"),
    ],
)
def test_classes_are_named_by_their_beginning(field: str, column: str) -> None:
    assert class_column(field, COLUMNS) == column
    assert parse(f"season=dry and {field}>0.3")[1] == Clause(field, ">", ("0.3",))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("class:u", "no class"),
        ("class:C:Urban", "no class is 'class:C:Urban'"),
        ("class:forrests", "did you mean 'class:forests'"),
    ],
)
def test_classes_that_are_not_there(field: str, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        class_column(field, [column for column in COLUMNS if "urban" not in column])


def test_a_class_that_may_be_several_is_refused() -> None:
    with pytest.raises(FilterError, match="may be class:A:open_forests, class:A:open_savannas: write more"):
        class_column("class:Open", [*COLUMNS, "class:A:open_savannas"])
