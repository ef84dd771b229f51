"""What trainings take: scaled images, the cube's own statistics, TorchGeo's samples, Lightning's data module."""

from __future__ import annotations

import json
import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import Built, require_torch

import cube
from cube.errors import RequestError
from cube.splits import make_split, read_split
from cube.tasks import scaled, standardized


def test_statistics_are_those_of_distinct_ground(demo: Path) -> None:
    samples = cube.Samples(demo / "demo.zarr", modalities={"s1": None, "s2": ["B04", "B02"]}, incomplete="keep")
    found = samples.statistics("s2")
    opened = cube.open_cube(demo / "demo.zarr")
    total: list[np.ndarray] = []
    for season, scene in sorted(set(zip(opened.season.values.tolist(), opened.scene.values.tolist(), strict=True))):
        pixels = cube.open_scene(demo / "demo.zarr", season=season, scene=scene)["s2"].sel(s2_band=["B04", "B02"]).values
        total.append(pixels[:, pixels[0] > 0])
    distinct = np.concatenate(total, axis=1).astype(float)
    np.testing.assert_array_equal(found["count"], distinct.shape[1])
    np.testing.assert_allclose(found["mean"], distinct.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found["stddev"], distinct.std(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(found["minimum"], distinct.min(axis=1))
    assert samples.statistics("s1")["mean"].shape == (2,)


def test_statistics_that_are_not_there_are_told(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="they have s1"):
        cube.Samples(demo / "demo.zarr", modalities=["s1"]).statistics("s2")
    with pytest.raises(RequestError, match="classes, which have no mean"):
        cube.Samples(demo / "demo.zarr").statistics("lc")
    shutil.copytree(demo / "demo.zarr", tmp_path / "demo.zarr")
    with pytest.raises(RequestError, match="catalog beside the cube"):
        cube.Samples(tmp_path / "demo.zarr").statistics("s2")
    (tmp_path / "demo.stac").mkdir()
    document = json.loads((demo / "demo.stac" / "collection.json").read_text())
    (tmp_path / "demo.stac" / "collection.json").write_text(json.dumps(document | {"patchcube:pixels_digest": "blake3:0"}))
    with pytest.raises(RequestError, match="of another cube"):
        cube.Samples(tmp_path / "demo.zarr").statistics("s2")
    band = {"name": "s2[s2_band=B01]", "statistics": {"mean": "much"}}
    for assets in ([], {"zarr": 1}, {"zarr": {"bands": {}}}, {"zarr": {"bands": [1, band]}}):
        (tmp_path / "demo.stac" / "collection.json").write_text(json.dumps(document | {"assets": assets}))
        with pytest.raises(RequestError, match="no statistics of s2"):
            cube.Samples(tmp_path / "demo.zarr").statistics("s2")


def test_images_are_scaled_before_they_are_joined(demo: Path) -> None:
    require_torch()
    from cube.torch import BatchLoader, Classification, ImageAndMask, PatchDataset, Scaled

    samples = cube.Samples(demo / "demo.zarr")
    stats = {name: samples.statistics("s2")[name] for name in ("mean", "stddev")}
    by = {
        "s1": partial(scaled, low=-25, high=0),
        "s2": partial(standardized, means=stats["mean"], deviations=stats["stddev"]),
    }
    truth = samples.read(range(8))
    wanted = np.concatenate([by["s1"](truth["s1"]), by["s2"](truth["s2"])], axis=1)
    for form, key in ((ImageAndMask(), "mask"), (Classification("label10"), "label")):
        scaling = pickle.loads(pickle.dumps(Scaled(form, by)))
        batch = next(iter(BatchLoader(samples, batch_size=8, shuffle=False, form=scaling)))
        np.testing.assert_array_equal(batch["image"].numpy(), wanted)
        assert set(batch) == {"image", key, "patch"}
        one = PatchDataset(demo / "demo.zarr", form=scaling)[3]
        np.testing.assert_array_equal(one["image"].numpy(), wanted[3])
        plain = next(iter(BatchLoader(samples, batch_size=8, shuffle=False, form=form)))
        np.testing.assert_array_equal(batch[key].numpy(), plain[key].numpy())
    with pytest.raises(RequestError, match="expected 's1' or 's2'"):
        BatchLoader(samples, form=Scaled(ImageAndMask(), {"lc": by["s1"]}))


def test_samples_are_those_of_torchgeo(demo: Path, made_cube: Path) -> None:
    require_torch()
    import torch
    from torch.utils.data import DataLoader, WeightedRandomSampler

    from cube.torchgeo import SEN12MS, MaskedPatches

    sets = SEN12MS.BAND_SETS
    everything = SEN12MS(str(demo / "demo.zarr"), split=None)
    truth = cube.Samples(demo / "demo.zarr")
    assert len(everything) == len(truth)
    assert everything.ids == truth.ids.tolist()
    for bands, place in ((sets["all"], slice(None)), (sets["s1"], slice(0, 2)), (sets["s2-all"], slice(2, None))):
        sample = SEN12MS(str(demo / "demo.zarr"), split=None, bands=bands)[7]
        one = truth[7]
        np.testing.assert_array_equal(sample["image"].numpy(), np.concatenate([one["s1"], one["s2"]]).astype(np.float32)[place])
        np.testing.assert_array_equal(sample["mask"].numpy(), one["lc"][0])
        assert (sample["image"].dtype, sample["mask"].dtype, set(sample)) == (torch.float32, torch.int64, {"image", "mask"})
    mixed = SEN12MS(str(demo / "demo.zarr"), split="test", bands=("B04", "VH", "B02"), transforms=lambda s: {**s, "extra": 1})
    part = cube.Samples(demo / "demo.zarr", where="split=test")
    np.testing.assert_array_equal(mixed[0]["image"].numpy()[1], part[0]["s1"][1])
    np.testing.assert_array_equal(mixed[0]["image"].numpy()[0], part[0]["s2"][3].astype(np.float32))
    assert mixed[0]["extra"] == 1
    loader = DataLoader(everything, batch_size=4, sampler=WeightedRandomSampler([1.0] * len(everything), 8))
    assert [batch["image"].shape for batch in loader] == [(4, 15, 256, 256)] * 2
    sample = everything[0]
    figure = everything.plot({**sample, "prediction": sample["mask"]}, suptitle="one")
    assert [axes.get_title() for axes in figure.axes] == ["Image", "Mask", "Prediction"]
    with pytest.raises(ValueError, match="'B99' is an invalid band name"):
        SEN12MS(str(demo / "demo.zarr"), bands=("B99",))
    with pytest.raises(RequestError, match="no red"):
        SEN12MS(str(demo / "demo.zarr"), bands=("B02",)).plot(sample)
    tiny = MaskedPatches(str(made_cube), split=None)
    assert tiny.bands[:2] == ("VV", "VH")


@pytest.fixture
def made_cube(tiny_cube: Built) -> Path:
    return Path(tiny_cube.url)


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")  # Lightning 2.6 beside PyTorch 2.13
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:DeprecationWarning")
def test_lightning_gets_every_patch_of_each_part_and_goes_on(demo: Path, tmp_path: Path) -> None:
    require_torch()
    import torch
    from lightning import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from cube.lightning import PatchDataModule
    from cube.torch import Classification

    class Counting(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(2, 1), dict[str, list[list[str]]](train=[], val=[], test=[])

        def see(self, stage: str, batch: dict[str, Any]) -> torch.Tensor:
            if not self.seen[stage]:  # Lightning goes on in the middle of an epoch without saying so
                self.seen[stage].append([])
            self.seen[stage][-1] += batch["patch"]
            return self.layer(torch.nan_to_num(batch["image"]).mean(dim=(-2, -1))).mean()

        def on_train_epoch_start(self) -> None:
            self.seen["train"].append([])

        def on_validation_epoch_start(self) -> None:
            self.seen["val"].append([])

        def on_test_epoch_start(self) -> None:
            self.seen["test"].append([])

        def training_step(self, batch: dict[str, Any]) -> torch.Tensor:
            return self.see("train", batch)

        def validation_step(self, batch: dict[str, Any]) -> None:
            self.see("val", batch)

        def test_step(self, batch: dict[str, Any]) -> None:
            self.see("test", batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 1e-6)

    def data() -> PatchDataModule:
        parts = {"train": 0.75, "val": 0.25, "test": "official"}
        form = Classification("label10", images=("s1",))
        return PatchDataModule(str(demo / "demo.zarr"), form, parts, batch_size=5, seed=3, incomplete="leave out")

    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    keep = ModelCheckpoint(dirpath=tmp_path, filename="middle", every_n_train_steps=5)
    whole, module = Counting(), data()
    trainer = Trainer(max_epochs=3, callbacks=[keep], **quiet)
    trainer.fit(whole, module)
    trainer.test(whole, module, verbose=False)
    split = make_split(
        cube.Samples(demo / "demo.zarr", incomplete="leave out"), {"train": 0.75, "val": 0.25, "test": "official"}
    )
    assert len(whole.seen["train"]) == 3
    for ids in whole.seen["train"]:
        assert len(set(ids)) == len(ids) == len(split.ids("train")) // 5 * 5
    assert len({tuple(ids) for ids in whole.seen["train"]}) == 3
    assert [sorted(ids) for ids in whole.seen["val"][1:]] == [sorted(split.ids("val"))] * 3  # the first is Lightning's check
    assert sorted(whole.seen["test"][0]) == sorted(split.ids("test"))

    steps = len(whole.seen["train"][0]) // 5
    first = Counting()
    begun = Trainer(max_steps=steps + 2, callbacks=[ModelCheckpoint(dirpath=tmp_path / "a", every_n_train_steps=1)], **quiet)
    begun.fit(first, data())
    again = Counting()
    path = shutil.move(next((tmp_path / "a").glob("*.ckpt")), tmp_path / "kept.ckpt")
    goes_on = [ModelCheckpoint(dirpath=tmp_path / "a", every_n_train_steps=1)]
    Trainer(max_epochs=2, callbacks=goes_on, **quiet).fit(again, data(), ckpt_path=str(path))
    assert [*first.seen["train"][1], *again.seen["train"][-1]] == whole.seen["train"][1]


def test_a_split_is_taken_as_a_file_too(demo: Path, tmp_path: Path) -> None:
    require_torch()
    from cube.lightning import PatchDataModule

    split = make_split(cube.Samples(demo / "demo.zarr"), {"train": 0.5, "val": 0.5})
    split.write(tmp_path / "s.csv")
    with pytest.raises(RequestError, match="expected a Split"):
        PatchDataModule(str(demo / "demo.zarr"), split=["train"])  # type: ignore[arg-type]
    for given in (split, str(tmp_path / "s.csv"), tmp_path / "s.csv"):
        data = PatchDataModule(str(demo / "demo.zarr"), split=given, modalities=["lc"])
        assert data.samples("val").ids.tolist() == read_split(tmp_path / "s.csv").ids("val")
    with pytest.raises(RequestError, match="no part 'test'"):
        data.test_dataloader()
    with pytest.raises(TypeError, match="did you mean 'batch_size'"):
        PatchDataModule(str(demo / "demo.zarr"), batchsize=4)
