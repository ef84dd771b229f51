"""SAR-optical matching: do a radar and an optical window show the same ground? Half of the pairs match.

``python examples/matching.py CUBE [--epochs 40] [--to matching.png]`` trains a pseudo-siamese network on some scenes of a cube
and tests it on others, beside normalised cross-correlation.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits

from cube import Samples
from cube.splits import make_split
from cube.tasks import correlation, matching_pairs, scaled, windows

SIDE, SIZE = 64, 128  # pixels of 20 m: of windows, and of patches
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Images:
    """Radar and optical images of a part of a split, in memory."""

    def __init__(self, samples: Samples) -> None:
        read = samples.read(range(len(samples)))
        made = scaled(read["s1"], -25, 0), scaled(read["s2"], 0, 4_000)
        self.radar, self.optical = (avg_pool2d(torch.from_numpy(values), 2).numpy() for values in made)
        self.scenes = np.char.add(samples.label("season").astype(str), samples.label("scene").astype(str))

    def pairs(self, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return radar windows (pair, band, y, x), optical windows, and which pairs match."""
        found = matching_pairs(self.scenes, SIZE, side=SIDE, hard=0.5 if len(set(self.scenes)) > 1 else 1, seed=seed)
        cut = windows(self.radar, found.first, SIDE), windows(self.optical, found.second, SIDE), found.matches
        return tuple(torch.from_numpy(part).to(DEVICE) for part in cut)


class PseudoSiamese(nn.Module):
    """A stream of convolutions for each kind of image, and layers on both answers."""

    def __init__(self) -> None:
        super().__init__()
        self.radar, self.optical = stream(2), stream(4)
        self.both = nn.Sequential(nn.Linear(2 * 32 * 16, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 1))

    def forward(self, radar: torch.Tensor, optical: torch.Tensor) -> torch.Tensor:
        """Return (pair): positive where both match."""
        seen = torch.stack([self.radar(radar), self.optical(optical)])
        return self.both(torch.cat([seen.prod(dim=0), (seen[0] - seen[1]).abs()], dim=1))[:, 0]


def stream(bands: int) -> nn.Module:
    """Return four convolutions, each of which halves the picture."""
    layers: list[nn.Module] = []
    for before, after in ((bands, 16), (16, 32), (32, 32), (32, 32)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.LayerNorm(32 * 16))


def train(model: nn.Module, images: Images, epochs: int, batch: int = 16) -> list[float]:
    """Train on new pairs in each epoch and return the loss of each."""
    optimizer, losses = torch.optim.Adam(model.to(DEVICE).train().parameters(), 1e-3), []
    for epoch in range(epochs):
        radar, optical, matches = images.pairs(epoch)
        losses.append(0.0)
        for rows in torch.randperm(len(matches)).split(batch):
            loss = binary_cross_entropy_with_logits(model(radar[rows], optical[rows]), matches[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1] += loss.item() * len(rows) / len(matches)
    return losses


def correlations(radar: torch.Tensor, optical: torch.Tensor) -> np.ndarray:
    """Return (pair): normalised cross-correlation of VV and red."""
    return np.array([correlation(*pair)[0, 0] for pair in zip(radar[:, 0].numpy(), optical[:, 2].numpy(), strict=True)])


def main(*words: str) -> dict[str, float]:
    """Train, test and draw; return the share of pairs that are told right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cube")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--to", default="matching.png")
    given = parser.parse_args(words or None)
    torch.manual_seed(0)
    wanted = {"s1": None, "s2": ["B02", "B03", "B04", "B08"]}
    split = make_split(Samples(given.cube), {"train": 1.0, "test": "official"})
    learn, test = (Images(Samples(given.cube, ids=split.ids(part), modalities=wanted)) for part in ("train", "test"))
    model = PseudoSiamese()
    losses = train(model, learn, given.epochs)
    *pair, known = (part.cpu() for part in learn.pairs(given.epochs))
    values = correlations(*pair)
    least = max(values, key=lambda value: ((values >= value) == (known.numpy() > 0)).mean())  # best on training scenes
    drawn = [torch.cat(parts) for parts in zip(*map(test.pairs, range(10_000, 10_004)), strict=True)]
    with torch.no_grad():
        answers = model.eval()(*drawn[:2]).cpu().numpy()
    radar, optical, right = drawn[0].cpu(), drawn[1].cpu(), drawn[2].cpu().numpy() > 0
    said = {"network": answers > 0, "cross-correlation": correlations(radar, optical) >= least}
    scores = {name: float((found == right).mean()) for name, found in said.items()}
    print("told right on test scenes: " + ", ".join(f"{name} {score:.3f}" for name, score in scores.items()))
    figure = Figure((11, 5), layout="constrained")
    places = figure.subplot_mosaic([["curve", *(f"{kind} {place}" for place in range(5))] for kind in ("radar", "optical")])
    places["curve"].plot(losses)
    places["curve"].set_title("loss by epoch")
    for place, row in enumerate((0, 9, 18, 26, 40)):
        truth, told = ("match" if value else "no match" for value in (right[row], answers[row] > 0))
        places[f"radar {place}"].imshow(radar[row, 0].numpy(), cmap="gray", vmin=0, vmax=1)
        places[f"optical {place}"].imshow(optical[row, [2, 1, 0]].movedim(0, -1).mul(2).clamp(0, 1).numpy())
        places[f"radar {place}"].set_title(f"{truth}\nsaid: {told}")
    figure.savefig(given.to)
    return scores


if __name__ == "__main__":
    main()
