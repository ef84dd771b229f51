"""What a split that divides scenes lets through, and what that does to a score.

    python benchmarks/leaks.py CUBE [--epochs 40] [--to benchmarks/out/leaks.json] [--picture docs/leaks.svg]

Counts tiles of validation patches that training patches show too: on patches of the cube, and on dense scenes of 28 × 28
patches, as those of SEN12MS are. Then trains the network of ``examples/classification.py`` with three kinds of validation part
and lays its score there beside that on scenes that nobody has seen.
"""

from __future__ import annotations

import argparse
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cube import Samples
from cube.splits import make_split

EXAMPLE = Path(__file__).parents[1] / "examples" / "classification.py"
ACROSS = 2
"""Tiles across a patch."""


def tiles(scene: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return (patch, 4): numbers of the tiles that patches at places in tiles show."""
    found = [(scene * 10_000 + row + down) * 10_000 + column + right for down in range(ACROSS) for right in range(ACROSS)]
    return np.stack(found, axis=1)


def leak(shown: np.ndarray, validation: np.ndarray) -> tuple[float, float]:
    """Return the share of validation tiles that lie in training patches too, and of patches all of whose tiles do."""
    trained = np.isin(shown[validation], shown[~validation])
    own = np.unique(shown[validation])
    return float(np.isin(own, shown[~validation]).mean()), float(trained.all(axis=1).mean())


def of_random(shown: np.ndarray, rng: np.random.Generator, draws: int = 50) -> tuple[float, float]:
    """Return the means of :func:`leak` over validation parts of a tenth of the patches."""
    parts = [rng.permutation(len(shown)) < round(0.1 * len(shown)) for _ in range(draws)]
    tiles_of, patches = np.mean([leak(shown, part) for part in parts], axis=0)
    return float(tiles_of), float(patches)


def of_cube(samples: Samples) -> np.ndarray:
    """Return (patch, 4) of the patches of a cube, by their transforms."""
    names = np.char.add(samples.label("season").astype(str), samples.label("scene").astype(str))
    scene = np.unique(names, return_inverse=True)[1]
    transform = samples.label("transform")
    place = np.zeros((len(samples), 2), np.int64)
    for number in np.unique(scene):
        rows = scene == number
        corners = transform[rows][:, [5, 2]] / transform[rows][:, [4, 0]] / (samples.size // ACROSS)
        place[rows] = np.rint(corners - corners.min(axis=0))
    return tiles(scene, *place.T)


def score(url: str, train: list[str], validation: list[str], test: list[str], epochs: int) -> dict[str, float]:
    """Return F1 on the validation part and on test scenes."""
    import torch

    example = runpy.run_path(str(EXAMPLE))
    torch.manual_seed(0)
    loaders = {
        name: example["BatchLoader"](Samples(url, ids=ids), batch_size=16, seed=1, form=example["Scaled"](example["BY"]))
        for name, ids in (("train", train), ("validation", validation), ("test", test))
    }
    model = example["small_network"](len(Samples(url).classes(example["BY"])))
    example["train"](model, loaders["train"], epochs, 1e-3)
    return {name: example["f1"](*example["answers"](model, loaders[name])) for name in ("validation", "test")}


def draw(found: dict[str, Any], maps: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Return the shares, and maps of the first scene: title → tiles (patch, 4), and which patches are for validation."""
    figure = Figure((10, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 1.3])
    for place, (title, (shown, part)) in zip(axes[:2], maps.items(), strict=True):
        scene = shown[:, 0] // 100_000_000 == shown[0, 0] // 100_000_000
        validation, training = (np.unique(shown[scene & chosen]) for chosen in (part, ~part))
        for numbers, color, label in (
            (np.setdiff1d(training, validation), "#4a86b8", "training"),
            (np.setdiff1d(validation, training), "#e8a33d", "validation"),
            (np.intersect1d(validation, training), "#c0392b", "both"),
        ):
            rows, columns = numbers // 10_000 % 10_000, numbers % 10_000
            place.scatter(columns, -rows, marker="s", s=260, color=color, label=label)
        place.set(title=title, xticks=[], yticks=[], aspect="equal", xlim=(-0.7, 5.7), ylim=(-5.7, 0.7))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False)
    names = list(found)
    bars = axes[2].barh(range(len(names)), [100 * found[name]["tiles"] for name in names], color="#c0392b")
    axes[2].bar_label(bars, [f"{100 * found[name]['tiles']:.1f} %" for name in names], padding=3)
    axes[2].set(yticks=range(len(names)), yticklabels=names, xlim=(0, 128), title="validation tiles in training, %")
    axes[2].invert_yaxis()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cube")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--to", type=Path, default=Path("benchmarks/out/leaks.json"))
    parser.add_argument("--picture", type=Path, default=None)
    given = parser.parse_args()
    rng = np.random.default_rng(1)
    samples = Samples(given.cube, incomplete="keep")
    shown = of_cube(samples)
    random = rng.permutation(len(shown)) < round(0.1 * len(shown))
    grid = np.indices((28, 28)).reshape(2, -1)
    dense = tiles(np.repeat(np.arange(20), grid.shape[1]), *(np.tile(axis, 20) for axis in grid))
    split = make_split(samples, {"train": 0.75, "val": 0.25})
    clean = np.isin(samples.ids, split.ids("val"))
    blocks = make_split(samples, {"train": 0.75, "val": 0.25}, block=512, balance=None)
    kept = np.isin(samples.ids, blocks.patches)
    of_blocks = np.isin(samples.ids, blocks.ids("val"))[kept]
    pairs = {
        "10 % random, dense scenes": of_random(dense, rng),
        "10 % random, this cube": of_random(shown, rng),
        "make_split": leak(shown, clean),
        "make_split(block=512)": leak(shown[kept], of_blocks),
    }
    found = {name: {"tiles": tiles_of, "patches": patches} for name, (tiles_of, patches) in pairs.items()}
    for name, shares in found.items():
        print(f"{name:28} {shares['tiles']:7.1%} of validation tiles in training, {shares['patches']:7.1%} of patches wholly")
    official = make_split(Samples(given.cube), {"rest": 1.0, "test": "official"})
    rest, test = np.array(official.ids("rest")), official.ids("test")
    by_scene = make_split(Samples(given.cube, ids=rest.tolist()), {"train": 0.75, "val": 0.25})
    drawn = rng.permutation(len(rest)) < round(0.25 * len(rest))
    scores = {
        "random validation": score(given.cube, rest[~drawn].tolist(), rest[drawn].tolist(), test, given.epochs),
        "validation by scene": score(given.cube, by_scene.ids("train"), by_scene.ids("val"), test, given.epochs),
    }
    for name, values in scores.items():
        print(f"{name:28} F1 {values['validation']:.3f} there, {values['test']:.3f} on test scenes")
    given.to.parent.mkdir(parents=True, exist_ok=True)
    given.to.write_text(json.dumps({"leaks": found, "scores": scores}, indent=2))
    if given.picture:
        maps = {"random patches": (shown, random), "blocks with a gap": (shown[kept], of_blocks)}
        draw(found, maps).savefig(given.picture)


if __name__ == "__main__":
    main()
