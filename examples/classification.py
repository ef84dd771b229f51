"""Scene classification: which of ten land-cover classes does a patch show, from Sentinel-1 and Sentinel-2?

``python examples/classification.py CUBE [--epochs 40] [--to classification.png]`` trains a small network on some scenes of a
cube and tests it on others, beside logistic regression on the means of bands. Labels come with the batches (``labels10``).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cube import Samples
from cube.splits import make_split
from cube.tasks import scaled
from cube.torch import BatchLoader, Classification

BY = "labels10"
"""All classes with a tenth of the patch or more."""
BANDS = 15
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Scaled(Classification):
    """Images and labels, radar (the first two bands) and optical images scaled as published for SEN12MS."""

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return ``image`` and ``label``."""
        batch = super().__call__(sample)
        image = batch["image"].numpy()
        parts = scaled(image[..., :2, :, :], -25, 0), scaled(image[..., 2:, :, :], 0, 10_000)
        return {**batch, "image": torch.from_numpy(np.concatenate(parts, axis=-3))}


def small_network(classes: int) -> nn.Module:
    """Return five convolutions on pixels of 40 m, each of which halves the picture, and a layer on the mean of what is left."""
    layers: list[nn.Module] = [nn.AvgPool2d(4), nn.BatchNorm2d(BANDS)]
    for before, after in zip((BANDS, 32, 32, 64, 64), (32, 32, 64, 64, 64), strict=True):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def regression(classes: int) -> nn.Module:
    """Return logistic regression on the mean of each band."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(BANDS), nn.Linear(BANDS, classes))


def train(model: nn.Module, loader: BatchLoader, epochs: int, rate: float) -> list[float]:
    """Train and return the loss of each epoch."""
    model.to(DEVICE).train()
    optimizer, losses = torch.optim.Adam(model.parameters(), rate, weight_decay=1e-5), []
    for _ in range(epochs):
        total = 0.0
        for batch in loader:
            flips = [axis for axis in (-1, -2) if torch.rand(()) < 0.5]
            answer = model(batch["image"].to(DEVICE).flip(flips))
            loss = binary_cross_entropy_with_logits(answer, batch["label"].to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() / len(loader)
        losses.append(total)
    return losses


@torch.no_grad()
def answers(model: nn.Module, loader: BatchLoader) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of all patches (patch, class) and what the model says."""
    model.eval()
    pairs = [(batch["label"].numpy(), (model(batch["image"].to(DEVICE)) > 0).cpu().numpy()) for batch in loader]
    true, said = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return true, said


def f1(true: np.ndarray, said: np.ndarray) -> float:
    """Return the F1 score over all patches and classes."""
    return float(2 * (true * said).sum() / max(1, true.sum() + said.sum()))


def main(*words: str) -> dict[str, float]:
    """Train, test and draw; return the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cube")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--to", default="classification.png")
    given = parser.parse_args(words or None)
    torch.manual_seed(0)
    split = make_split(Samples(given.cube), {"train": 1.0, "test": "official"})
    parts = {name: Samples(given.cube, ids=split.ids(name)) for name in ("train", "test")}
    classes = parts["train"].classes(BY)
    learn, test = (BatchLoader(samples, batch_size=16, seed=1, form=Scaled(BY)) for samples in parts.values())
    models = {"network": (small_network(len(classes)), 1e-3), "regression on band means": (regression(len(classes)), 1e-2)}
    figure, scores = Figure((9, 4), layout="constrained"), {}
    curve, bars = figure.subplots(1, 2)
    for place, (name, (model, rate)) in enumerate(models.items()):
        curve.plot(train(model, learn, given.epochs, rate), label=name)
        true, said = answers(model, test)
        scores[name] = f1(true, said)
        shown = np.flatnonzero(true.any(axis=0))
        each = [f1(true[:, [kind]], said[:, [kind]]) for kind in shown]
        bars.barh(np.arange(len(shown)) + 0.4 * place, each, 0.4, label=f"{name}: {scores[name]:.3f}")
    curve.set(xlabel="epoch", ylabel="loss", title=f"{len(parts['train'])} patches of training scenes")
    names = [classes[kind] for kind in shown]
    bars.set(yticks=np.arange(len(shown)), yticklabels=names, xlabel="F1", title=f"{len(parts['test'])} of test scenes")
    curve.legend()
    bars.legend()
    figure.savefig(given.to)
    print("F1 on test scenes: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    return scores


if __name__ == "__main__":
    main()
