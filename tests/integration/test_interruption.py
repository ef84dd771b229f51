"""Killed at any moment, a build goes on from there: the same bytes in the end, and no reader ever sees half a cube."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import xarray as xr
from making import Made, make_patches, write_recipe

SEED = 1970
MARK = "CUBE_TEST_RUN"
"""Environment variable that every process of a run inherits."""
KILL = "CUBE_TEST_KILL"
KILLS_ALONE, KILLS_WORKERS = 6, 7
BETWEEN = {
    "nothing and the plan": "before *.build/plan.json 1",
    "the plan and the first shard": "before *.zarr/s1/c/0/0/0/0 1",
    "a shard and its name": "inside *.zarr/s2/c/* 2",
    "two modalities of a batch": "after *.zarr/s1/c/* 1",
    "data and receipt": "before *.build/receipts/* 3",
    "a receipt and its name": "inside *.build/receipts/* 2",
    "two batches": "after *.build/receipts/* 3",
    "shards and coordinates": "before *.zarr/patch/c/0 1",
    "two coordinates": "after *.zarr/lat/c/0 1",
    "coordinates and metadata": "before *.zarr/s1/zarr.json 1",
    "metadata and root": "before *.zarr/zarr.json 1",
    "the root and its name": "inside *.zarr/zarr.json 1",
    "root and verification": "after *.zarr/zarr.json 1",
    "catalog and report": "before *.build/report.json 1",
}
KEPT = {
    "the plan and the first shard": 0,
    "a receipt and its name": 1,
    "data and receipt": 2,
    "two batches": 3,
    "metadata and root": 7,
}
"""How many batches are kept of a build that is killed there; with the judges it is killed at all points."""
AMONG_WORKERS = {
    "data and receipt": "before *.build/receipts/* 1",
    "a shard and its name": "inside *.zarr/s2/c/* 2",
    "metadata and root": "before *.zarr/zarr.json 1",
}
"""Where a build is killed: before, inside or after the nth write of a process to such a path."""

SCRIPT = '''
"""Runs the command and kills its whole process group at a named point; `serve` forks a process for each run."""
import contextlib, fnmatch, json, os, signal, sys, time

from cube.cli.main import main
from cube.store.local import LocalStore


def arm(point):
    when, pattern, count = point.split()
    left = [int(count)]
    plain = LocalStore.writing

    def die(moment, path):
        if moment == when and fnmatch.fnmatch(path, pattern):
            left[0] -= 1
            if not left[0]:
                os.killpg(os.getpgrp(), signal.SIGKILL)

    @contextlib.contextmanager
    def writing(self, key):
        path = os.path.join(self.root, key)
        die("before", path)
        with plain(self, key) as file:
            yield file
            file.flush()
            die("inside", path)
        die("after", path)

    def write(self, key, data):
        with self.writing(key) as file:
            file.write(data)

    LocalStore.writing, LocalStore.write = writing, write


def run(arguments):
    main(arguments, prog_name="cube")


def serve():
    for line in sys.stdin:
        wish = json.loads(line)
        child = os.fork()
        if not child:
            os.setsid()
            log = os.open(wish["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(os.open(wish["log"] + ".err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            if wish["point"]:
                arm(wish["point"])
            run(wish["arguments"])
        if wish["after"] is not None:
            until = time.monotonic() + wish["after"]
            while time.monotonic() < until and os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                time.sleep(0.001)
            os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if os.environ.get("CUBE_TEST_KILL"):
    arm(os.environ["CUBE_TEST_KILL"])
if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else run(sys.argv[1:])
'''


@dataclass
class Watcher:
    """A reader that never stops trying to open the cube that is being built."""

    made: Made
    target: Path | None = None
    refused: int = 0
    opened: int = 0
    wrong: list[str] = field(default_factory=list)
    watching: Future[None] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        truth = {name: self.made.array(name) for name in ("s1", "s2", "lc")}
        rng = random.Random(SEED)
        while not self._stop.wait(0.02):
            if self.target is not None:
                self.look(self.target, truth, rng)

    def look(self, target: Path, truth: Mapping[str, np.ndarray], rng: random.Random) -> None:
        try:
            cube = xr.open_zarr(target, chunks=None, consolidated=rng.choice([True, False]))
        except FileNotFoundError:
            self.refused += 1
            return
        row, name = rng.randrange(len(self.made.ids)), rng.choice(list(truth))
        if cube["patch"].values.tolist() != self.made.ids:
            self.wrong.append(f"{target.name}: opened with {cube.sizes['patch']} patches")
        elif set(cube.data_vars) != set(truth) or not np.array_equal(cube[name][row].values, truth[name][row], equal_nan=True):
            self.wrong.append(f"{target.name}: {name} of patch {row} is not right")
        self.opened += 1

    def check(self) -> None:
        """Raise what the reader raised, if anything, and assert that it saw nothing wrong."""
        assert self.watching
        if self.watching.done():
            self.watching.result()
        assert self.wrong == []

    def stop(self) -> None:
        self._stop.set()


@dataclass
class Bench:
    """Where cubes are built and killed."""

    folder: Path
    made: Made
    recipe: Path
    watcher: Watcher
    server: subprocess.Popen[str]
    """Python with everything imported: forks one process for each run without workers."""
    count: int = 0

    def target(self) -> Path:
        """Return a new place for a cube; the reader watches it from now on."""
        self.count += 1
        self.watcher.target = self.folder / f"{self.count}.zarr"
        return self.watcher.target

    def arguments(self, target: Path, workers: int) -> list[str]:
        source = ["--source", str(self.made.folder), "--to", str(target)]
        return ["build", str(self.recipe), *source, "--workers", str(workers), "--sample", "0", "--json"]

    def alone(self, target: Path, *, point: str = "", after: float | None = None) -> int:
        """Build without workers, killed at a point or after so many seconds; return the exit code."""
        wish = {"arguments": self.arguments(target, 0), "log": str(self.folder / "log"), "point": point, "after": after}
        assert self.server.stdin
        assert self.server.stdout
        print(json.dumps(wish), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def finish(self, target: Path) -> dict[str, Any]:
        """Run once more, to the end, and return what the command said."""
        code = self.alone(target)
        assert code == 0, (self.folder / "log.err").read_text()
        said: dict[str, Any] = json.loads((self.folder / "log").read_text())
        assert said["report"]["passed"]
        return said

    def with_workers(self, target: Path, *, point: str = "", after: float | None = None) -> int:
        """Build with two workers in a session of its own, the whole group killed; return the exit code."""
        mark = uuid.uuid4().hex
        environment = {**os.environ, MARK: mark, KILL: point}
        command = [sys.executable, str(self.folder / "run.py"), *self.arguments(target, 2)]
        with (self.folder / "log").open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            try:
                process.wait(after if after is not None else 60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        assert gone(mark), "a process of a killed build lives on"
        return code


def gone(mark: str) -> bool:
    """Wait until no process of a run is left."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if not any(_mark(process) == mark for process in psutil.process_iter()):
            return True
        time.sleep(0.05)
    return False


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK) if process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, OSError):
        return None


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("killed")
    made = make_patches(folder / "files")
    recipe = write_recipe(folder / "tiny.yaml", shard=4)
    (folder / "run.py").write_text(SCRIPT, encoding="utf-8")
    watcher = Watcher(made)
    command = [sys.executable, str(folder / "run.py"), "serve"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        watcher.watching = pool.submit(watcher.watch)
        try:
            yield Bench(folder, made, recipe, watcher, server)
        finally:
            watcher.stop()
            assert server.stdin
            server.stdin.close()


@dataclass(frozen=True)
class Left:
    """What a finished build leaves behind."""

    objects: dict[str, str]
    """Key → SHA-256 of every object of the cube."""
    records: list[str]
    """Names of everything beside it in the build's folder; they hold times and differ from run to run."""

    @classmethod
    def at(cls, target: Path) -> Left:
        hashes = {name: hashlib.sha256((target / name).read_bytes()).hexdigest() for name in files_below(target)}
        return cls(hashes, files_below(target.with_suffix(".build")))


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.fixture(scope="module")
def reference(bench: Bench) -> Left:
    """Return what a build leaves that nobody interrupted."""
    target = bench.target()
    assert bench.finish(target)["resumed"] == 0
    return Left.at(target)


def check_finished(bench: Bench, target: Path, reference: Left, how: str) -> int:
    """Let a killed build end, compare it with one that was never killed, and return how many batches were kept."""
    resumed = int(bench.finish(target)["resumed"])
    assert Left.at(target) == reference, how
    bench.watcher.check()
    return resumed


@pytest.mark.parametrize(
    "between", [name if name in KEPT else pytest.param(name, marks=pytest.mark.judges) for name in BETWEEN]
)
def test_a_build_killed_between_two_writes_goes_on_from_there(bench: Bench, reference: Left, between: str) -> None:
    target = bench.target()
    assert bench.alone(target, point=BETWEEN[between]) == -signal.SIGKILL
    assert (target / "zarr.json").exists() is (between in ("root and verification", "catalog and report"))
    kept = check_finished(bench, target, reference, f"killed between {between}")
    assert kept == KEPT.get(between, kept)


def test_a_build_killed_again_and_again_ends_the_same(bench: Bench, reference: Left) -> None:
    rng = random.Random(SEED)
    started = time.monotonic()
    bench.finish(bench.target())
    whole = time.monotonic() - started
    killed, kept = 0, []
    while killed < KILLS_ALONE:
        target = bench.target()
        times = [rng.uniform(0, whole) for _ in range(3)]
        killed += sum(bench.alone(target, after=after) == -signal.SIGKILL for after in times)
        how = f"seed {SEED}, killed after {', '.join(f'{after:.3f}' for after in times)} of {whole:.3f} s"
        kept.append(check_finished(bench, target, reference, how))
    assert max(kept) > 0


def test_a_build_whose_workers_are_killed_at_a_point_goes_on_from_there(bench: Bench, reference: Left) -> None:
    target, point = bench.target(), AMONG_WORKERS["data and receipt"]
    assert bench.with_workers(target, point=point) == -signal.SIGKILL
    check_finished(bench, target, reference, "killed with its workers between data and receipt")


@pytest.mark.judges
def test_a_build_whose_workers_are_killed_with_it_goes_on_from_there(bench: Bench, reference: Left) -> None:
    rng = random.Random(SEED)
    target, started = bench.target(), time.monotonic()
    assert bench.with_workers(target) == 0, (bench.folder / "log").read_text()
    whole = time.monotonic() - started
    assert Left.at(target) == reference
    for between, point in AMONG_WORKERS.items():
        target = bench.target()
        assert bench.with_workers(target, point=point) == -signal.SIGKILL, f"between {between}: not killed"
        check_finished(bench, target, reference, f"killed with its workers between {between}")
    killed = len(AMONG_WORKERS)
    while killed < KILLS_WORKERS:
        target, after = bench.target(), whole * rng.uniform(0.4, 1)
        killed += bench.with_workers(target, after=after) == -signal.SIGKILL
        how = f"seed {SEED}, killed with its workers after {after:.3f} of {whole:.3f} s"
        check_finished(bench, target, reference, how)


def test_no_reader_ever_saw_half_a_cube(bench: Bench, reference: Left) -> None:
    watcher = bench.watcher
    until = time.monotonic() + 10
    while not (watcher.refused and watcher.opened) and time.monotonic() < until:
        time.sleep(0.05)
    watcher.check()
    assert watcher.opened > 0
    assert watcher.refused > 0
