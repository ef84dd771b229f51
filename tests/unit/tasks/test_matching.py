"""Pairs of windows: which match, which do not, and where they lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.errors import RequestError
from cube.tasks import correlation, matching_pairs, search_windows, windows

SCENES = ["spring1"] * 5 + ["summer7"] * 4 + ["fall3"]


@given(seed=st.integers(0, 2**32), hard=st.floats(0, 1), side=st.integers(1, 40))
def test_half_of_the_pairs_match_and_the_others_never(seed: int, hard: float, side: int) -> None:
    pairs = matching_pairs(SCENES, 48, side=side, hard=hard if side < 30 else 0.0, seed=seed)
    same = (pairs.first == pairs.second).all(axis=1)
    assert pairs.matches.tolist() == [1.0] * 10 + [0.0] * 10
    assert same[:10].all()
    assert not same[10:].any()
    for places in (pairs.first, pairs.second):
        assert places[:, 1:].min() >= 0
        assert places[:, 1:].max() + side <= 48


def test_hard_pairs_are_of_one_scene_and_elsewhere() -> None:
    scene = np.array(SCENES)
    pairs = matching_pairs(SCENES, 48, side=16, hard=0.6, seed=3)
    assert pairs.hard.sum() == 6
    wrong = pairs.matches == 0
    one = scene[pairs.first[:, 0]] == scene[pairs.second[:, 0]]
    assert (one[wrong] == pairs.hard[wrong]).all()
    alone = matching_pairs(["only"], 48, side=16, hard=1.0, seed=5)
    (_, top, left), (_, other_top, other_left) = alone.first[1], alone.second[1]
    assert max(0, 16 - abs(top - other_top)) * max(0, 16 - abs(left - other_left)) < 128


def test_pairs_are_the_same_for_one_seed_and_others_for_another() -> None:
    one, again, other = (matching_pairs(SCENES, 64, side=16, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.second, again.second)
    assert (one.second != other.second).any()


@pytest.mark.parametrize(
    ("scenes", "size", "options", "said"),
    [
        (["a", "b"], 8, {"side": 9}, "do not fit"),
        (["a", "b"], 8, {"side": 0}, "do not fit"),
        (["a", "b"], 8, {"side": 4, "hard": 2}, "expected a share"),
        (["a", "a"], 8, {"side": 4}, "hard=1"),
        (["a"], 8, {"side": 8, "hard": 1}, "no two windows"),
    ],
)
def test_impossible_pairs_are_refused(scenes: list[str], size: int, options: dict[str, float], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        matching_pairs(scenes, size, **options)  # type: ignore[arg-type]


def test_windows_are_cut_where_they_are_said_to_be() -> None:
    images = np.arange(3 * 2 * 10 * 10).reshape(3, 2, 10, 10)
    places = np.array([[2, 1, 5], [0, 6, 6]])
    cut = windows(images, places, 4)
    np.testing.assert_array_equal(cut[0], images[2, :, 1:5, 5:9])
    np.testing.assert_array_equal(cut[1], images[0, :, 6:10, 6:10])
    with pytest.raises(RequestError, match="image, band, y, x"):
        windows(images[0], places, 4)


def test_a_template_is_found_where_it_was_taken() -> None:
    image = np.random.default_rng(0).normal(size=(64, 64))
    templates, sought, shifts = search_windows(64, side=12, reach=6, count=20, seed=1)
    for (top, left), (high, far), shift in zip(templates, sought, shifts, strict=True):
        template, window = image[top : top + 12, left : left + 12], image[high : high + 24, far : far + 24]
        found = correlation(3 - 2 * -template, window)  # brightness and contrast make no difference
        assert np.unravel_index(found.argmax(), found.shape) == tuple(shift)
        assert found.max() == pytest.approx(1)
    with pytest.raises(RequestError, match="do not fit"):
        search_windows(64, side=60, reach=6, count=1)


def test_correlation_is_that_of_numpy() -> None:
    one, other = np.random.default_rng(2).normal(size=(2, 9, 9))
    assert correlation(one, other)[0, 0] == pytest.approx(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    assert correlation(np.ones((3, 3)), other).max() == 0
    with pytest.raises(RequestError, match="fits into a window"):
        correlation(other, one[:4, :4])
