"""Labels of patches by their land cover, wherever a label is; splits of a cube without leaks; the forms that give both."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from click.testing import CliRunner, Result
from making import require_torch

import cube
from cube.cli.main import main
from cube.errors import FilterError, RequestError
from cube.splits import make_split, read_split, split_leaks
from cube.tasks import Augmentation

WIDER = [[1, 2, 3, 4, 5], [6, 7], [8, 9], [10], [11], [12, 14], [13], [15], [16], [17]]
"""Codes of IGBP that the ten published classes are made of."""
GAP = 0.1


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture(scope="module", name="demo")
def the_cube(demo: Path) -> Path:
    return demo / "demo.zarr"


def fractions(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of the 17 classes and of the ten wider ones (patch, class), counted pixel by pixel."""
    fine = np.stack([(pixels == code).mean(axis=(1, 2)) for code in range(1, 18)], axis=1)
    return fine, np.stack([np.isin(pixels, codes).mean(axis=(1, 2)) for codes in WIDER], axis=1)


def test_labels_are_those_counted_in_the_pixels(demo: Path) -> None:
    samples = cube.Samples(demo, labels=["label17", "label10", "labels17", "labels10"], incomplete="keep")
    opened = cube.open_cube(demo)
    covered = opened.present.sel(modality="lc").values
    fine, wide = fractions(opened.lc[:, 0].values)
    for name, shares in (("17", fine), ("10", wide)):
        known = np.where(covered, shares.argmax(axis=1), -1)
        np.testing.assert_array_equal(samples.target(f"label{name}"), known)
        several = (shares >= GAP) & covered[:, None]
        np.testing.assert_array_equal(samples.target(f"labels{name}"), several.astype(np.float32))
    np.testing.assert_array_equal(samples.fractions("IGBP")[covered], fine[covered].astype(np.float32))
    of_majority = np.array([next(place for place, of in enumerate(WIDER) if code + 1 in of) for code in fine.argmax(axis=1)])
    assert (of_majority != samples.target("label10"))[covered].any()  # so the order of summing and choosing matters


def test_a_published_patch_has_the_published_labels(shared: Path, tmp_path: Path) -> None:
    files = shared / "data" / "sen12ms"
    cube.build("sen12ms", files, tmp_path / "x.zarr", modalities=["lc"])
    samples = cube.Samples(tmp_path / "x.zarr", where="patch=ROIs1158_spring_1_p30")
    assert samples.classes("label17")[samples.target("label17")[0]] == "Mixed Forests"
    assert samples.classes("label10")[samples.target("label10")[0]] == "Forest"
    assert [samples.classes("labels10")[place] for place in np.flatnonzero(samples.target("labels10")[0])] == [
        "Forest",
        "Savanna",
    ]
    with rasterio.open(files / "ROIs1158_spring" / "lc_1" / "ROIs1158_spring_lc_1_p30.tif") as file:
        _, wide = fractions(file.read(1)[None])
    assert np.round(wide[0, [0, 2]], 3).tolist() == [0.696, 0.304]


def test_labels_choose_everywhere(demo: Path) -> None:
    samples = cube.Samples(demo, incomplete="keep")
    forest = samples.ids[samples.target("label10") == samples.classes("label10").index("Forest")].tolist()
    assert len(forest) > 3
    where = "label10=Forest"
    assert cube.open_cube(demo, where=where).patch.values.tolist() == forest
    assert cube.Samples(demo, where=where, incomplete="keep").ids.tolist() == forest
    assert run("search", demo, "--where", where).stdout.split() == forest
    wet = samples.ids[samples.target("labels10")[:, samples.classes("labels10").index("Water")] == 1].tolist()
    assert run("search", demo, "--where", "labels10=*Water*").stdout.split() == wet
    assert cube.open_cube(demo, where="labels10=*Water* and not label10=Water").sizes["patch"] < len(wet)
    table = pq.read_table(demo.parent / "demo.stac" / "items.parquet", columns=["patchcube:label10"]).to_pydict()
    assert table["patchcube:label10"].count("Forest") == len(forest)


