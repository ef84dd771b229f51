"""The grammar of ``--where``."""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.errors import FilterError, RequestError
from cube.query.filters import class_column, select
from cube.query.grammar import Clause, Every, parse

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
        ("season=dry or season=cold", [0, 1, 4]),
        ("season in (dry, cold)", [0, 1, 4]),
        ("season not in (dry, cold)", [2, 3]),
        ("not season=dry", [2, 3, 4]),
        ("not (season=dry or scene=1)", [3, 4]),
        ("not not scene<7", [0, 2]),
        ("scene=1 or scene=7 and season=dry", [0, 2]),
        ("(scene=1 or scene=7) and season=wet", [2, 3]),
        ("patch=*_2", [1, 3]),
        ("patch!=a_*", [2, 3, 4]),
        ("patch in (a_?, c_1)", [0, 1, 4]),
        ('season="dry"', [0, 1]),
        ("season in ('dry', \"cold\")", [0, 1, 4]),
        ("not(scene>7)", [0, 2, 3]),
        ("season=dry AND scene=1 Or NOT scene<40", [0, 1, 4]),
        ("season NOT IN (dry, cold)", [2, 3]),
        (" ( ( season=dry ) ) ", [0, 1]),
    ],
)
def test_selection(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(select(text, FIELDS)).tolist() == rows


def test_parsing() -> None:
    assert parse("a=1,2 and b<=x y") == Every((Clause("a", "=", ("1", "2")), Clause("b", "<=", ("x y",))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read ''"),
        ("season", "cannot read 'season': expected field, operator and value"),
        ("season=", "cannot read"),
        ("=dry", "cannot read"),
        ("season=dry or", "no season is 'dry or'"),
        ("(season=dry", "a parenthesis is not closed"),
        ("season=dry)", "cannot read ')'"),
        ("season in (dry", "cannot read"),
        ("season in ()", "cannot read"),
        ("not", "cannot read"),
        ("patch=*_9", "no patch is '*_9'"),
        ("(" * 60 + "scene=1" + ")" * 60, "more than 50 parentheses"),
        ("not " * 1000 + "scene=1", "more than 50 parentheses or nots"),
        ("scene=1 and " * 5000 + "scene=1", "more than 20,000"),
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
        ("scene between 1", "cannot read 'scene between 1'"),
        ("scene between 1 or 2", "cannot read"),
        ("scene between and 2", "cannot read"),
        ("scene is", "cannot read"),
        ("scene is nul", "cannot read"),
        ("scene is nullable", "cannot read"),
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
    assert parse(f"season=dry and {field}>0.3").parts[1] == Clause(field, ">", ("0.3",))


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


def test_a_class_is_named_as_the_page_shows_it() -> None:
    assert parse('class:"Urban and Built-up Lands">0.3') == Clause("class:urban_and_built_up_lands", ">", ("0.3",))
    assert parse('class:A:"Open Forests">=0.5') == Clause("class:A:open_forests", ">=", ("0.5",))


WORDS, NUMBERS = ["dry", "wet", "cold"], [1, 7, 40]


def between(word: str, low: int, high: int) -> tuple[str, str]:
    theirs = f"{low} <= scene <= {high}"
    return f"scene {word}{low} and {high}", f"not ({theirs})" if word.startswith("not") else theirs


def compared(field: str, sign: str, value: object) -> tuple[str, str]:
    return f"{field}{sign}{value}", f"{field} {'==' if sign == '=' else sign} {value!r}"


def joined(shape: str, *parts: tuple[str, str]) -> tuple[str, str]:
    ours, theirs = zip(*parts, strict=True)
    return shape.format(*ours), shape.format(*theirs)


COMPARISONS = st.one_of(
    st.builds(compared, st.just("season"), st.sampled_from(["=", "!="]), st.sampled_from(WORDS)),
    st.builds(compared, st.just("scene"), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), st.sampled_from(NUMBERS)),
    st.builds(between, st.sampled_from(["between ", "not between "]), st.sampled_from(NUMBERS), st.sampled_from(NUMBERS)),
    st.lists(st.sampled_from(WORDS), min_size=1).map(lambda words: (f"season in ({', '.join(words)})", f"season in {words}")),
)
EXPRESSIONS = st.recursive(
    COMPARISONS,
    lambda below: st.one_of(
        st.builds(joined, st.sampled_from(["({} and {})", "({} or {})", "({} and not {})"]), below, below),
        st.builds(joined, st.sampled_from(["({} or {} and {})", "(not {} and {} or {})"]), below, below, below),
        st.builds(joined, st.just("not ({})"), below),
    ),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_it_selects_what_pandas_does(texts: tuple[str, str]) -> None:
    frame = pd.DataFrame({"season": FIELDS["season"], "scene": FIELDS["scene"]})
    expected = frame.query(texts[1], engine="python").index.tolist()
    assert np.flatnonzero(select(texts[0], FIELDS)).tolist() == expected


@pytest.mark.parametrize(
    "text", ["a=b" + " " * 19_000 + "c", "a=b" + " an" * 6_000, "a" + " " * 19_000 + "not", "a" + " " * 19_000 + "=1"]
)
def test_no_filter_takes_long_to_read(text: str) -> None:
    begun = time.process_time()
    with suppress(FilterError):
        parse(text)
    assert time.process_time() - begun < 1  # some were read in 8 s


GAPS = {
    "lat": np.array([1.0, np.nan, 3.0]),
    "class": np.array(["urban", None, ""], object),
    "split": np.array(["train", "", "test"]),
    "scene": np.array([1, 2, 3]),
    "start": np.array(["2017-06-01", "NaT", "2017-12-01"], "datetime64[D]"),
}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("lat is null", [1]),
        ("lat IS NOT NULL", [0, 2]),
        ("not lat is null", [0, 2]),
        ("class is null", [1, 2]),
        ("split is null or scene=3", [1, 2]),
        ("(scene is null)", []),
        ("start is null", [1]),
        ("start>=2017-06-02", [2]),
        ("start=2017-06-01", [0]),
        ("start between 2017-06-01 and 2017-12-01", [0, 2]),
        ("lat not between 2 and 4", [0]),
        ("lat between 0 and 1.5 and split=train", [0]),
    ],
)
def test_what_is_not_there_and_dates(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(select(text, GAPS)).tolist() == rows


@pytest.mark.parametrize("value", ["summer", "2017", "2017-13-01", "17-06-01", "1"])
def test_what_is_no_date(value: str) -> None:
    with pytest.raises(FilterError, match=r"start is a date, .* is none: write one such as 2021-06-01"):
        select(f"start>{value}", GAPS)
