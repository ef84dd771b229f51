"""Clusters of every kind give the same cube as this process alone, whatever happens to their workers on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import dask
import pytest
from click.testing import CliRunner
from dask_processes import dask_scheduler, dask_worker
from distributed import Client
from making import Built, Made, Scene, build, make_patches, write_recipe

from cube.cli.main import main
from cube.convert.writer import write_cube
from cube.errors import CubeError, RequestError
from cube.format.target import target_of
from cube.verify.verification import verify_cube
from cube.work import clusters, dashboard
from cube.work.clusters import open_cluster, run
from cube.work.config import ClusterProfile
from cube.work.dashboard import observed

LOCAL = {
    "host": "127.0.0.1",
    "threads_per_worker": 1,
    "dashboard_address": "127.0.0.1:0",
    "scheduler_kwargs": {"dashboard": False},
    "memory_limit": 0,
}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_patches(tmp_path_factory.mktemp("many") / "patches", [Scene("summer", 7, rows=6, columns=8)])


@pytest.fixture(scope="module")
def alone(many: Made, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """48 batches of one patch each, written by this process alone."""
    folder = tmp_path_factory.mktemp("alone")
    return build(write_recipe(folder / "tiny.yaml", shard=1), many.folder, folder / "a.zarr")


def objects(folder: str | Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def certificate(folder: str | Path) -> dict[str, object]:
    return json.loads((Path(folder) / "zarr.json").read_text())["attributes"]["cube"]["certificate"]


def workers_of(to: Path) -> set[int]:
    receipts = to.with_suffix(".build").joinpath("receipts").glob("*.json")
    return {int(json.loads(path.read_text())["worker"].rpartition(":")[2]) for path in receipts}


class Changing:
    """Changes the cluster while a cube is written: workers come at one batch, go at another, by notice and without."""

    def __init__(self, client: Client, scheduler: str, folder: Path, stack: ExitStack) -> None:
        self.client, self.scheduler, self.folder, self.stack = client, scheduler, folder, stack
        self.seen, self.at = 0, {4: self.join, 12: self.kill, 20: self.join, 28: self.retire}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.join()

    def start(self, what: str, patches: int) -> None: ...

    def resume(self, patches: int) -> None: ...

    def count(self, patches: int, size: int, rejected: int = 0) -> None:
        self.seen += 1
        self.at.get(self.seen, lambda: None)()

    def join(self) -> None:
        there = len(self.client.scheduler_info(n_workers=-1)["workers"])
        process = self.stack.enter_context(dask_worker(self.scheduler, folder=self.folder))
        self.processes.append(process)
        self.client.wait_for_workers(there + 1, timeout=60)

    def kill(self) -> None:
        self.processes[0].send_signal(signal.SIGKILL)
        self.processes[0].wait()

    def retire(self) -> None:
        names = self.client.run(lambda: __import__("os").getpid())
        self.client.retire_workers([address for address, pid in names.items() if pid == self.processes[1].pid])


def test_workers_may_come_and_go_in_the_middle(alone: Built, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    to = target_of(str(tmp_path / "a.zarr"))
    with ExitStack() as stack:
        scheduler = stack.enter_context(dask_scheduler())
        client = stack.enter_context(Client(scheduler, timeout=60))
        changing = Changing(client, scheduler, tmp_path / "work", stack)
        written = write_cube(alone.plan, to, client, changing)
        assert verify_cube(to, client).passed
    assert changing.seen == 48
    assert [receipt["index"] for receipt in written.receipts] == list(range(48))
    assert workers_of(tmp_path / "a.zarr") == {process.pid for process in changing.processes}
    assert objects(tmp_path / "a.zarr") == objects(alone.url)


def test_the_window_follows_the_workers() -> None:
    """Twice as many tasks as threads are on the cluster, and never fewer than a cluster needs to see that it must grow."""
    with open_cluster(scheduler=None, workers=0, profile=threads(1, 1)) as client:
        assert clusters._window(client) == 16
        client.cluster.scale(2)
        client.wait_for_workers(2, timeout=120)
        assert clusters._window(client) == 16
    with open_cluster(scheduler=None, workers=0, profile=threads(1, 12)) as client:
        assert clusters._window(client) == 24
        client.cluster.scale(2)
        client.wait_for_workers(2, timeout=120)
        assert clusters._window(client) == 48


def threads(workers: int, each: int) -> ClusterProfile:
    options = {**LOCAL, "processes": False, "n_workers": workers, "threads_per_worker": each, "protocol": "tcp"}
    return ClusterProfile.model_validate({"class": "distributed.LocalCluster", "options": options})


def nap(number: int) -> int:
    time.sleep(0.25)
    return number


def test_a_cluster_that_adapts_grows_with_the_work() -> None:
    options = {**LOCAL, "n_workers": 0, "processes": False, "protocol": "tcp"}
    described = {"class": "distributed.LocalCluster", "options": options, "adapt": {"maximum": 3}}
    most = 0
    with (
        dask.config.set({"distributed.adaptive.interval": "100 ms", "distributed.adaptive.target-duration": "1 s"}),
        open_cluster(scheduler=None, workers=0, profile=ClusterProfile.model_validate(described)) as client,
    ):
        assert len(client.nthreads()) >= 1
        done = []
        for number in run(client, nap, [(f"nap-{number}", (number,)) for number in range(24)]):
            done.append(number)
            most = max(most, len(client.nthreads()))
    assert sorted(done) == list(range(24))
    assert most == 3


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cube.yaml"
    options = json.dumps({**LOCAL, "n_workers": 0})
    path.write_text(f"cluster: {{class: distributed.LocalCluster, options: {options}, workers: 2}}\n")
    return path


def test_the_command_starts_the_cluster_that_a_config_names(alone: Built, many: Made, config: Path, tmp_path: Path) -> None:
    recipe, to = write_recipe(tmp_path / "tiny.yaml", shard=1), tmp_path / "a.zarr"
    words = ["build", str(recipe), "--source", str(many.folder), "--to", str(to), "--config", str(config), "--sample", "0"]
    done = subprocess.run([sys.executable, "-m", "cube", *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert objects(to) == objects(alone.url)
    assert certificate(to) == certificate(alone.url)
    assert len(workers_of(to)) == 2


@pytest.mark.parametrize(
    ("described", "told"),
    [
        ({"class": "dask_nowhere.Cluster"}, "No module named 'dask_nowhere'; try `pip install dask-nowhere`"),
        ({"class": "distributed.NoCluster"}, "distributed has no class 'NoCluster'"),
        ({"class": "os.system"}, "os has no class 'system'"),
        ({"class": "subprocess.Popen", "options": {"args": ["true"]}}, "subprocess.Popen is no Dask cluster class: it lacks"),
        ({"class": "dask_processes.Refusing"}, "dask_processes.Refusing does not start: RuntimeError: no room"),
        ({"class": "dask_processes.Refusing", "options": {"size": 1}}, "dask_processes.Refusing does not start: TypeError: "),
        ({"class": "distributed.LocalCluster", "options": {**LOCAL, "n_workers": 0}, "wait": 0.2}, "has no worker after 0.2 s"),
    ],
)
def test_what_is_no_cluster_is_told(described: dict[str, object], told: str) -> None:
    profile = ClusterProfile.model_validate(described)
    with pytest.raises(RequestError) as caught, open_cluster(scheduler=None, workers=0, profile=profile):
        pass
    assert told in str(caught.value)


@pytest.fixture
def seen() -> Iterator[Client]:
    with open_cluster(scheduler=None, workers=1, dashboard=True) as client:
        assert client is not None
        yield client


def test_a_dashboard_and_a_performance_report(seen: Client, tmp_path: Path) -> None:
    said: list[str] = []
    with observed(seen, link=True, report=str(tmp_path / "report.html"), say=said.append):
        (line,) = said
        with urllib.request.urlopen(line.removeprefix("Dashboard: "), timeout=120) as page:
            assert "Bokeh" in page.read().decode()
        assert list(run(seen, nap, [("nap-in-the-report", (1,))])) == [1]
    assert "nap" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_a_report_needs_is_told_before_the_work(seen: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="no such folder"), observed(seen, link=False, report="/nowhere/a.html", say=print):
        pass
    monkeypatch.setattr(dashboard, "_BOKEH", "no-such-package")
    with (
        pytest.raises(RequestError, match=r'need Bokeh .* `pip install "patchcube\[dashboard\]"`'),
        observed(seen, link=True, report=None, say=print),
    ):
        pass


def test_without_a_cluster_there_is_nothing_to_see(many: Made, alone: Built, tmp_path: Path) -> None:
    words = [
        "build",
        str(Path(alone.url).with_name("tiny.yaml")),
        "--source",
        str(many.folder),
        "--workers",
        "0",
        "--dashboard",
    ]
    done = CliRunner().invoke(main, [*words, "--to", str(tmp_path / "a.zarr")])
    assert done.exit_code == 2
    assert "show a Dask cluster: give --workers 1 or more" in done.stderr


@pytest.mark.parametrize("failing", [False, True])
def test_workers_of_this_machine_have_no_heartbeat_when_they_are_closed(monkeypatch: pytest.MonkeyPatch, failing: bool) -> None:
    beating: list[dict[str, bool]] = []
    end = clusters._end_heartbeats

    def looked_at(client: Client) -> None:
        beating.append(client.run(_beats))
        end(client)
        beating.append(client.run(_beats))

    monkeypatch.setattr(clusters, "_end_heartbeats", looked_at)
    with pytest.raises(CubeError) if failing else nullcontext(), open_cluster(scheduler=None, workers=1) as client:
        assert client is not None
        if failing:
            raise CubeError("the work has failed")
    assert [set(answer.values()) for answer in beating] == [{True}, {False}]


def _beats(dask_worker: Any) -> bool:
    return bool(dask_worker.periodic_callbacks["heartbeat"].is_running())
