from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
from making import DTYPES, MODALITIES, Built, Made, leave_out

try:
    import torch

    from cube.torch import PatchDataset
except ModuleNotFoundError:
    torch = None


@pytest.fixture(autouse=True)
def _torch() -> None:
    if torch is None:
        leave_out("PyTorch: it is tested on Python 3.11 only and is not installed here", required=sys.version_info < (3, 12))


def test_a_sample_holds_the_pixels_of_one_patch(tiny_cube: Built, made: Made) -> None:
    dataset = PatchDataset(tiny_cube.url)
    assert len(dataset) == len(made.ids)
    for row in (0, 7, len(made.ids) - 1, -1):
        sample = dataset[row]
        for name in MODALITIES:
            expected = made.pixels[made.ids[row], name]
            assert np.array_equal(sample[name].numpy(), expected, equal_nan=name == "s1")
    assert {name: sample[name].dtype for name in MODALITIES} == {
        "s1": torch.float32,
        "s2": torch.int32,
        "lc": torch.uint8,
    }
    assert DTYPES["s2"] == "uint16"


def test_a_subset_reads_what_was_chosen_only(tiny_cube: Built, made: Made) -> None:
    dataset = PatchDataset(tiny_cube.url, modalities=["s2"], select={"season": "summer", "s2_band": ["B04", "B03"]})
    rows = [row for row, name in enumerate(made.ids) if "summer" in name]
    assert len(dataset) == len(rows) > 0
    assert list(dataset[0]) == ["s2"]
    assert np.array_equal(dataset[3]["s2"].numpy(), made.pixels[made.ids[rows[3]], "s2"][[3, 2]])


@pytest.mark.parametrize("method", ["spawn", "forkserver", None])
def test_a_loader_gives_every_patch_once(tiny_cube: Built, made: Made, method: str | None) -> None:
    dataset = PatchDataset(tiny_cube.url, modalities=["lc"])
    dataset[0]  # a parent that has decoded already
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=2 if method else 0, multiprocessing_context=method)
    batches = [batch["lc"].numpy() for batch in loader]
    assert np.array_equal(np.concatenate(batches), made.array("lc"))


def test_it_is_sent_to_workers_without_its_store(tiny_cube: Built) -> None:
    dataset = PatchDataset(tiny_cube.url)
    before = dataset[1]
    assert len(pickle.dumps(dataset)) < 2000
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[1]["s2"], before["s2"])


def test_what_is_not_there_is_refused(tiny_cube: Built) -> None:
    with pytest.raises(KeyError, match="no modalities"):
        PatchDataset(tiny_cube.url, modalities=["s3"])
    with pytest.raises(IndexError):
        PatchDataset(tiny_cube.url)[10_000]
