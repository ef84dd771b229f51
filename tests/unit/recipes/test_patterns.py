"""Patterns of recipes: none hangs a scan, none asks for all memory, and each error names what it is about."""

from __future__ import annotations

import time

import pytest

from cube.errors import RecipeError
from cube.recipes.patterns import compiled, whole_match


@pytest.mark.parametrize("pattern", ["((a+)+)+b", "(a|a)*b", r"(\w*)*-"])
def test_repeats_of_repeats_are_seen_through(pattern: str) -> None:
    assert whole_match(pattern, "a" * 60 + "c") is None


def test_a_pattern_that_takes_too_long_is_named_with_the_file() -> None:
    started = time.process_time()
    with pytest.raises(RecipeError, match=r"'\(a\|aa\)\+\$' takes more than 1 s for the name 'a{60}c'"):
        whole_match("(a|aa)+$", "a" * 60 + "c")
    assert time.process_time() - started < 30


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("a{99999999999}", "multiply to more than"),
        ("a{1000000000}", "multiply to more than"),
        ("((a{1000}){1000}){1000}", "multiply to more than"),
        ("(" * 5000 + ")" * 5000, "too many groups|too many levels"),
        ("(a", "missing"),
        (r"(?P<1>a)", "bad character in group name"),
        (r"\p{L}", "bad escape"),
    ],
)
def test_what_is_no_pattern_is_said(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compiled(pattern)


def test_names_are_matched_as_by_the_standard_library() -> None:
    pattern = r"ROIs(?P<season>\d{4}_[a-z]+)_(?P<modality>s1|s2|lc)_(?P<scene>\d{1,3})_p(?P<patch>\d+)\.tif"
    match = whole_match(pattern, "ROIs0001_spring_s1_7_p30.tif")
    assert match.group("season", "modality", "scene", "patch") == ("0001_spring", "s1", "7", "30")
    assert whole_match(pattern, "ROIs0001_spring_s1_7_p30.tif.aux") is None
    assert whole_match(pattern, "ROIs0001_spring_s1_7_p30\udcff.tif") is None
