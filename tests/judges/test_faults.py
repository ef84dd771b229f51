"""More than a hundred kills and faults in one run, every one seen to happen: no patch lost, none mixed up, the same bytes."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from drills import Ground, full_disk, ground
from making import MODALITIES
from servers import close_connections, free_ports

SEED = 2019
TIMES = 6
"""Faults of each kind; kills are one fewer."""
LEAST = 100
"""Kills and faults in all, at least."""
WAIT = 120
"""Seconds after which a driver must have ended by itself."""
PASSING = {
    "slowdown": ".*",
    "error500": ".*",
    "reset": ".*",
    "reset_after": "PUT",
    "stall": ".*",
    "stall_body": "GET",
    "truncate": "GET",
    "truncate_fin": "GET",
    "corrupt": "GET",
    "corrupt_unnoticed": "GET",
    "corrupt_upload": "PUT",
}
"""Faults that pass, and the methods of the requests they befall: one after another, all in one build."""
REFUSED = {"denied": ".*", "expired": ".*", "no_bucket": "PUT"}
"""Answers that stop a build."""

pytestmark = [pytest.mark.judges, pytest.mark.timeout(1200)]


@dataclass
class Tally:
    """What happened."""

    fired: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    outcomes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Runs it took until the build was done, by kind."""

    def add(self, kind: str, fired: int, runs: int) -> None:
        assert fired, f"{kind} did not happen"
        self.fired[kind] += fired
        self.outcomes[kind].append(runs)

    def table(self) -> str:
        rows = [f"{'kind':20} {'fired':>5} {'builds':>6}  outcome"]
        for kind, fired in self.fired.items():
            runs = self.outcomes[kind]
            told = ", ".join(f"{runs.count(count)} in run {count}" for count in sorted(set(runs)))
            rows.append(f"{kind:20} {fired:5} {len(runs):6}  the same bytes: {told}")
        return "\n".join([*rows, f"{'in all':20} {sum(self.fired.values()):5}"])


