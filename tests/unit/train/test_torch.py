from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from making import DTYPES, MODALITIES, Built, Made, require_torch

from cube.errors import RequestError
from cube.train.samples import Samples

try:
    import torch

    from cube.torch import BatchDataset, BatchLoader, ImageAndMask, PatchDataset, class_shares, group_table
    from cube.train.torch import _turn
except ModuleNotFoundError:
    torch = None


pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
"""More workers than cores are meant: what they give must not depend on it."""


@pytest.fixture(autouse=True)
def _torch() -> None:
    require_torch()


def test_a_sample_holds_the_pixels_of_one_patch(tiny_cube: Built, made: Made) -> None:
    dataset = PatchDataset(tiny_cube.url)
    assert len(dataset) == len(made.ids)
    for row in (0, 7, len(made.ids) - 1, -1):
        sample = dataset[row]
        assert sample["patch"] == made.ids[row]
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
    dataset = PatchDataset(tiny_cube.url, modalities={"s2": ["B04", "B03"]}, where="season=summer")
    rows = [row for row, name in enumerate(made.ids) if "summer" in name]
    assert len(dataset) == len(rows) > 0
    assert list(dataset[0]) == ["s2", "patch"]
    assert np.array_equal(dataset[3]["s2"].numpy(), made.pixels[made.ids[rows[3]], "s2"][[3, 2]])


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork", None])
def test_a_loader_gives_every_patch_once(tiny_cube: Built, made: Made, method: str | None) -> None:
    dataset = PatchDataset(tiny_cube.url, modalities=["lc"])
    dataset[0]  # a parent that has decoded already
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=2 if method else 0, multiprocessing_context=method)
    batches = [batch["lc"].numpy() for batch in loader]
    assert np.array_equal(np.concatenate(batches), made.array("lc"))


def test_it_is_sent_to_workers_without_its_store(tiny_cube: Built) -> None:
    dataset = PatchDataset(tiny_cube.url)
    before = dataset[1]
    assert len(pickle.dumps(dataset)) < 40_000
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[1]["s2"], before["s2"])


def test_what_is_not_there_is_refused(tiny_cube: Built) -> None:
    with pytest.raises(RequestError, match="no modality"):
        PatchDataset(tiny_cube.url, modalities=["s3"])
    with pytest.raises(IndexError):
        PatchDataset(tiny_cube.url)[10_000]


def ids(loader: BatchLoader, made: Made) -> list[str]:
    """Run what is left of an epoch; compare the pixels; return the ids in order."""
    seen = []
    for batch in loader:
        for row, name in enumerate(batch["patch"]):
            assert np.array_equal(batch["s2"][row].numpy(), made.pixels[name, "s2"])
            seen.append(name)
    return seen


@pytest.mark.parametrize(("workers", "method"), [(0, "spawn"), (1, "fork"), (2, "spawn"), (3, "forkserver"), (4, "fork")])
def test_an_epoch_of_batches_holds_every_patch_once(tiny_cube: Built, made: Made, workers: int, method: str) -> None:
    samples = Samples(tiny_cube.url, modalities=["s2"])
    samples.read([0])  # a parent that has decoded already
    loader = BatchLoader(samples, workers=workers, context=method, batch_size=3, seed=1)
    first, second = ids(loader, made), ids(loader, made)
    assert sorted(first) == sorted(second) == sorted(made.ids)
    assert first != second
    assert loader.state_dict()["epoch"] == 2


@pytest.mark.parametrize("world", [1, 2, 4, 7])
@pytest.mark.parametrize("workers", [0, 1, 2, 3, 4])
def test_ranks_and_workers_share_an_epoch(tiny_cube: Built, made: Made, world: int, workers: int) -> None:
    samples = Samples(tiny_cube.url, modalities=["s2"])
    seen = []
    for rank in range(world):
        loader = BatchLoader(samples, workers=workers, context="fork", batch_size=2, stream=(rank, world))
        part = ids(loader, made)
        assert len(loader) <= len(part)
        seen += part
    assert sorted(seen) == sorted(made.ids)


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_an_epoch_is_resumed_in_the_same_order(tiny_cube: Built, made: Made, workers: int) -> None:
    samples = Samples(tiny_cube.url, modalities=["s2"])

    def fresh() -> BatchLoader:
        return BatchLoader(samples, workers=workers, context="fork", batch_size=2, seed=4)

    whole = [*ids(loader := fresh(), made), *ids(loader, made)]
    stop = int(np.random.default_rng(workers).integers(1, 12))
    first, seen = fresh(), []
    batches = iter(first)
    for _ in range(stop):
        seen += next(batches)["patch"]
    state = json.loads(json.dumps(first.state_dict()))
    del batches, first
    second = fresh()
    second.load_state_dict(state)
    assert [*seen, *ids(second, made), *ids(second, made)] == whole