def test_labels_that_are_not_there_are_told(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(FilterError, match="unknown field 'label11'"):
        cube.open_cube(demo, where="label11=Forest")
    with pytest.raises(RequestError, match="has no label 'colour'"):
        cube.Samples(demo, labels=["colour"])
    with pytest.raises(RequestError, match="several values per patch"):
        cube.Samples(demo, labels=["transform"])
    shutil.copytree(demo, tmp_path / "alone.zarr")
    with pytest.raises(RequestError, match=r"items.parquet is not there: classes and searches need the catalog"):
        cube.Samples(tmp_path / "alone.zarr", labels=["label10"])


def test_labels_come_with_batches_and_travel(demo: Path) -> None:
    samples = pickle.loads(pickle.dumps(cube.Samples(demo, labels=["label10", "season", "scene"], modalities=["lc"])))
    batch = next(iter(cube.Batches(samples, batch_size=8, seed=3)))
    rows = [samples.ids.tolist().index(name) for name in batch["patch"].tolist()]
    np.testing.assert_array_equal(batch["label10"], samples.target("label10")[rows])
    assert samples.classes("season") == sorted({*samples.label("season").tolist()})
    assert [samples.classes("season")[code] for code in batch["season"]] == samples.label("season")[rows].tolist()
    np.testing.assert_array_equal(batch["scene"], samples.label("scene")[rows])
    assert batch["label10"].dtype == batch["season"].dtype == np.int64


def test_patches_are_chosen_by_their_ids(demo: Path) -> None:
    every = cube.Samples(demo).ids.tolist()
    chosen = cube.Samples(demo, ids=[every[7], every[2], every[7]])
    assert chosen.ids.tolist() == [every[2], every[7]]
    forest = cube.Samples(demo, where="label10=Forest").ids.tolist()
    both = cube.Samples(demo, ids=[every[0], *forest[:3]], where="label10=Forest")
    assert both.ids.tolist() == forest[:3]
    with pytest.raises(RequestError, match="has no patch 'x' and 1 more"):
        cube.Samples(demo, ids=["x", "y", every[0]])


# Splits


@pytest.mark.parametrize("balance", ["", "LCCS_LU", None])
def test_a_split_shares_no_ground(demo: Path, balance: str | None, tmp_path: Path) -> None:
    samples = cube.Samples(demo, incomplete="keep")
    split = make_split(samples, {"train": 0.6, "val": 0.2, "test": 0.2}, balance=balance)
    opened = cube.open_cube(demo)
    assert split_leaks(opened.assign_coords(mine=("patch", split.names)), "mine") == []
    assert set(split.sizes) == {"train", "val", "test"}
    assert np.isnan(split.worst) == (balance is None)
    split.write(tmp_path / "split.csv")
    again = read_split(tmp_path / "split.csv")
    assert again.sizes == split.sizes
    assert cube.Samples(demo, ids=again.ids("val"), incomplete="keep").ids.tolist() == split.ids("val")
    with pytest.raises(RequestError, match="no part 'dev'; it has test, train, val"):
        split.ids("dev")


def test_random_patches_share_ground(demo: Path) -> None:
    opened = cube.open_cube(demo)
    names = np.where(np.random.default_rng(0).random(opened.sizes["patch"]) < 0.1, "val", "train")
    assert len(split_leaks(opened.assign_coords(mine=("patch", names)), "mine")) > 1


@pytest.mark.parametrize("block", [256, 384, 500, 512])
def test_scenes_are_divided_into_blocks_with_a_gap(demo: Path, block: int) -> None:
    samples = cube.Samples(demo, where="season=summer", incomplete="keep")
    split = make_split(samples, {"train": 0.7, "val": 0.3}, block=block, balance=None)
    assert min(split.sizes.values()) > 0
    assert len(split.patches) < len(samples)
    opened = cube.open_cube(demo)
    opened = opened.isel(patch=opened["patch"].isin(split.patches).values)
    names = dict(zip(split.patches.tolist(), split.names.tolist(), strict=True))
    assert split_leaks(opened.assign_coords(mine=("patch", [names[one] for one in opened.patch.values])), "mine") == []
    whole = make_split(samples, {"one": 1.0}, block=block, balance=None)
    assert len(whole.patches) == len(samples)  # no gap within one part


def test_blocks_that_cannot_be_are_told(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="smaller than patches of 256"):
        make_split(cube.Samples(demo), {"train": 1.0}, block=128)
    told = run("split", demo, "--parts", "train=0.6,val=0.4", "--block", 512, "--to", tmp_path / "b.csv")
    assert "in no part" in told.stdout
    assert "no ground is shared between parts" in told.stdout


def test_a_scene_is_one_of_its_season(demo: Path) -> None:
    """Summer and winter both have a scene 55, of which one is of the official test part."""
    parts = {"train": 0.8, "val": 0.2, "test": "official"}
    by_number, by_both = (make_split(cube.Samples(demo), parts, by=by) for by in ("scene", ("season", "scene")))
    assert by_number.names.tolist() == by_both.names.tolist()


def test_the_official_part_stays(demo: Path) -> None:
    samples = cube.Samples(demo)
    split = make_split(samples, {"train": 0.5, "val": 0.5, "test": "official"})
    np.testing.assert_array_equal(split.names == "test", samples.label("split") == "test")
    for parts, said in (
        ({"train": 1, "dev": "official"}, "no patch is 'dev' by its label 'split'; known are test, train"),
        ({"train": 1, "test": "oficial"}, "the part 'test' is 'oficial'"),
    ):
        with pytest.raises(RequestError, match=said):
            make_split(samples, parts)
    with pytest.raises(RequestError, match=r"has shares of IGBP, .* not of CORINE"):
        make_split(samples, {"a": 1, "b": 1}, balance="CORINE")


def test_the_command_divides_and_tells(demo: Path, tmp_path: Path) -> None:
    told = run("split", demo, "--parts", "train=0.6,val=0.4,test=official", "--to", tmp_path / "s.csv", "--json")
    assert told.exit_code == 0, told.output
    facts = json.loads(told.stdout)
    assert facts["scenes_that_share_ground"] == 0
    assert sum(facts["parts"].values()) == len(cube.Samples(demo, incomplete="keep"))
    assert read_split(tmp_path / "s.csv").sizes == facts["parts"]
    assert "choose another --to" in run("split", demo, "--to", tmp_path / "s.csv").output
    text = run("split", demo, "--by", "season", "--balance", "none", "--parts", "a=1,b=1", "--to", tmp_path / "t.csv").stdout
    assert "no ground is shared between parts" in text
    assert "differ" not in text
    for parts in ("a", "a=b2", "=1", "a=1,,b=1"):
        assert "no name=share" in run("split", demo, "--parts", parts, "--to", tmp_path / "u.csv").output
    shared = run("split", demo, "--by", "number", "--balance", "none", "--to", tmp_path / "v.csv").stdout
    assert "scenes share ground between parts" in shared


@pytest.mark.parametrize("text", ["", "patch,split\n", "id,split\na,b\n", "patch,split\na\n", "patch,split\na,b,c\n", "\xff"])
def test_what_is_no_split_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.csv").write_text(text, encoding="latin-1")
    with pytest.raises(RequestError, match=r"s.csv: (is no split|cannot be read)"):
        read_split(tmp_path / "s.csv")


# PyTorch


def test_classification_gives_images_and_labels(demo: Path) -> None:
    require_torch()
    import torch

    from cube.torch import BatchLoader, Classification, PatchDataset

    samples = cube.Samples(demo)
    for by, dtype in (("label10", torch.int64), ("labels10", torch.float32), ("season", torch.int64)):
        batch = next(iter(BatchLoader(samples, batch_size=6, seed=5, form=Classification(by))))
        rows = [samples.ids.tolist().index(name) for name in batch["patch"]]
        assert batch["label"].dtype == dtype
        np.testing.assert_array_equal(batch["label"], samples.target(by)[rows])
        read = samples.read(rows)
        image = np.concatenate([read["s1"], read["s2"]], axis=1).astype(np.float32)
        np.testing.assert_array_equal(batch["image"], image)
        one = PatchDataset(demo, form=Classification(by))[rows[0]]
        np.testing.assert_array_equal(one["image"], image[0])
        np.testing.assert_array_equal(one["label"], batch["label"][0])
    only = next(iter(BatchLoader(samples, batch_size=2, form=Classification("label10", images=("s2",)))))
    assert only["image"].shape == (2, 13, 256, 256)


@pytest.mark.parametrize(
    "change", [{}, {"crop": 128}, {"crop": 32, "flips": False}, {"crop": 200, "turns": False}, {"crop": 256}]
)
def test_batches_augmented_on_the_way_are_those_augmented_afterwards(demo: Path, change: dict[str, object]) -> None:
    samples, augment = cube.Samples(demo, incomplete="keep"), Augmentation(**change, seed=4)  # type: ignore[arg-type]
    plain, changed = (cube.Batches(samples, batch_size=7, seed=2, augment=one) for one in (None, augment))
    for epoch in range(2):
        for before, after in zip(plain, changed, strict=True):
            wanted = augment(before, epoch)
            assert before["patch"].tolist() == after["patch"].tolist()
            for name in ("s1", "s2", "lc"):
                np.testing.assert_array_equal(after[name], wanted[name])


def test_augmented_batches_are_resumed_and_joined(demo: Path) -> None:
    require_torch()
    from cube.torch import BatchLoader, ImageAndMask

    augment = Augmentation(crop=64, seed=1)
    samples = cube.Samples(demo)
    loader = BatchLoader(samples, batch_size=8, seed=2, form=ImageAndMask(), augment=augment)
    first = [next(iter(loader)) for _ in range(1)]
    again = BatchLoader(samples, batch_size=8, seed=2, form=ImageAndMask(), augment=augment)
    again.load_state_dict(loader.state_dict())
    second = next(iter(again))
    whole = list(cube.Batches(samples, batch_size=8, seed=2, augment=augment))[:2]
    for got, wanted in zip((*first, second), whole, strict=True):
        joined = np.concatenate([wanted["s1"], wanted["s2"].astype(np.float32)], axis=1)
        np.testing.assert_array_equal(got["image"].numpy(), joined)
        np.testing.assert_array_equal(got["mask"].numpy(), wanted["lc"][:, 0])
    with pytest.raises(RequestError, match="another loader"):
        BatchLoader(samples, batch_size=8, seed=2, form=ImageAndMask()).load_state_dict(loader.state_dict())
    with pytest.raises(RequestError, match=r"expected a cube\.tasks\.Augmentation"):
        cube.Batches(samples, augment="flips")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="crop is 300"):
        cube.Batches(samples, augment=Augmentation(crop=300))


def test_augmented_batches_keep_masks_on_their_images(demo: Path) -> None:
    samples, change = cube.Samples(demo), Augmentation(crop=128, seed=4)
    for batch in cube.Batches(samples, batch_size=16, seed=2):
        changed = change(batch, epoch=3)
        again = change({"patch": batch["patch"], "s1": batch["s1"], "lc": batch["lc"]}, epoch=3)
        np.testing.assert_array_equal(changed["s1"], again["s1"])
        np.testing.assert_array_equal(changed["lc"], again["lc"])
        assert changed["s2"].shape == (len(batch["patch"]), 13, 128, 128)
