"""Options and saved states of loaders: each is checked by itself, and the message names it and what it may be."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from cube import Batches, Samples, Shuffle
from cube.errors import RequestError
from cube.jobs.build import Built


@pytest.fixture
def samples(tiny_cube: Built) -> Samples:
    return Samples(tiny_cube.url, modalities=["s1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads is 0: expected a whole number, 1 or more"),
        ({"batch_size": 0}, "batch_size is 0: expected"),
        ({"batch_size": 2.5}, "batch_size is 2.5: expected"),
        ({"batch_size": True}, "batch_size is True: expected"),
        ({"prefetch": -1}, "prefetch is -1: expected"),
        ({"memory": 0}, "memory is 0: expected"),
        ({"epoch": -1}, "epoch is -1: expected a whole number, 0 to 9223372036854775807"),
        ({"start": -2}, "start is -2: expected"),
        ({"start": 2}, "start is 2: expected a whole number, 0 to 1"),
        ({"seed": 2**63}, "seed is 9223372036854775808: expected"),
        ({"epoch": 2**63}, "epoch is 9223372036854775808: expected"),
        ({"dtypes": {"s1": "nothing"}}, "dtypes: the type of s1 is 'nothing': expected a type of numbers"),
        ({"dtypes": {"s1": "U3"}}, "dtypes: the type of s1 is 'U3': expected a type of numbers"),
        ({"dtypes": ["s1"]}, "dtypes is ['s1']: expected modality"),
        ({"stack": {"a": "s1"}}, "stack is {'a': 's1'}: expected name"),
        ({"stack": {"a": []}}, "stack is {'a': []}: expected name"),
        ({"stack": {"a": ["s1"], "b": ["s1"]}}, "stack joins s1 more than once"),
        ({"stack": {"patch": ["s1"]}}, "stack names patch, which a batch has already"),
        ({"seed": "a"}, "seed is 'a': expected"),
        ({"stream": (1, 1)}, "stream: its number is 1: expected a whole number, 0 to 0"),
        ({"stream": (0, 0)}, "stream: how many there are is 0: expected"),
        ({"stream": 3}, "stream is 3: expected the number of the stream"),
        ({"tail": "cut"}, "tail is 'cut': expected 'keep' or 'drop' or 'repeat'"),
        ({"shuffle": "yes"}, "shuffle is 'yes': expected True, False or a Shuffle"),
    ],
)
def test_every_option_is_named_with_what_is_allowed(samples: Samples, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match="^" + re.escape(message)):
        Batches(samples, **options)


def test_options_of_samples_and_shuffles_too(tiny_cube: Built) -> None:
    with pytest.raises(RequestError, match="incomplete is 'drop': expected 'refuse' or 'leave out' or 'keep'"):
        Samples(tiny_cube.url, incomplete="drop")
    with pytest.raises(RequestError, match="lanes is 0: expected a whole number, 1 or more"):
        Shuffle(lanes=0)


@pytest.mark.parametrize("positions", [np.ones(25, bool), [1.5], [[1, 2]], ["a"], 3])
def test_what_names_no_positions_is_not_read(samples: Samples, positions: Any) -> None:
    with pytest.raises(RequestError, match=r"what to read has .* expected a list of whole numbers"):
        samples.read(positions)
    assert samples.read([])["s1"].shape[0] == 0


@pytest.mark.parametrize("modalities", [[], 3, {"s1": []}, {"s1": "VV"}])
def test_modalities_and_bands_are_lists_of_some(tiny_cube: Built, modalities: Any) -> None:
    with pytest.raises(RequestError, match=r"expected (some of s1, s2, lc|a list of some of VV, VH)"):
        Samples(tiny_cube.url, modalities=modalities)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": -5}, "the state's batch is -5: expected a whole number, 0 to "),
        ({"batch": 10**9}, "the state's batch is 1000000000: expected"),
        ({"batch": "2"}, "the state's batch is '2': expected"),
        ({"epoch": -1}, "the state's epoch is -1: expected"),
        ({"epoch": 2**63}, "the state's epoch is 9223372036854775808: expected"),
        ({"epoch": None}, "the state's epoch is None: expected"),
        ({"plan": "other"}, r"the state is of another loader \(plan differ\)"),
    ],
)
def test_a_state_is_not_believed(samples: Samples, change: dict[str, Any], message: str) -> None:
    batches = Batches(samples, batch_size=4)
    before = batches.state()
    with pytest.raises(RequestError, match=message):
        batches.resume(before | change)
    assert batches.state() == before


@pytest.mark.parametrize("state", [{}, {"epoch": 0}, [], None, "state"])
def test_what_is_no_state_is_refused(samples: Samples, state: Any) -> None:
    with pytest.raises(RequestError, match="expected the dictionary that the loader gave"):
        Batches(samples).resume(state)


def test_a_state_of_other_modalities_or_bands_is_of_another_loader(tiny_cube: Built, samples: Samples) -> None:
    state = Batches(samples).state()
    for others in (["s2"], ["s1", "s2"], {"s1": ["VV"]}):
        with pytest.raises(RequestError, match="the state is of another loader"):
            Batches(Samples(tiny_cube.url, modalities=others)).resume(state)  # type: ignore[arg-type]


def test_a_state_at_the_very_end_of_an_epoch_is_one(samples: Samples) -> None:
    batches = Batches(samples, batch_size=4)
    batches.resume(batches.state() | {"batch": len(batches)})
    assert list(batches) == []
    assert batches.epoch == 1


def test_a_misspelt_option_is_named_with_the_nearest(tiny_cube: Built) -> None:
    with pytest.raises(TypeError, match=r"Samples\(\) got an unexpected keyword argument 'wher': did you mean 'where'\?"):
        Samples(tiny_cube.url, wher="season=spring")
    with pytest.raises(
        TypeError,
        match=r"'colour': expected some of bbox, cache, .*, version, where",
    ):
        Samples(tiny_cube.url, colour="red")


@pytest.mark.parametrize("bbox", [(1, 2, 3), (1, 2, 3, 4, 5), "here", 7, ("a", "b", "c", "d"), (1, 2, 3, None)])
def test_a_box_is_four_numbers(tiny_cube: Built, bbox: Any) -> None:
    with pytest.raises(RequestError, match="is no box: expected four numbers"):
        Samples(tiny_cube.url, bbox=bbox)
