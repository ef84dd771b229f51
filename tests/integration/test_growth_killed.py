"""A growth killed at any moment goes on, or is undone; who reads meanwhile sees the old cube or the new one."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from making import BANDS, Made, Scene, make_patches
from servers import close_connections, seaweedfs

import cube
from cube.format.target import target_of
from cube.jobs.clean import find_leftovers, remove_leftovers
from cube.jobs.diff import difference
from cube.read.opened import open_certified
from cube.verify.verification import verify_cube

SEED = 30
FALL = Scene("fall", 7, rows=3, columns=4, gaps=((0, 1), (2, 2)))
MORE = (Scene("fall", 8, rows=2, columns=3), Scene("spring", 3, rows=2, columns=3, epsg=32737))
SHARD, LABELS = 4, 8

SERVER = """
import json, os, signal, sys, time
from cube.cli.main import main
import cube.jobs.build, cube.jobs.planning, cube.read.open

for line in sys.stdin:
    wish = json.loads(line)
    child = os.fork()
    if not child:
        os.setsid()
        for number in (1, 2):
            os.dup2(os.open(wish["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        main(wish["arguments"], prog_name="cube")
    if wish["after"] is not None:
        until = time.monotonic() + wish["after"]
        while time.monotonic() < until and os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Reader:
    """Reads the growing cube all the time: as it opens now, and as it had been opened before it grew."""

    old: Made
    new: Made
    url: str = ""
    before: xr.Dataset | None = None
    looks: int = 0
    seen: set[int] = field(default_factory=set)
    """Lengths with which the cube opened."""
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.ids = [*self.old.ids, *self.new.ids]
        self.truth = {name: np.concatenate([self.old.array(name), self.new.array(name)]) for name in BANDS}
        self.rng = random.Random(SEED)

    def move(self, url: str) -> None:
        """Read another cube from now on, which has not grown yet."""
        with self.lock:
            self.url, self.before = url, xr.open_zarr(url, chunks=None)

    def run(self) -> None:
        while not self.stop.wait(0.01):
            with self.lock:
                if self.before is not None:
                    self.look(self.before)

    def look(self, before: xr.Dataset) -> None:
        name, count = self.rng.choice(list(BANDS)), len(self.old.ids)
        np.testing.assert_array_equal(before["patch"].values, self.old.ids)
        self._same(before[name][row := self.rng.randrange(count)].values, name, row)
        now = cube.open_cube(self.url) if self.rng.random() < 0.5 else xr.open_zarr(self.url, chunks=None)
        self.seen.add(length := now.sizes["patch"])
        assert length in (count, len(self.ids))
        assert now["patch"].values.tolist() == self.ids[:length]
        self._same(now[name][row := self.rng.randrange(length)].values, name, row)
        array = zarr.open_group(self.url, mode="r", use_consolidated=False)[name]
        assert array.shape[0] in (count, len(self.ids))
        self._same(array[row := self.rng.randrange(array.shape[0])], name, row)
        self.looks += 1

    def _same(self, pixels: np.ndarray, name: str, row: int) -> None:
        np.testing.assert_array_equal(pixels, self.truth[name][row], f"{name} of row {row}")


@dataclass
class Bench:
    """Where cubes grow and are killed."""

    folder: Path
    place: str
    recipe: Path
    reader: Reader
    server: subprocess.Popen[str]
    count: int = 0

    def target(self) -> str:
        """Return a new copy of the cube that is to grow; the reader reads it from now on."""
        self.count += 1
        stem = f"{self.place}/{self.count}"
        for kind in ("zarr", "stac", "build"):
            if self.place.startswith("s3://"):
                files = fsspec.filesystem("s3")
                files.put(f"{self.folder}/base.{kind}/", f"{stem}.{kind}/", recursive=True)
            else:
                shutil.copytree(self.folder / f"base.{kind}", f"{stem}.{kind}")
        self.reader.move(f"{stem}.zarr")
        return f"{stem}.zarr"

    def grow(self, target: str, after: float | None = None) -> int:
        """Let a cube grow, killed after so many seconds; return the exit code."""
        source = ["--source", str(self.reader.new.folder), "--to", target]
        arguments = ["build", str(self.recipe), *source, "--grow", "--workers", "0", "--sample", "0"]
        assert self.server.stdin
        assert self.server.stdout
        print(
            json.dumps({"arguments": arguments, "log": f"{self.folder}/log", "after": after}),
            file=self.server.stdin,
            flush=True,
        )
        return int(self.server.stdout.readline())

    def objects(self, target: str) -> dict[str, bytes]:
        """Return all objects of a cube; the root of one that grew names the plan, which is the same each time."""
        files = fsspec.filesystem("s3", use_listings_cache=False) if target.startswith("s3://") else fsspec.filesystem("file")
        return {path.rpartition(".zarr/")[2]: files.cat_file(path) for path in files.find(target)}


@contextmanager
def growing(folder: Path, place: str) -> Iterator[Bench]:
    old, new = make_patches(folder / "old", (FALL,)), make_patches(folder / "new", MORE)
    make_patches(folder / "all", (FALL, *MORE))
    recipe = folder / "tiny.yaml"
    layout = f"layout: {{tile: 16, shard: {SHARD}, labels: {LABELS}, header_bytes: 1024, path_bytes: 64}}"
    recipe.write_text(f"extends: sen12ms\nname: tiny\npatch: {{size: 32}}\n{layout}\n", encoding="utf-8")
    cube.build(recipe, old.folder, folder / "base.zarr")
    new = Made(**{**vars(new), "ids": sorted(new.ids, key=lambda name: ("fall" in name, name))})
    reader = Reader(old, new)
    command = [sys.executable, "-c", SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=dict(os.environ), **pipes) as server, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(reader.run)
        try:
            yield Bench(folder, place, recipe, reader, server)
        finally:
            reader.stop.set()
            server.stdin.close()
        reading.result()
        assert reader.looks > 20


def check_kills(bench: Bench, kills: int) -> None:
    rng = random.Random(SEED)
    reference = bench.target()
    started = time.monotonic()
    assert bench.grow(reference) == 0, Path(bench.folder, "log").read_text()
    whole, wanted = time.monotonic() - started, bench.objects(reference)
    once = cube.build(bench.recipe, bench.folder / "all", bench.folder / "once.zarr")
    assert not difference(open_certified(reference), open_certified(once.report.url)).any
    killed = undone = 0
    while killed < kills:
        target = bench.target()
        for _ in range(3):
            killed += bench.grow(target, after=rng.uniform(0.0, whole)) == -signal.SIGKILL
            if rng.random() < 0.3 and find_leftovers(target) and find_leftovers(target)[0].kind == "growth":
                remove_leftovers(target_of(target))
                assert bench.objects(target) == bench.objects(str(bench.folder / "base.zarr"))
                undone += 1
        assert bench.grow(target) == 0, Path(bench.folder, "log").read_text()
        assert bench.objects(target) == wanted, f"seed {SEED}, after {killed} kills"
        assert verify_cube(target_of(target), source=str(bench.folder / "all")).passed
    assert bench.reader.seen == {len(bench.reader.old.ids), len(bench.reader.ids)}
    assert undone or kills < 10


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.judges)])
def test_killed_on_a_disk(tmp_path: Path, kills: int) -> None:
    (tmp_path / "cubes").mkdir()
    with growing(tmp_path, str(tmp_path / "cubes")) as bench:
        check_kills(bench, kills)


@pytest.mark.judges
def test_killed_on_s3(tmp_path: Path) -> None:
    with seaweedfs(tmp_path / "seaweed") as server, pytest.MonkeyPatch.context() as patch:
        close_connections()
        for name, value in server.environment.items():
            patch.setenv(name, value)
        with growing(tmp_path, "s3://public/growing") as bench:
            check_kills(bench, 30)
        close_connections()
