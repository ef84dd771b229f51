"""Batches are those that the plainest reader would make, whatever the options: same order, same pixels, from any point on."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import Built, Made

from cube import Batches, Samples, Shuffle
from cube.tasks import Augmentation

shuffles = st.one_of(
    st.booleans(),
    st.builds(Shuffle, block=st.integers(1, 30), lanes=st.integers(1, 30), spread=st.integers(1, 20)),
)
augmentations = st.one_of(
    st.none(),
    st.builds(
        Augmentation, crop=st.sampled_from([None, 1, 9, 16, 31, 32]), flips=st.booleans(), turns=st.booleans(), seed=st.just(3)
    ),
)


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """Return options of batches."""
    streams = draw(st.integers(1, 4))
    given = {
        "batch_size": draw(st.integers(1, 30)),
        "shuffle": draw(shuffles),
        "seed": draw(st.integers(0, 3)),
        "epoch": draw(st.integers(0, 2)),
        "stream": (draw(st.integers(0, streams - 1)), streams),
        "tail": draw(st.sampled_from(["keep", "drop", "repeat"])),
        "threads": draw(st.integers(1, 4)),
        "memory": draw(st.sampled_from([1, 50_000, 1 << 30])),
        "prefetch": draw(st.integers(1, 4)),
        "augment": draw(augmentations),
    }
    if draw(st.booleans()):
        given["dtypes"] = {"s2": "float32", "lc": "int64"}
    return given


@pytest.mark.filterwarnings("ignore:memory=")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_options=options(), form=st.sampled_from(["all", "some bands", "joined"]), data=st.data())
def test_batches_are_those_of_the_plainest_reader(
    tiny_cube: Built, made: Made, given_options: dict[str, Any], form: str, data: st.DataObject
) -> None:
    modalities = {"s2": ["B04", "B02"], "lc": None} if form == "some bands" else None
    stack = {"image": ("s2", "s1")} if form == "joined" else {}
    samples = Samples(tiny_cube.url, modalities=modalities)
    batches = Batches(samples, stack=stack, **given_options)
    order, size, epoch = batches.order(), batches.batch_size, batches.epoch
    start = data.draw(st.integers(0, len(batches)))
    batches.resume({**batches.state(), "batch": start})
    seen = list(batches)
    assert len(seen) == len(batches) - start
    for number, batch in enumerate(seen, start):
        part = order[number * size : (number + 1) * size]
        right = plainly(samples, made, part, given_options, stack, epoch)
        assert list(batch) == list(right)
        for name, values in right.items():
            assert batch[name].dtype == values.dtype
            assert np.array_equal(batch[name], values, equal_nan=values.dtype.kind == "f")


def plainly(
    samples: Samples, made: Made, part: Any, given_options: dict[str, Any], stack: dict[str, Any], epoch: int
) -> dict[str, Any]:
    """Make a batch of the pixels of the files, patch by patch."""
    ids = samples.ids[part]
    batch = {
        name: np.stack([made.pixels[patch, name][bands] for patch in ids.tolist()]).astype(
            given_options.get("dtypes", {}).get(name, samples.readers[name].layout.dtype)
        )
        for name, bands in samples.modalities.items()
    }
    for name, parts in stack.items():
        batch[name] = np.concatenate([batch.pop(modality).astype("f4") for modality in parts], axis=1)
    batch["patch"] = ids
    return given_options["augment"](batch, epoch) if given_options["augment"] is not None else batch


def test_the_order_of_an_epoch_is_the_one_it_always_was(tiny_cube: Built) -> None:
    """Whoever goes on with a saved state gets what was left."""
    orders = [
        Batches(Samples(tiny_cube.url), batch_size=4, seed=seed, epoch=epoch, stream=stream).order().tolist()
        for seed, epoch, stream in ((0, 0, (0, 1)), (7, 3, (0, 1)), (7, 3, (1, 3)))
    ]
    assert hashlib.sha256(repr(orders).encode()).hexdigest()[:16] == "8ce78c5f98dcb237"
    assert Batches(Samples(tiny_cube.url), batch_size=4, seed=7).state()["plan"] == "26aea043894b1e11"
