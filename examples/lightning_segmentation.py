"""Semantic segmentation with Lightning: its trainer does the epochs, a data module of the cube gives the batches.

``python examples/lightning_segmentation.py CUBE [--epochs 20] [--to lightning_segmentation.png]`` needs ``lightning``.
Training, validation and test share no ground.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from typing import Any

import torch
from lightning import LightningModule, Trainer, seed_everything
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import cross_entropy

from cube import Samples
from cube.lightning import PatchDataModule
from cube.tasks import mask_table, scaled
from cube.torch import ImageAndMask, Scaled

BANDS, IGNORED = 15, 255
SCALES = {"s1": partial(scaled, low=-25, high=0), "s2": partial(scaled, low=0, high=10_000)}


class Segmentation(LightningModule):
    """Convolutions on pixels of 40 m that look further and further, trained with cross entropy."""

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.AvgPool2d(4)]
        for before, step in zip((BANDS, *[width] * 5), (1, 1, 2, 4, 8, 1), strict=True):
            layers += [nn.Conv2d(before, width, 3, padding=step, dilation=step), nn.BatchNorm2d(width), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Conv2d(width, classes, 1), nn.Upsample(scale_factor=4, mode="bilinear"))
        self.losses: dict[str, list[float]] = {"train": [], "val": []}
        self.right = self.most = 0.0

    def training_step(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the loss of a batch."""
        loss = cross_entropy(self.network(batch["image"]), batch["mask"], ignore_index=IGNORED)
        self.log("train", loss, on_step=False, on_epoch=True, batch_size=len(batch["mask"]))
        return loss

    def validation_step(self, batch: dict[str, Any]) -> None:
        """Log the loss of a batch."""
        loss = cross_entropy(self.network(batch["image"]), batch["mask"], ignore_index=IGNORED)
        self.log("val", loss, batch_size=len(batch["mask"]))

    def test_step(self, batch: dict[str, Any]) -> None:
        """Log the share of pixels that are told right, and that of the class that is most frequent."""
        mask = batch["mask"]
        right = (self.network(batch["image"]).argmax(dim=1) == mask)[mask != IGNORED].float().mean()
        most = torch.bincount(mask[mask != IGNORED]).max() / (mask != IGNORED).sum()
        self.log_dict({"right": right, "most frequent": most}, batch_size=len(mask))

    def on_train_epoch_end(self) -> None:
        """Keep the losses for the picture."""
        for name, values in self.losses.items():
            values.append(float(self.trainer.callback_metrics.get(name, torch.nan)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), 3e-3)


def main(*words: str) -> dict[str, float]:
    """Train, test and draw; return the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cube")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--to", default="lightning_segmentation.png")
    given = parser.parse_args(words or None)
    seed_everything(0, verbose=False)
    cube = Samples(given.cube)
    names, table = mask_table(cube.constant("IGBP_code").tolist(), cube.constant("IGBP_group").tolist())
    form = Scaled(ImageAndMask(table=tuple(table)), SCALES)
    data = PatchDataModule(given.cube, form, {"train": 0.75, "val": 0.25, "test": "official"}, batch_size=8, seed=1)
    model = Segmentation(len(names))
    with tempfile.TemporaryDirectory() as folder:
        quiet: Any = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        trainer = Trainer(max_epochs=given.epochs, default_root_dir=folder, enable_checkpointing=False, **quiet)
        trainer.fit(model, data)
        found = trainer.test(model, data, verbose=False)[0]
    scores = {name: float(value) for name, value in found.items()}
    figure = Figure((11, 4), layout="constrained")
    places = figure.subplot_mosaic([["curve", "true 0", "said 0", "true 1", "said 1"]], width_ratios=[2, 1, 1, 1, 1])
    for name, values in model.losses.items():
        places["curve"].plot(values, label=name)
    places["curve"].set(xlabel="epoch", ylabel="loss")
    places["curve"].legend()
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        shown = {"true": batch["mask"], "said": model.eval().network(batch["image"]).argmax(dim=1)}
    for name, masks in shown.items():
        for row in range(2):
            places[f"{name} {row}"].imshow(
                masks[row * len(masks) // 2].numpy(), vmin=0, vmax=9, cmap="tab10", interpolation="nearest"
            )
            places[f"{name} {row}"].set_title("land cover" if name == "true" else f"network: {scores['right']:.0%} right")
            places[f"{name} {row}"].axis("off")
    figure.savefig(given.to)
    print("pixels told right on test scenes: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    return scores


if __name__ == "__main__":
    main()
