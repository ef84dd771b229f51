"""What it costs that a build is on the disk before it says so: the same build with and without flushing, in turns.

``python benchmarks/flushing.py [--patches 900] [--pairs 5] [--workers 0]`` prints the medians and their ratio. Files are in the
page cache, so that nothing but flushing differs. Run it on the kind of disk that cubes are written to.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from click.testing import CliRunner
from scenes import TEXTURE, make_scenes

from cube.cli.main import main as cube


def build(source: Path, to: Path, workers: int, *, flushing: bool) -> float:
    """Build once and return the seconds it took."""
    os.sync()
    started = time.perf_counter()
    words = ["build", "sen12ms", "--source", str(source), "--to", str(to), "--workers", str(workers), "--sample", "0"]
    result = CliRunner().invoke(cube, [*words, "--flush" if flushing else "--no-flush"])
    seconds = time.perf_counter() - started
    if result.exit_code:
        raise SystemExit(result.output)
    for kind in ("zarr", "build", "stac"):
        shutil.rmtree(to.with_suffix(f".{kind}"))
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=900)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    parser.add_argument("--texture", type=Path, default=TEXTURE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        source = Path(name) / "files"
        made = len(make_scenes(source, options.patches, texture=options.texture)) // 3
        taken: dict[bool, list[float]] = {True: [], False: []}
        for pair in range(options.pairs):
            for flushing in (pair % 2 == 0, pair % 2 == 1):
                taken[flushing].append(build(source, Path(name) / "x.zarr", options.workers, flushing=flushing))
    ratio = statistics.median(with_ / without for with_, without in zip(taken[True], taken[False], strict=True))
    medians = {flushing: statistics.median(seconds) for flushing, seconds in taken.items()}
    print(f"{made:,} patches, medians of {options.pairs}: {medians[True]:.2f} s, {medians[False]:.2f} s without flushing")
    print(f"median of the ratios of pairs {ratio:.3f}")


if __name__ == "__main__":
    main()
