"""Artificial optical images: what would Sentinel-2 have seen where Sentinel-1 looked?

``python examples/artificial_optical.py CUBE [--epochs 30] [--to artificial_optical.png]`` trains a small network on some scenes
of a cube and tests it on others, beside the mean colour of each grey.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, l1_loss

from cube import Samples
from cube.splits import make_split
from cube.tasks import scaled, ssim
from cube.torch import BatchLoader

COLORS = ["B04", "B03", "B02"]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RADAR, OPTICAL = partial(scaled, low=-25, high=0), partial(scaled, low=0, high=2_000)


def pair(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return ``radar`` (patch, 2, y, x) and ``colors`` (patch, 3, y, x), 0 to 1, of pixels of 20 m: that takes the speckle."""
    made = {"radar": RADAR(batch["s1"].numpy()), "colors": OPTICAL(batch["s2"].numpy())}
    return {name: avg_pool2d(torch.from_numpy(values), 2) for name, values in made.items()}


class Pyramid(nn.Module):
    """Convolutions on the picture and on two smaller ones; what they see is put together at full size."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        sizes = [nn.Conv2d(2, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.each = nn.ModuleList(deepcopy(nn.Sequential(*sizes)) for _ in range(3))
        self.last = nn.Sequential(nn.Conv2d(3 * width, width, 1), nn.ReLU(), nn.Conv2d(width, 3, 1))

    def forward(self, radar: torch.Tensor) -> torch.Tensor:
        """Return colours."""
        seen = [step(avg_pool2d(radar, 4**place)) for place, step in enumerate(self.each)]
        return self.last(torch.cat([interpolate(part, size=radar.shape[-2:], mode="bilinear") for part in seen], dim=1))


def train(model: nn.Module, loader: BatchLoader, epochs: int) -> list[float]:
    """Train and return the loss of each epoch."""
    optimizer, losses = torch.optim.Adam(model.to(DEVICE).train().parameters(), 2e-3), []
    for _ in range(epochs):
        total = 0.0
        for batch in loader:
            loss = l1_loss(model(batch["radar"].to(DEVICE)), batch["colors"].to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() / len(loader)
        losses.append(total)
    return losses


def grey(radar: torch.Tensor) -> torch.Tensor:
    """Return which of 64 greys the pixels of VV have."""
    return (radar[:, 0] * 63).long()


def grey_table(batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Return the mean colour (grey, 3) of the pixels of each grey."""
    sums, counts = torch.zeros(64, 3), torch.zeros(64, 1)
    for batch in batches:
        greys = grey(batch["radar"]).flatten()
        sums.index_add_(0, greys, batch["colors"].movedim(1, -1).reshape(-1, 3))
        counts += torch.bincount(greys, minlength=64)[:, None]
    return sums / counts.clamp(min=1)


def main(*words: str) -> dict[str, float]:
    """Train, test and draw; return the structural similarity of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cube")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--to", default="artificial_optical.png")
    given = parser.parse_args(words or None)
    torch.manual_seed(0)
    wanted = {"modalities": {"s1": None, "s2": COLORS}}
    split = make_split(Samples(given.cube), {"train": 1.0, "test": "official"})
    samples = [Samples(given.cube, ids=split.ids(part), **wanted) for part in ("train", "test")]
    learn, test = (BatchLoader(part, batch_size=8, seed=1, form=pair) for part in samples)
    model, table = Pyramid(), grey_table(list(learn))
    losses, batches = train(model, learn, given.epochs), list(test)
    true, radar = (torch.cat([batch[name] for batch in batches]) for name in ("colors", "radar"))
    with torch.no_grad():
        made = {
            "network": model.eval()(radar.to(DEVICE)).clamp(0, 1).cpu(),
            "grey to mean colour": table[grey(radar)].movedim(-1, 1),
        }
    scores = {name: float(ssim(found.numpy(), true.numpy(), peak=1).mean()) for name, found in made.items()}
    draw({"VV": radar[:, :1].expand(-1, 3, -1, -1), **made, "Sentinel-2": true}, losses, scores).savefig(given.to)
    print("SSIM on test scenes: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    return scores


def draw(shown: dict[str, torch.Tensor], losses: list[float], scores: dict[str, float]) -> Figure:
    """Return the curve of the loss, and three test patches: radar, what was made of it, and what there was."""
    figure = Figure((11, 6), layout="constrained")
    places = figure.subplot_mosaic([["curve", *(f"{name} {row}" for name in shown)] for row in range(3)])
    places["curve"].plot(losses)
    places["curve"].set(xlabel="epoch", ylabel="mean absolute error")
    for name, pictures in shown.items():
        places[f"{name} 0"].set_title(f"{name}\nSSIM {scores[name]:.3f}" if name in scores else name)
        for row in range(3):
            places[f"{name} {row}"].imshow(pictures[row * len(pictures) // 3].movedim(0, -1).clamp(0, 1).numpy())
            places[f"{name} {row}"].axis("off")
    return figure


if __name__ == "__main__":
    main()
