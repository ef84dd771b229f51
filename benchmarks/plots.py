"""Draws the pictures of ``docs/performance.md`` from what ``read.py`` and ``shuffle.py`` left in ``out``."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from read import LOADERS

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"


def draw_rates() -> None:
    """Draw one bar per loader."""
    runs = json.loads((HERE / "out" / "read.json").read_text(encoding="utf-8"))["runs"]
    names = [name for name in LOADERS if name in runs][::-1]
    rates = [statistics.median(figures["rate"] for figures in runs[name]) for name in names]
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots()
    colors = ["#1b6ca8" if name.startswith("cube") else "#b9b9b9" if name.startswith("bare") else "#d98b3a" for name in names]
    bars = axes.barh([LOADERS[name] for name in names], rates, color=colors)
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3)
    axes.set(xlabel="patches a second (2.5 MB each), two cores", xlim=(0, 1.1 * max(rates)))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "read-rates.svg", metadata={"Date": None})


def draw_shuffles() -> None:
    """Draw how well batches are mixed against what it costs, one line per memory."""
    found = json.loads((HERE / "out" / "shuffle.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for memory in found[0]["tiles_per_patch"]:
        cost = [row["tiles_per_patch"][memory] for row in found]
        axes.plot(cost, [100 * row["same_scene"] for row in found], marker="o", label=f"{memory} GiB of tiles")
    axes.axhline(100 * found[0]["global"], color="#777777", linestyle="--", label="a shuffle over everything")
    axes.set(xlabel="tiles decoded a patch", ylabel="pairs of one scene in a batch of 32, %", yscale="log")
    axes.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "shuffle.svg", metadata={"Date": None})


if __name__ == "__main__":
    mpl.rcParams["svg.hashsalt"] = "cube"
    draw_rates()
    draw_shuffles()
