"""SAR colorization: colours for a radar image that keeps its own brightness, from Sentinel-1 alone.

``python examples/colorization.py CUBE [--epochs 30] [--to colorization.png]`` trains a small network towards the published
target (``cube.tasks.color_target``) on some scenes of a cube and tests it on others, beside the mean colour of each grey.
"""

from __future__ import annotations

import argparse

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import avg_pool2d, l1_loss

from cube import Samples
from cube.splits import make_split
from cube.tasks import color_target, nrmse, q2n, spectral_angle
from cube.torch import BatchLoader

COLORS = ["B04", "B03", "B02"]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def pair(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return ``radar`` (patch, 2, y, x) and its ``colors`` (patch, 3, y, x), as reflectance, of pixels of 40 m.

    Each radar image has mean 0 and deviation 1, as the target takes mean and deviation of the patch.
    """
    radar, optical = avg_pool2d(batch["s1"], 4), avg_pool2d(batch["s2"].float(), 4) / 10_000
    colors = torch.from_numpy(color_target(radar[:, 0].numpy(), optical.numpy()))
    mean, deviation = radar.mean(dim=(-2, -1), keepdim=True), radar.std(dim=(-2, -1), keepdim=True)
    return {"radar": (radar - mean) / deviation, "colors": colors}


def small_network(width: int = 32) -> nn.Module:
    """Return convolutions that look further and further."""
    layers: list[nn.Module] = []
    for before, step in zip((2, *[width] * 4), (1, 1, 2, 4, 8), strict=True):
        layers += [nn.Conv2d(before, width, 3, padding=step, dilation=step), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, 3, 1))


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
    return ((radar[:, 0] + 3) / 6 * 63).clamp(0, 63).long()


def grey_table(batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Return the mean colour (grey, 3) of the pixels of each grey."""
    sums, counts = torch.zeros(64, 3), torch.zeros(64, 1)
    for batch in batches:
        greys = grey(batch["radar"]).flatten()
        sums.index_add_(0, greys, batch["colors"].movedim(1, -1).reshape(-1, 3))
        counts += torch.bincount(greys, minlength=64)[:, None]
    return sums / counts.clamp(min=1)


def main(*words: str) -> dict[str, float]:
    """Train, test and draw; return Q4 of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cube")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--to", default="colorization.png")
    given = parser.parse_args(words or None)
    torch.manual_seed(0)
    wanted = {"modalities": {"s1": None, "s2": COLORS}}
    split = make_split(Samples(given.cube), {"train": 1.0, "test": "official"})
    samples = [Samples(given.cube, ids=split.ids(part), **wanted) for part in ("train", "test")]
    learn, test = (BatchLoader(part, batch_size=8, seed=1, form=pair) for part in samples)
    model, table = small_network(), grey_table(list(learn))
    losses, batches = train(model, learn, given.epochs), list(test)
    true, radar = (torch.cat([batch[name] for batch in batches]) for name in ("colors", "radar"))
    with torch.no_grad():
        made = {"network": model.eval()(radar.to(DEVICE)).cpu(), "grey to mean colour": table[grey(radar)].movedim(-1, 1)}
    scores = {name: float(q2n(found.numpy(), true.numpy()).mean()) for name, found in made.items()}
    for name, found in made.items():
        error, angle = (float(measure(found.numpy(), true.numpy()).mean()) for measure in (nrmse, spectral_angle))
        print(f"{name} on test scenes: Q4 {scores[name]:.3f}, NRMSE {error:.3f}, spectral angle {angle:.2f} degrees")
    draw({"VV": radar[:, :1].expand(-1, 3, -1, -1) / 5 + 0.6, **made, "target": true}, losses, scores).savefig(given.to)
    return scores


def draw(shown: dict[str, torch.Tensor], losses: list[float], scores: dict[str, float]) -> Figure:
    """Return the curve of the loss, and three test patches: radar, the colours made for it, and the target."""
    figure = Figure((11, 6), layout="constrained")
    places = figure.subplot_mosaic([["curve", *(f"{name} {row}" for name in shown)] for row in range(3)])
    places["curve"].plot(losses)
    places["curve"].set(xlabel="epoch", ylabel="mean absolute error")
    for name, pictures in shown.items():
        places[f"{name} 0"].set_title(f"{name}\nQ4 {scores[name]:.3f}" if name in scores else name)
        for row in range(3):
            picture = pictures[row * len(pictures) // 3].movedim(0, -1)
            places[f"{name} {row}"].imshow((picture if name == "VV" else picture * 5).clamp(0, 1).numpy())
            places[f"{name} {row}"].axis("off")
    return figure


if __name__ == "__main__":
    main()
