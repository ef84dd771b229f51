"""Batches that are put together by torch on a device: on the processor here, with the same code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from making import Built

from cube import Batches, Samples, Shuffle
from cube.errors import RequestError
from cube.tasks import Augmentation

torch = pytest.importorskip("torch", reason="PyTorch: it is tested on Python 3.11 only and is not installed here")

from cube.torch import BatchLoader, Classification, ImageAndMask, Scaled  # noqa: E402 (it imports torch)

FORMS: dict[str, Any] = {
    "plain": {},
    "image and mask": {"form": ImageAndMask()},
    "grouped": {"form": ImageAndMask(table=tuple(range(256)))},
    "labels": {"form": Classification("season")},
    "types": {"dtypes": {"s2": "float32", "lc": "int64"}},
    "augmented": {"augment": Augmentation(seed=3)},
    "cropped": {"augment": Augmentation(crop=20, seed=3)},
    "little memory": {"memory": 1, "shuffle": Shuffle(block=2, lanes=2)},
    "a part": {"stream": (1, 3), "tail": "drop"},
}


def equal(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert list(one) == list(two)
    for name, values in one.items():
        if isinstance(values, torch.Tensor):
            assert values.dtype == two[name].dtype
            assert torch.equal(torch.nan_to_num(values.double(), 7e9), torch.nan_to_num(two[name].double(), 7e9)), name
        else:
            assert values == two[name]


@pytest.mark.filterwarnings("ignore:memory=1 ")
@pytest.mark.parametrize("form", FORMS)
def test_batches_are_the_same_on_a_device(tiny_cube: Built, form: str) -> None:
    samples = Samples(tiny_cube.url)
    here, there = (BatchLoader(samples, batch_size=4, seed=2, **FORMS[form], **more) for more in ({}, {"device": "cpu"}))
    for _ in range(2):
        for one, two in zip(here, there, strict=True):
            equal(one, two)


def test_it_goes_on_where_it_was_left(tiny_cube: Built) -> None:
    samples = Samples(tiny_cube.url, modalities={"s2": ["B04", "B02"], "s1": None})
    whole = list(BatchLoader(samples, batch_size=4, device="cpu"))
    first = BatchLoader(samples, batch_size=4, device="cpu")
    iterator = iter(first)
    for batch in whole[:3]:
        equal(next(iterator), batch)
    second = BatchLoader(samples, batch_size=4, device="cpu")
    second.load_state_dict(first.state_dict())
    for one, two in zip(second, whole[3:], strict=True):
        equal(one, two)


def test_gaps_hold_the_fill_value(tiny_cube: Built) -> None:
    """A sink fills the slot of what is not stored as the other one does."""
    samples = Samples(tiny_cube.url)
    fills = {name: np.asarray(reader.fill, reader.layout.dtype) for name, reader in samples.readers.items()}
    batches = BatchLoader(samples, batch_size=4, device="cpu").dataset.batches
    outputs = batches._outputs()
    sink = batches._sink(outputs, 3, None)
    for name, pool in sink._pools.items():
        stored = pool[0].numpy().view(samples.readers[name].layout.dtype)
        assert np.array_equal(stored, np.broadcast_to(fills[name], stored.shape), equal_nan=True)


def test_only_new_tiles_are_sent(tiny_cube: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    from cube.train.device import DeviceSink

    sent: list[int] = []
    store = DeviceSink._store

    def counted(self: DeviceSink, name: str, planned: Any, places: Any) -> None:
        sent.append(len(planned.steps[name].tiles))
        store(self, name, planned, places)

    monkeypatch.setattr(DeviceSink, "_store", counted)
    loader = BatchLoader(Samples(tiny_cube.url), batch_size=4, device="cpu")
    list(loader)
    plain = Batches(Samples(tiny_cube.url), batch_size=4)
    list(plain)
    assert sum(sent) == plain.counters.tiles < 25 * 4 * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:99"}, "device is 'cuda:99': .*; expected one that torch has here"),
        ({"device": "abacus"}, "device is 'abacus'"),
        ({"device": "cpu", "workers": 1}, "workers and device exclude each other"),
        ({"device": "cpu", "form": Scaled(ImageAndMask(), {})}, "scale on the device"),
    ],
)
def test_what_cannot_be_is_refused(tiny_cube: Built, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        BatchLoader(Samples(tiny_cube.url), **options)
