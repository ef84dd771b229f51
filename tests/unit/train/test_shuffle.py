from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.train.shuffle import Shuffle, in_order, same_share, shuffled, stream_bounds

SHUFFLES = st.builds(Shuffle, block=st.integers(1, 40), lanes=st.integers(1, 20), spread=st.integers(1, 20))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 300), st.integers(1, 50), SHUFFLES, st.integers(1, 9), st.integers(0, 2**32), st.integers(0, 5))
def test_streams_together_hold_every_patch_once(
    length: int, run: int, shuffle: Shuffle, streams: int, seed: int, epoch: int
) -> None:
    runs = np.arange(length) // run
    parts = [shuffled(runs, shuffle, (seed, epoch), (stream, streams)) for stream in range(streams)]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(length))
    assert np.ptp([len(part) for part in parts]) <= 1
    again = shuffled(runs, shuffle, (seed, epoch), (streams - 1, streams))
    assert np.array_equal(again, parts[-1])


def test_epochs_and_seeds_differ() -> None:
    runs = np.arange(2000) // 256
    orders = [shuffled(runs, Shuffle(), seeds).tolist() for seeds in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_stored_order_is_divided_in_runs() -> None:
    assert [in_order(7, (k, 3)).tolist() for k in range(3)] == [[0, 1], [2, 3], [4, 5, 6]]
    assert stream_bounds(7, 3).tolist() == [0, 2, 4, 7]


@pytest.mark.parametrize(("lanes", "most"), [(4, 3.0), (32, 1.1)])
def test_more_lanes_mix_better(lanes: int, most: float) -> None:
    scenes = np.arange(3136) // 784
    runs = np.arange(3136) // 256
    shares = [same_share(scenes[shuffled(runs, Shuffle(lanes=lanes), (seed, 0))], 32) for seed in range(5)]
    plain = [same_share(scenes[np.random.default_rng(seed).permutation(3136)], 32) for seed in range(5)]
    assert 0.9 < np.mean(shares) / np.mean(plain) < most
    assert lanes > 4 or np.mean(shares) / np.mean(plain) > 1.1  # the measure tells a poor shuffle


def test_neighbours_stay_together() -> None:
    order = shuffled(np.arange(4096) // 256, Shuffle(lanes=4, spread=8), (0, 0))
    place = np.argsort(order)
    assert np.mean(np.abs(np.diff(place)) < 64) > 0.95
    everywhere = np.argsort(shuffled(np.arange(4096) // 256, Shuffle(block=1, lanes=4096), (0, 0)))
    assert np.mean(np.abs(np.diff(everywhere)) < 64) < 0.1


def test_same_share_counts_pairs() -> None:
    assert same_share(np.array([1, 1, 2, 2]), 4) == pytest.approx(2 / 6)
    assert same_share(np.array([1, 2, 1, 2]), 2) == 0.0
    assert same_share(np.array([5]), 1) == 0.0


def test_impossible_shuffles_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a whole number, 1 or more"):
        Shuffle(lanes=0)
