"""One build of tiny patches, stage by stage, in a process of its own: prints a JSON line as each stage ends.

    python benchmarks/stages.py build RECIPE SOURCE TO [--workers 2] [--until write]
    python benchmarks/stages.py read TO

A line says what the stage took: wall seconds, CPU seconds and peak memory of this process, the driver, and CPU seconds and
peak memory of its workers. The peak of the driver is that of the stage alone: the kernel's mark is set back before each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import xarray as xr
from distributed import Client

from cube import open_cube
from cube.catalog.describe import describe
from cube.catalog.publish import publish
from cube.convert.deciding import make_plan
from cube.convert.worker import peak_memory
from cube.convert.writer import write_cube
from cube.format.target import target_of
from cube.recipes.recipe import read_recipe
from cube.source.scan import examine, scan
from cube.store.objects import SPOOL_LIMIT
from cube.survey.surveyor import Surveyor
from cube.verify.verification import verify_cube
from cube.work.clusters import open_cluster

ROWS = 32
"""Patches that ``select`` reads."""


@dataclass
class Meter:
    """Times stages and says each on a line; a watcher of the writing as well."""

    client: Client | None = None
    batches_done: float = 0.0
    """When the last batch was reported."""

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Measure what is done inside; facts put into the dictionary are said too."""
        facts: dict[str, Any] = {}
        _forget_peak()
        before, started, cpu = self._workers_cpu(), time.perf_counter(), time.process_time()
        if name == "write":
            print(json.dumps({"begun": time.time(), "cpu": cpu}), flush=True)
        yield facts
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        line = {"stage": name, "seconds": seconds, "driver_cpu": cpu, "driver_peak": peak_memory()}
        if self.client is not None:
            peaks = self.client.run(peak_memory).values()
            line |= {"workers_cpu": self._workers_cpu() - before, "worker_peak": max(peaks)}
        print(json.dumps(line | facts), flush=True)

    def _workers_cpu(self) -> float:
        return sum(self.client.run(time.process_time).values()) if self.client else 0.0

    def start(self, what: str, patches: int) -> None:
        """Take no note."""

    def resume(self, patches: int) -> None:
        """Take no note."""

    def count(self, patches: int, size: int, rejected: int = 0) -> None:
        """Note when a batch is done."""
        self.batches_done = time.perf_counter()


def _forget_peak() -> None:
    """Set the kernel's mark of this process's largest resident size back to its present one."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def build(recipe_path: str, source: str, to: str, *, workers: int, until: str) -> None:
    """Run every stage, or those up to the end of writing."""
    meter, recipe, target = Meter(), read_recipe(recipe_path), target_of(to)
    with meter.stage("scan") as facts:
        inventory = examine(recipe, scan(recipe, source))
        facts["patches"] = len(inventory)
    with meter.stage("plan") as facts:
        software = {"numcodecs": numcodecs.__version__}
        plan = make_plan(recipe, inventory, incomplete=recipe.source.incomplete, software=software, spool=SPOOL_LIMIT)
        facts |= {"tasks": plan.tasks, "objects": plan.objects}
    with open_cluster(scheduler=None, workers=workers) as client:
        meter.client = client
        with meter.stage("write") as facts:
            started = time.perf_counter()
            target.build.write("inventory.parquet", plan.inventory.parquet())
            written = write_cube(plan, target, client, meter)
            facts |= {"resumed": written.resumed, "bytes": written.stored_bytes}
            facts["root_seconds"] = time.perf_counter() - (meter.batches_done or started)
        if until == "write":
            return
        with meter.stage("verify") as facts:
            surveyor = Surveyor(recipe)
            report = verify_cube(target, client, surveyor=surveyor)
            facts |= {"passed": report.passed, "objects": report.objects}
        with meter.stage("catalog"):
            publish(describe(target, recipe, report, surveyor.survey()), target, report)


def open_and_select(to: str) -> None:
    """Open a cube in plain xarray and with the engine, choose patches by season and split, and read some of them."""
    meter = Meter()
    with meter.stage("open, plain xarray"):
        xr.open_zarr(to, chunks=None)
    with meter.stage("open, engine") as facts:
        facts["patches"] = open_cube(to).sizes["patch"]
    with meter.stage("select and read") as facts:
        chosen = open_cube(to, where="season=summer and split=train")
        rows = np.random.default_rng(0).permutation(chosen.sizes["patch"])[:ROWS]
        facts |= {"chosen": chosen.sizes["patch"], "read": chosen.isel(patch=np.sort(rows)).load().nbytes}


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build")
    for name in ("recipe", "source", "to"):
        building.add_argument(name)
    building.add_argument("--workers", type=int, default=2)
    building.add_argument("--until", choices=("write", "catalog"), default="catalog")
    commands.add_parser("read").add_argument("to")
    given = parser.parse_args()
    if given.command == "build":
        build(given.recipe, given.source, given.to, workers=given.workers, until=given.until)
    else:
        open_and_select(given.to)


if __name__ == "__main__":
    main()