def test_a_loader_begins_with_the_epoch_it_is_given(tiny_cube: Built, made: Made) -> None:
    samples = Samples(tiny_cube.url, modalities=["s2"])
    ids(begun := BatchLoader(samples, batch_size=2), made)
    second = ids(begun, made)
    assert ids(BatchLoader(samples, batch_size=2, epoch=1), made) == second
    alone = [name for batch in BatchDataset(samples, batch_size=2, epoch=1) for name in batch["patch"]]
    assert alone == second


def test_a_state_of_another_loader_is_refused(tiny_cube: Built) -> None:
    samples = Samples(tiny_cube.url, modalities=["s2"])
    state = BatchLoader(samples, batch_size=2).state_dict()
    with pytest.raises(RequestError, match="plan"):
        BatchLoader(samples, batch_size=3).load_state_dict(state)
    with pytest.raises(RequestError, match="workers"):
        BatchLoader(samples, batch_size=2, workers=1).load_state_dict(state)


@pytest.mark.parametrize("lengths", [[4], [2, 3, 2, 3], [3, 3], [1, 1, 2], [0, 1, 0]])
def test_workers_take_turns_as_before_a_resume(lengths: list[int]) -> None:
    def sequence(turn: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return (part, number) as a DataLoader takes them."""
        return [(part, start + k) for k in range(5) for part, start in turn if start + k < lengths[part]]

    whole = sequence(_turn(lengths, 0))
    assert len(whole) == sum(lengths)
    for consumed in range(sum(lengths) + 1):
        assert sequence(_turn(lengths, consumed)) == whole[consumed:]


def test_types_torch_cannot_compute_with_are_widened(tiny_cube: Built) -> None:
    batch = next(iter(BatchDataset(Samples(tiny_cube.url), batch_size=2, dtypes={"s1": "float64"})))
    assert [batch[name].dtype for name in MODALITIES] == [torch.float64, torch.int32, torch.uint8]


def test_the_form_of_torchgeo(tiny_cube: Built, made: Made) -> None:
    samples = Samples(tiny_cube.url, where="split=train")
    table = group_table(samples, "IGBP")
    assert table[:18] == (0, 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 6, 8, 9, 10)
    for form, expected in ((ImageAndMask(), np.arange(256)), (ImageAndMask(table=table), np.array(table))):
        batch = next(iter(BatchLoader(samples, batch_size=4, form=form)))
        single = PatchDataset(tiny_cube.url, where="split=train", form=form)
        for row, name in enumerate(batch["patch"]):
            image = np.concatenate([made.pixels[name, "s1"], made.pixels[name, "s2"].astype(np.float32)])
            assert np.array_equal(batch["image"][row].numpy(), image, equal_nan=True)
            assert np.array_equal(batch["mask"][row].numpy(), expected[made.pixels[name, "lc"][0]])
            sample = single[samples.ids.tolist().index(name)]
            assert torch.equal(sample["mask"], batch["mask"][row])
            assert sample["image"].dtype == torch.float32
            assert sample["mask"].dtype == torch.int64


def test_shares_of_classes() -> None:
    mask = torch.tensor([[[1, 1], [2, 3]], [[3, 3], [3, 0]]])
    assert class_shares(mask, 3).tolist() == [[0.5, 0.25, 0.25], [0.0, 0.0, 0.75]]


def test_misspelt_options_and_bands_that_are_not_there_are_named(tiny_cube: Built) -> None:
    samples = Samples(tiny_cube.url)
    with pytest.raises(TypeError, match=r"BatchLoader\(\) got an unexpected .* 'batchsize': did you mean 'batch_size'\?"):
        BatchLoader(samples, batchsize=4)
    with pytest.raises(TypeError, match=r"PatchDataset\(\) got an unexpected .* 'wher': did you mean 'where'\?"):
        PatchDataset(tiny_cube.url, wher="season=spring")
    with pytest.raises(RequestError, match="band is 9: expected a whole number, -4 to 3"):
        BatchLoader(samples, form=ImageAndMask(band=9))
