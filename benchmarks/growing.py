"""What it costs to add to a cube: a hundredth of its patches, and ten times a tenth, against building it at once.

``python benchmarks/growing.py [--patches 2560] [--rounds 3]`` prints seconds, objects and bytes written, each as a share of the
whole build, medians of the rounds. The hundredth is added twice: where the cube ends with a whole shard, and where the last
one is cut short and written again.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from scenes import TEXTURE, make_scenes

import cube

SHARD = 256


@dataclass(frozen=True)
class Cost:
    """What one build wrote, and how long it took."""

    seconds: float
    objects: int
    size: int


def add(source: Path, to: Path, patches: int | None) -> Cost:
    """Add so many patches to a cube, or all that it lacks; it is begun where there is none."""
    folders = [to.with_suffix(f".{kind}") for kind in ("zarr", "stac")]
    before = {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*") if path.is_file()}
    started = time.perf_counter()
    built = cube.build("sen12ms", source, to, limit=patches, grow=True, flush=False)
    seconds = time.perf_counter() - started
    assert built.report.passed, built.report.findings
    after = {path: path.stat() for folder in folders for path in folder.rglob("*") if path.is_file()}
    written = [stat.st_size for path, stat in after.items() if before.get(path) != stat.st_mtime_ns]
    return Cost(seconds, len(written), sum(written))


def removed(to: Path) -> None:
    """Remove a cube with all that lies beside it."""
    for kind in ("zarr", "stac", "build"):
        shutil.rmtree(to.with_suffix(f".{kind}"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=10 * SHARD)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texture", type=Path, default=TEXTURE)
    options = parser.parse_args()
    count = options.patches // SHARD * SHARD
    part, tenth = count // 100, -(-count // 10)
    ways = ("at once", "1 % after whole shards", "1 % after a cut-short shard", "ten times a tenth")
    costs: dict[str, list[Cost]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_scenes(folder / "files", count + part, texture=options.texture)
        for _ in range(options.rounds):
            costs["at once"].append(add(folder / "files", folder / "x.zarr", count))
            costs["1 % after whole shards"].append(add(folder / "files", folder / "x.zarr", part))
            removed(folder / "x.zarr")
            add(folder / "files", folder / "x.zarr", count - part)
            costs["1 % after a cut-short shard"].append(add(folder / "files", folder / "x.zarr", part))
            removed(folder / "x.zarr")
            steps = [add(folder / "files", folder / "x.zarr", min(tenth, count - at)) for at in range(0, count, tenth)]
            whole = [sum(getattr(step, what) for step in steps) for what in ("seconds", "objects", "size")]
            costs["ten times a tenth"].append(Cost(*whole))
            removed(folder / "x.zarr")
    base = costs["at once"]
    print(f"{count:,} patches, shards of {SHARD}, {options.rounds} rounds")
    print(f"{'':28} {'seconds':>16} {'objects':>16} {'bytes written':>18}")
    for way, of in costs.items():
        cells = []
        for what, unit in (("seconds", 1.0), ("objects", 1), ("size", 1e6)):
            value = statistics.median(getattr(cost, what) for cost in of)
            share = statistics.median(getattr(cost, what) / getattr(whole, what) for cost, whole in zip(of, base, strict=True))
            cells.append(f"{value / unit:8,.1f} {share:7.1%}")
        print(f"{way:28} {cells[0]:>16} {cells[1]:>16} {cells[2]:>18}")


if __name__ == "__main__":
    main()
