"""What it costs that patch files lie in tar.gz archives: a build from them beside one from the unpacked files and ``gzip``.

``python benchmarks/archives.py [--patches 900] [--repeats 3]`` packs files as SEN12MS is published (an archive a modality), in
the order of their numbers and at random, and prints medians: seconds of each build, of ``gzip -dc`` of all archives, as many at
a time as there are cores, and of inflating them so by the decoder that this package uses; the most memory of any process, and
what is kept beside the cube.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread

import psutil
from scenes import TEXTURE, make_scenes

INFLATE = "import sys; from isal import igzip\nwith igzip.open(sys.argv[1]) as f:\n while f.read(2**20): pass"


def pack(files: Path, to: Path, *, shuffled: bool) -> None:
    """Pack an archive a modality, scene by scene, as the data set is published."""
    to.mkdir()
    for name in ("lc", "s1", "s2"):
        paths = sorted(files.rglob(f"*_{name}_*.tif"), key=lambda path: (path.parent, int(path.stem.rpartition("_p")[2])))
        if shuffled:
            random.Random(0).shuffle(paths)
        with tarfile.open(to / f"ROIs1158_spring_{name}.tar.gz", "w:gz", compresslevel=6) as archive:
            for path in paths:
                archive.add(path, path.relative_to(files))


def at_once(command: Callable[[Path], list[str]], archives: list[Path]) -> float:
    """Return the seconds that a command takes on all archives, as many at a time as there are cores."""
    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(lambda path: subprocess.run(command(path), stdout=subprocess.DEVNULL, check=True), archives):
            assert not done.returncode
    return time.perf_counter() - started


def build(source: Path, to: Path) -> tuple[float, int]:
    """Build with two workers; return the seconds and the most memory of any of its processes."""
    words = [sys.executable, "-m", "cube", "build", "sen12ms", "--source", str(source), "--to", str(to), "--sample", "0"]
    started, ended, most = time.perf_counter(), Event(), [0]
    process = subprocess.Popen([*words, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watching = Thread(target=watch, args=(process.pid, ended, most))
    watching.start()
    code = process.wait()
    seconds = time.perf_counter() - started
    ended.set()
    watching.join()
    if code:
        raise SystemExit(f"{' '.join(words)} ended with {code}")
    return seconds, most[0]


def watch(pid: int, ended: Event, most: list[int]) -> None:
    """Keep the most resident memory that a process or one of its children has."""
    while not ended.wait(0.05):
        try:
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            most[0] = max(most[0], *(process.memory_info().rss for process in family))
        except psutil.NoSuchProcess:
            continue


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=900)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    parser.add_argument("--texture", type=Path, default=TEXTURE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        files = make_scenes(folder / "files", options.patches, texture=options.texture)
        sources = {"folder": folder / "files", "in order": folder / "order", "at random": folder / "random"}
        for kind in ("in order", "at random"):
            pack(folder / "files", sources[kind], shuffled=kind == "at random")
        archives = sorted(sources["in order"].iterdir())
        inflated = sum(path.stat().st_size for path in (folder / "files").rglob("*.tif"))
        packed = sum(path.stat().st_size for path in archives)
        taken: dict[str, list[float]] = {kind: [] for kind in ("gzip -dc", "inflating", *sources)}
        memory: dict[str, int] = dict.fromkeys(sources, 0)
        kept = 0
        for _ in range(options.repeats):
            taken["gzip -dc"].append(at_once(lambda path: ["gzip", "-dc", str(path)], archives))
            taken["inflating"].append(at_once(lambda path: [sys.executable, "-c", INFLATE, str(path)], archives))
            for kind, source in sources.items():
                seconds, most = build(source, folder / "x.zarr")
                taken[kind].append(seconds)
                memory[kind] = max(memory[kind], most)
                kept = max(kept, sum(path.stat().st_size for path in folder.glob("x.build/archives/*")))
                for ending in ("zarr", "build", "stac"):
                    shutil.rmtree(folder / f"x.{ending}")
    print(f"{len(files) // 3:,} triplets, {inflated / 1e6:,.0f} MB in archives of {packed / 1e6:,.0f} MB")
    for kind, seconds in taken.items():
        median = statistics.median(seconds)
        most = f", {memory[kind] / 1e6:.0f} MB in one process" if kind in memory else ""
        print(f"{kind:10} {median:6.2f} s  {inflated / 1e6 / median:6.0f} MB/s{most}")
    for kind in ("in order", "at random"):
        ratios = [
            statistics.median(taken[other]) / statistics.median(taken[kind]) for other in ("gzip -dc", "inflating", "folder")
        ]
        print(f"{kind}: {ratios[0]:.2f} of gzip -dc, {ratios[1]:.2f} of inflating alone, {ratios[2]:.2f} of the folder's build")
    print(f"kept beside the cube: {kept / 1e6:.1f} MB, {kept / packed:.3%} of the archives")


if __name__ == "__main__":
    main()
