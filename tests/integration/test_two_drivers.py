"""Two commands on one scheduler that build the same data set at once do not take each other's work for their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from making import Made, write_recipe

from cube.format.target import target_of
from cube.store.urls import open_store
from cube.verify.verification import verify_cube


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def wait_for(path: str) -> None:
    """Keep the worker busy until a file is there."""
    while not Path(path).exists():
        time.sleep(0.02)


def driving(dask_scheduler: object) -> int:
    """Count the clients that wait for shards."""
    tasks = dask_scheduler.tasks.items()  # type: ignore[attr-defined]
    return len({client.client_key for key, task in tasks if str(key).startswith("write-") for client in task.who_wants})


def objects(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_drivers_build_the_same_data_set_to_two_targets_at_once(client: Client, made: Made, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", shard=4)
    busy = client.submit(wait_for, str(tmp_path / "go"))
    targets = [tmp_path / "one.zarr", tmp_path / "two.zarr"]
    options = ["--scheduler", client.scheduler.address, "--source", str(made.folder), "--sample", "0", "--json"]
    command = [sys.executable, "-m", "cube", "build", str(recipe), *options]
    drivers = [
        subprocess.Popen([*command, "--to", str(target)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for target in targets
    ]
    try:
        until = time.monotonic() + 60
        while client.run_on_scheduler(driving) < len(drivers):
            assert time.monotonic() < until, "the drivers do not work at the same time"
            time.sleep(0.05)
    finally:
        (tmp_path / "go").touch()
        ends = [(*driver.communicate(timeout=120), driver.returncode) for driver in drivers]
    busy.result()
    for said, errors, code in ends:
        assert code == 0, errors
        assert json.loads(said)["report"]["passed"]
        assert json.loads(said)["resumed"] == 0
    assert objects(targets[0]) == objects(targets[1])
    assert len(list(open_store(str(tmp_path / "two.build")).list("receipts"))) == 7
    assert all(verify_cube(target_of(str(target))).passed for target in targets)
