"""How the stages of a build grow with the number of patches: fits, the table of ``endtoend.py``, and its pictures.

``python benchmarks/growth.py`` draws ``docs/stages-growth.svg`` and ``docs/workers-memory.svg`` from ``out/endtoend.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
LIMIT = 1.1
"""Largest exponent that still counts as growth in proportion."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one size showed."""

    share: int
    """The run has one ``share``-th of the scenes."""
    patches: int
    stages: dict[str, dict[str, Any]]
    """Stage → what it took, as ``stages.py`` says."""
    worker_peaks: list[list[int]]
    """Per worker, its largest resident size so far at the end of each of its batches, in bytes."""
    receipt_bytes: int
    """Bytes of all receipts."""

    def seconds(self, stage: str, kind: str) -> float:
        """Return the ``wall`` or ``cpu`` seconds of a stage; those of the driver and the workers together."""
        line = self.stages[stage]
        return line["seconds"] if kind == "wall" else line["driver_cpu"] + line.get("workers_cpu", 0.0)


def stages_of(runs: list[Run]) -> list[str]:
    """Return the stages in the order of the flow."""
    return list(runs[-1].stages)


def exponent(runs: list[Run], stage: str, kind: str) -> float:
    """Return the slope of log(seconds) over log(patches), by least squares; nothing is subtracted."""
    patches, seconds = [run.patches for run in runs], [run.seconds(stage, kind) for run in runs]
    return float(np.polyfit(np.log(patches), np.log(seconds), 1)[0])


def as_table(runs: list[Run]) -> str:
    """Return a Markdown table: a row per stage, with CPU seconds by size."""
    sizes = [f"{run.patches:,}" for run in runs]
    head = ["stage", "wall s, all", *(f"CPU s, {size}" for size in sizes), "exponent", "of wall time", "driver MB, all"]
    rows = [head, ["---"] * len(head)]
    for name in stages_of(runs):
        fits = [f"{exponent(runs, name, kind):.2f}" if len(runs) > 1 else "–" for kind in ("cpu", "wall")]
        seconds = [f"{run.seconds(name, 'cpu'):.2f}" for run in runs]
        last = runs[-1].stages[name]
        rows.append([name, f"{last['seconds']:.1f}", *seconds, *fits, f"{last['driver_peak'] / 1e6:.0f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw_growth(runs: list[Run]) -> None:
    """Draw the seconds of every stage over the number of patches."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, kind, title in ((left, "cpu", "CPU seconds, driver and workers"), (right, "wall", "wall seconds, two processes")):
        _draw_stages(axes, runs, kind)
        axes.set(title=title, xlabel="patches")
    figure.savefig(DOCS / "stages-growth.svg", metadata={"Date": None})


def _draw_stages(axes: Axes, runs: list[Run], kind: str) -> None:
    patches = np.array([run.patches for run in runs])
    for name in stages_of(runs):
        seconds = [run.seconds(name, kind) for run in runs]
        axes.loglog(patches, seconds, marker="o", markersize=4, label=f"{name}: {exponent(runs, name, kind):.2f}")
    axes.loglog(patches, 0.03 * patches / patches[0], color="#999999", linestyle=":", label="in proportion: 1")
    axes.legend(frameon=False, fontsize="small", ncols=2, loc="upper left", bbox_to_anchor=(0, -0.17))
    axes.set_xticks(patches, [f"{count:,}" for count in patches], minor=False)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)


def draw_workers(runs: list[Run]) -> None:
    """Draw the peak of every worker over the batches it wrote."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    for run, color in zip(runs, ("#d98b3a", "#7a9e4f", "#1b6ca8"), strict=False):
        for number, peaks in enumerate(run.worker_peaks):
            label = f"{run.patches:,} patches" if number == 0 else None
            axes.plot(range(1, len(peaks) + 1), np.array(peaks) / 1e6, color=color, label=label, linewidth=1.4)
    most = max(max(peaks) for run in runs for peaks in run.worker_peaks) / 1e6
    axes.set(xlabel="batches a worker has written", ylabel="its peak memory, MB", ylim=(0, 1.3 * most), xscale="log")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "workers-memory.svg", metadata={"Date": None})


def read_runs() -> list[Run]:
    """Return what ``endtoend.py`` left."""
    document = json.loads((HERE / "out" / "endtoend.json").read_text(encoding="utf-8"))
    return [Run(**run) for run in document["runs"]]


if __name__ == "__main__":
    mpl.rcParams["svg.hashsalt"] = "cube"
    draw_growth(read_runs())
    draw_workers(read_runs())