@dataclass
class Cluster:
    """A Dask cluster of separate processes."""

    folder: Path
    port: int
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def add_worker(self) -> None:
        options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--death-timeout", "30"]
        self.workers.append(self.start("dask_worker", self.address, "--host", "127.0.0.1", *options))

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{name}", *arguments]
        with (self.folder / "cluster.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    (port,) = free_ports(1)
    given = Cluster(folder, port, None, [])  # type: ignore[arg-type]
    given.scheduler = given.start("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    try:
        for _ in range(2):
            given.add_worker()
        yield given
    finally:
        given.stop()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("ground"), shard=1) as given:
        yield given


def test_a_hundred_kills_and_faults_change_nothing(there: Ground, tmp_path: Path) -> None:
    rng, tally = random.Random(SEED), Tally()
    befall_with_passing_faults(there, tally, rng)
    befall_with_refusals(there, tally, rng)
    fill_the_disk(there, tally, rng)
    kill_drivers(there, tally, rng)
    kill_parts_of_clusters(there, tally, rng, tmp_path)
    print(f"\nseed {SEED}\n{tally.table()}")
    assert min(tally.fired.values()) >= TIMES - 1
    assert sum(tally.fired.values()) >= LEAST
    assert_all_patches(there)


def befall_with_passing_faults(there: Ground, tally: Tally, rng: random.Random) -> None:
    """Build once for each kind, with some of its faults at requests chosen by chance."""
    there.proxy.clear()
    assert there.build(there.target()).exit_code == 0
    usual = [item.method for item in there.proxy.log]
    for kind, methods in PASSING.items():
        there.proxy.clear()
        count = len(usual) if methods == ".*" else usual.count(methods)
        places = sorted(rng.sample(range(count - 1), TIMES))
        # A rule sees what those before it let through; it waits for so many requests that are not theirs.
        rules = [there.proxy.inject(kind, method=methods, skip=place, at=rng.random(), seconds=2.5) for place in places]
        to = there.target()
        runs = there.finish(to)
        assert [rule for rule in rules if not rule.fired] == [], f"{kind}, seed {SEED}, at requests {places}"
        tally.add(kind, sum(rule.fired for rule in rules), runs)


def befall_with_refusals(there: Ground, tally: Tally, rng: random.Random) -> None:
    """Refuse everything from some request on: the build stops; once it is allowed again, it goes on."""
    for kind, methods in REFUSED.items():
        for _ in range(TIMES - 1):
            there.proxy.clear()
            rule, to = there.proxy.inject(kind, method=methods, skip=rng.randrange(40), times=None), there.target()
            result = there.build(to)
            assert result.exit_code in (1, 2), result.output
            assert any(remedy in result.stderr for remedy in ("check the credentials", "create the bucket"))
            assert rule.fired
            there.proxy.clear()
            tally.add(kind, 1, 1 + there.finish(to))


def fill_the_disk(there: Ground, tally: Tally, rng: random.Random) -> None:
    """Let the disk be full on which a worker keeps what it uploads."""
    there.proxy.clear()
    for _ in range(TIMES - 1):
        to = there.target()
        with full_disk(rng.randrange(1100, 4000)):
            result = there.build(to)
        assert result.exit_code == 1
        assert "File too large; free some space" in result.stderr
        tally.add("disk full", 1, 1 + there.finish(to))


def kill_drivers(there: Ground, tally: Tally, rng: random.Random) -> None:
    """Kill builds without workers after so many writes."""
    for _ in range(TIMES - 1):
        with driving(there, "--workers", "0") as (driver, to):
            there.wait_for("PUT", to.removeprefix("s3:/"), rng.randrange(2, 40))
            driver.kill()
        assert driver.returncode < 0, "it ended before it was killed"
        tally.add("driver killed", 1, 1 + there.finish(to))


def kill_parts_of_clusters(there: Ground, tally: Tally, rng: random.Random, folder: Path) -> None:
    """Kill a worker, the driver, and the scheduler of clusters of separate processes while they write."""
    with ExitStack() as stack:
        running = stack.enter_context(cluster(folder))
        for _ in range(TIMES - 1):
            with driving(there, "--scheduler", running.address) as (driver, to):
                there.wait_for("PUT", to.removeprefix("s3:/"), rng.randrange(3, 16))
                killed = running.workers.pop(rng.randrange(2))
                killed.kill()
                assert killed.wait() < 0
                running.add_worker()
                assert driver.wait(WAIT) == 0
            assert there.objects(to) == there.reference
            tally.add("worker killed", 1, 1)
        for _ in range(TIMES - 1):
            with driving(there, "--scheduler", running.address) as (driver, to):
                there.wait_for("PUT", to.removeprefix("s3:/"), rng.randrange(3, 16))
                driver.kill()
            tally.add("driver of a cluster", 1, 1 + there.finish(to))
    for place in range(TIMES - 1):
        (own := folder / str(place)).mkdir()
        with cluster(own) as running, driving(there, "--scheduler", running.address) as (driver, to):
            there.wait_for("PUT", to.removeprefix("s3:/"), rng.randrange(3, 16))
            running.scheduler.kill()
            assert driver.wait(WAIT) == 1
            said = (there.folder / "driver.log").read_text().splitlines()[-1]
            assert re.search("the Dask scheduler is gone|its scheduler is gone or was restarted", said), said
        tally.add("scheduler killed", 1, 1 + there.finish(to))


@contextmanager
def driving(there: Ground, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a build to a new place in a process of its own."""
    there.proxy.clear()
    to = there.target()
    with (there.folder / "driver.log").open("wb") as log:
        command = [sys.executable, "-m", "cube", *there.arguments(to), *options]
        driver = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield driver, to
    finally:
        driver.kill()
        driver.wait()


def assert_all_patches(there: Ground) -> None:
    """Compare what the last cube gives with what was made."""
    there.proxy.clear()
    close_connections()
    cube = xr.open_zarr(f"s3://private/cube-{there.count}.zarr", chunks=None)
    assert cube["patch"].values.tolist() == there.made.ids
    for name in MODALITIES:
        np.testing.assert_array_equal(cube[name].values, there.made.array(name))
