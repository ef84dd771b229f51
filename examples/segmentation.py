"""Semantic segmentation: which of ten land-cover classes is each pixel, from Sentinel-1 and Sentinel-2?

``python examples/segmentation.py CUBE [--epochs 30] [--to segmentation.png]`` trains a small network on some scenes of a cube
and tests it on others, beside the nearest mean of the classes' pixels.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import cross_entropy

from cube import Samples
from cube.splits import make_split
from cube.tasks import mask_table, scaled
from cube.torch import BatchLoader, ImageAndMask, Scaled

BANDS, IGNORED = 15, 255
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SCALES = {"s1": partial(scaled, low=-25, high=0), "s2": partial(scaled, low=0, high=10_000)}  # as published


def small_network(classes: int, width: int = 32) -> nn.Module:
    """Return convolutions on pixels of 40 m that look further and further: land cover comes in cells of 500 m."""
    layers: list[nn.Module] = [nn.AvgPool2d(4)]
    for before, step in zip((BANDS, *[width] * 5), (1, 1, 2, 4, 8, 1), strict=True):
        layers += [nn.Conv2d(before, width, 3, padding=step, dilation=step), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, classes, 1), nn.Upsample(scale_factor=4, mode="bilinear"))


def train(model: nn.Module, loader: BatchLoader, epochs: int) -> list[float]:
    """Train and return the loss of each epoch."""
    optimizer, losses = torch.optim.Adam(model.to(DEVICE).train().parameters(), 3e-3), []
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * len(loader))
    for _ in range(epochs):
        losses.append(0.0)
        for batch in loader:
            flips = [axis for axis in (-1, -2) if torch.rand(()) < 0.5]
            image, mask = (batch[name].to(DEVICE).flip(flips) for name in ("image", "mask"))
            loss = cross_entropy(model(image), mask, ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses[-1] += loss.item() / len(loader)
    return losses


def class_means(loader: BatchLoader, classes: int) -> torch.Tensor:
    """Return the mean (class, band) of the pixels of each class, far away for classes that there are not."""
    sums, counts = torch.zeros(classes, BANDS), torch.zeros(classes, 1)
    for batch in loader:
        known = batch["mask"] != IGNORED
        codes = batch["mask"][known]
        sums.index_add_(0, codes, batch["image"].movedim(1, -1)[known])
        counts += torch.bincount(codes, minlength=classes)[:, None]
    return torch.where(counts > 0, sums / counts.clamp(min=1), 1e6)


def nearest_mean(means: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return (patch, y, x): the class whose mean is nearest to each pixel."""
    return torch.cdist(image.movedim(1, -1).flatten(1, 2), means).argmin(dim=-1).unflatten(1, image.shape[-2:])


def mean_iou(true: torch.Tensor, said: torch.Tensor, classes: int) -> float:
    """Return the intersection over union of true and said classes, the mean over those that are there."""
    table = torch.bincount((true * classes + said)[true != IGNORED], minlength=classes**2).reshape(classes, classes).double()
    each = table.diag() / (table.sum(0) + table.sum(1) - table.diag())
    return float(each[table.sum(dim=1) > 0].mean())


def main(*words: str) -> dict[str, float]:
    """Train, test and draw; return the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cube")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--to", default="segmentation.png")
    given = parser.parse_args(words or None)
    torch.manual_seed(0)
    cube = Samples(given.cube)
    names, table = mask_table(cube.constant("IGBP_code").tolist(), cube.constant("IGBP_group").tolist())
    split, form = make_split(cube, {"train": 1.0, "test": "official"}), Scaled(ImageAndMask(table=tuple(table)), SCALES)
    learn, test = (
        BatchLoader(Samples(given.cube, ids=split.ids(part)), batch_size=8, seed=1, form=form) for part in ("train", "test")
    )
    model, means = small_network(len(names)), class_means(learn, len(names))
    losses, batches = train(model, learn, given.epochs), list(test)
    with torch.no_grad():
        nets = [model.eval()(batch["image"].to(DEVICE)).argmax(dim=1).cpu() for batch in batches]
    near = [nearest_mean(means, batch["image"]) for batch in batches]
    true = torch.cat([batch["mask"] for batch in batches])
    said = {"network": torch.cat(nets), "nearest mean": torch.cat(near)}
    scores = {name: mean_iou(true, found, len(names)) for name, found in said.items()}
    draw({"land cover": true, **said}, losses, scores).savefig(given.to)
    print("mean IoU on test scenes: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    return scores


def draw(shown: dict[str, torch.Tensor], losses: list[float], scores: dict[str, float]) -> Figure:
    """Return the curve of the loss, and three test patches: their land cover and what was said of them."""
    figure = Figure((11, 6), layout="constrained")
    places = figure.subplot_mosaic([["curve", *(f"{name} {row}" for name in shown)] for row in range(3)])
    places["curve"].plot(losses)
    places["curve"].set(xlabel="epoch", ylabel="loss")
    for name, masks in shown.items():
        places[f"{name} 0"].set_title(f"{name}: IoU {scores[name]:.3f}" if name in scores else name)
        for row in range(3):
            places[f"{name} {row}"].imshow(
                masks[row * len(masks) // 3].numpy(), vmin=0, vmax=9, cmap="tab10", interpolation="nearest"
            )
            places[f"{name} {row}"].axis("off")
    return figure


if __name__ == "__main__":
    main()
