"""The true names at their true number, without pixels: scan, plan, and the coordinates of a full cube.

Makes 541,986 empty-looking (sparse) files with the names of SEN12MS from ``../shared/data/index`` and 564,768 with those of
SEN1-2, scans and plans them, and writes the coordinates of all 180,662 patches into a cube without shards. Plain xarray
and the engine then open it while every request is counted. Prints each requirement beside what was measured; exits 1 if one
is missed.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import dask
import numpy as np
import xarray as xr
import zarr.storage

from cube import open_cube
from cube.catalog.describe import describe
from cube.catalog.publish import publish
from cube.convert.plan import Plan
from cube.convert.preparation import PLAN
from cube.convert.writer import publish_root
from cube.format.arrays import read_spec
from cube.format.layout import tile_layouts
from cube.format.originals import BYTES
from cube.format.root import read_root
from cube.format.small import read_array
from cube.format.target import Target, target_of
from cube.jobs.planning import Chosen, plan_build
from cube.recipes.recipe import Recipe, read_recipe
from cube.records.receipts import receipt_bytes, receipt_key
from cube.store.local import LocalStore
from cube.store.protocol import Range
from cube.survey.surveyor import Surveyor
from cube.survey.tally import BINS, Tally
from cube.verify.report import Check, Report

SHARED = Path(os.environ.get("CUBE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SIZES = {"s1": 525172, "s2": 1706432, "lc": 262788}
PAIRS = {"ROIs1158_spring": 75724, "ROIs1868_summer": 53508, "ROIs1970_fall": 86370, "ROIs2017_winter": 66782}
_ROWS = 30


def sen12ms_names() -> Iterator[tuple[str, int]]:
    """Yield path and size of every file of SEN12MS, from the index of its patches."""
    with gzip.open(SHARED / "data/index/sen12ms_index_180662.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            season, scene, patch = row["roi_season"], row["scene"], row["patch"]
            for kind, size in SIZES.items():
                yield f"{season}/{kind}_{scene}/{season}_{kind}_{scene}_p{patch}.tif", size


def sen12_names() -> Iterator[tuple[str, int]]:
    """Yield path and size of as many files as SEN1-2 has, season by season; scenes and numbers are made."""
    for season, pairs in PAIRS.items():
        for number in range(pairs):
            scene, patch = number // 900, number % 900 + 1
            for kind, size in (("s1", 40400), ("s2", 129000)):
                yield f"{season}/{kind}_{scene}/{season}_{kind}_{scene}_p{patch}.png", size


def make_files(folder: Path, names: Iterator[tuple[str, int]]) -> int:
    """Make sparse files of the given sizes; they hold no data block."""
    count, folders = 0, set()
    for path, size in names:
        target = folder / path
        if target.parent not in folders:
            folders.add(target.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            file.truncate(size)
        count += 1
    return count


def measured(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """Run a function in a fresh process; return its result, its seconds and its peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_timed, (function, arguments))


def _timed(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float, float]:
    started = time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - started
    return result, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def plan_figures(recipe: str, source: str) -> dict[str, int]:
    """Scan and plan a folder."""
    plan = plan_build(read_recipe(recipe), source, Chosen())
    return {"patches": plan.patches, "tasks": plan.tasks, "rejected": len(plan.inventory.rejected)}


def write_coordinates(source: str, to: str) -> int:
    """Write a cube that has everything but shards: made receipts stand in for the workers'."""
    plan = plan_build(read_recipe("sen12ms"), source, Chosen())
    target = target_of(to)
    target.build.write(PLAN, json.dumps(plan.document()).encode())
    for index in range(plan.tasks):
        _write_receipt(plan, target, index)
    publish_root(plan, target)
    return plan.patches


def _write_receipt(plan: Plan, target: Target, index: int) -> None:
    batch = plan.batch(index)
    inventory, rows = plan.inventory, slice(batch.start, batch.stop)
    rng = np.random.default_rng(index)
    count, kinds = len(batch.patch), len(plan.job.layouts)
    zeros = np.zeros((count, kinds), int).tolist()
    hashes = {name: rng.integers(0, 256, (count, kinds, 32), np.uint8).tobytes().hex() for name in ("digest", "header_digest")}
    columns = {
        "epsg": (32601 + inventory.scene[rows] % 60).tolist(),
        "transform": [
            [10.0, 0.0, 4e5 + 1280.0 * (n % 29), 0.0, -10.0, 5e6 - 1280.0 * (n // 29)] for n in inventory.number[rows]
        ],
        "crs": [[], [-1] * count],
        **dict.fromkeys(("nan_count", "zero_count", "saturated_count", "constant", "masked", "pixel_start", "size"), zeros),
        "header_size": np.full((count, kinds), 884).tolist(),
        "kept": np.full((count, kinds), BYTES).tolist(),
        **hashes,
    }
    facts = {"batch": batch.digest, "stamp": batch.stamp, "index": index, "start": batch.start, "stop": batch.stop}
    nothing = {"peak_bytes": 0, "files": 0, "bytes_in": 0, "taken_over": 0, "objects": {}, "rejected": []}
    nothing |= {"tiles": {name: [0, 0] for name in plan.job.layouts}, "statements": {name: [] for name in plan.job.layouts}}
    receipt = {**facts, **nothing, "columns": columns}
    target.build.write(receipt_key(batch.digest), receipt_bytes(receipt))


def write_catalog(to: str) -> dict[str, int]:
    """Describe and publish the full cube: made tallies stand in for those of its shards, which it has not."""
    recipe, target = read_recipe("sen12ms"), target_of(to)
    surveyor = Surveyor(recipe)
    _, root = read_root(target)
    arrays = [(path, item) for path, item in root["consolidated_metadata"]["metadata"].items() if item["node_type"] == "array"]
    specs = {path: read_spec(path, item) for path, item in arrays}
    needed = ("season", "scene", "epsg", "transform", "present")
    labels = {name: read_array(target.cube, specs[name]) for name in needed}
    surveyor.prepare(labels, tile_layouts(recipe))
    for index, start in enumerate(range(0, len(labels["scene"]), recipe.layout.shard)):
        surveyor.add(index, _made_tallies(surveyor, recipe, slice(start, start + recipe.layout.shard)))
    survey, report = surveyor.survey(), Report(target.url, (Check("made", "nothing"),))
    catalog = describe(target, recipe, report, survey)
    publish(catalog, target, report)
    size = sum(entry.size for entry in target.stac.list())
    return {"items": len(catalog.items), "files": len(catalog.files), "bytes": size, "grounded": sum(survey.grounded.values())}


def _made_tallies(surveyor: Surveyor, recipe: Recipe, rows: slice) -> dict[str, Tally]:
    ground, rng = surveyor.slice(rows), np.random.default_rng(rows.start)
    scenes, local = np.unique(ground.scene, return_inverse=True)
    tallies = {}
    for kind, (name, layout) in enumerate(tile_layouts(recipe).items()):
        job = surveyor.jobs[name]
        slot, place = np.nonzero(ground.owned[:, kind])
        count = np.bincount(local[slot], minlength=len(scenes))[:, None] * np.full(layout.bands, layout.tile**2)
        row, column = (ground.top[slot] // 128 + place // 2) * 16, (ground.left[slot] // 128 + place % 2) * 16
        codes = {band: len(listed) + 1 for band, listed in job.codes.items()}
        tallies[name] = Tally(
            scenes=scenes,
            used=4 * len(ground.scene),
            stored=len(slot),
            count=count,
            nan=count * 0,
            minimum=count * 0.0,
            maximum=count * 0.0 + 4000,
            total=count * 1000,
            squares=count * 1500**2,
            histogram=rng.integers(0, 9, (*count.shape, BINS)),
            classes={band: rng.integers(0, 9, (len(scenes), length)) for band, length in codes.items()},
            patch_classes={band: rng.integers(0, 9, (len(ground.scene), length), np.int32) for band, length in codes.items()},
            pieces=rng.integers(1, 60 if name == "s2" else 9, (len(slot), 16, 16, len(job.drawn)), np.uint8),
            uses=np.stack([np.arange(len(slot)), ground.scene[slot], row, column], axis=1),
        )
    return tallies


class CountingStore(zarr.storage.LocalStore):
    """A local store that notes every request."""

    requests: ClassVar[Counter[str]] = Counter()

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        self.requests[f"GET {key}"] += 1
        return await super().get(key, *arguments, **options)

    async def exists(self, key: str) -> bool:
        self.requests[f"HEAD {key}"] += 1
        return await super().exists(key)


def opening_figures(to: str) -> dict[str, Any]:
    """Open the cube in plain xarray, several ways, and count the requests of the first."""
    xr.open_zarr(to).close()
    CountingStore.requests.clear()
    xr.open_zarr(CountingStore(to, read_only=True))
    requests = dict(CountingStore.requests)
    return {
        "requests": requests,
        "open": _median(lambda: xr.open_zarr(to)),
        "documented": _median(lambda: xr.open_zarr(to, chunks=None).sel(season="summer").chunk(patch=128)),
        "obvious": _median(lambda: xr.open_zarr(to).sel(season="summer"), 1),
    }


def engine_figures(to: str) -> dict[str, Any]:
    """Open the cube by the engine, select, and plan a mean; count requests and tasks. No tile exists, so none can be read."""
    asked: list[str] = []
    chosen = {"where": "season=summer and split=train", "bbox": (0.0, 0.0, 20.0, 60.0)}
    with _noting(asked):
        opened = xr.open_dataset(to, engine="cube")
        opening = [asked.pop() for _ in range(len(asked))]
        opened.sel(season="summer", s2_band=["B04", "B03", "B02"]).sel(split="train").isel(y=slice(0, 128))
        selecting = [asked.pop() for _ in range(len(asked))]
        xr.open_dataset(to, engine="cube", **chosen)
        choosing = [asked.pop() for _ in range(len(asked))]
        tasks = mean_tasks(xr.open_dataset(to, engine="cube", chunks={}))
        documented = mean_tasks(open_cube(to).chunk(patch=128))
    return {
        "requests": {"opening": opening, "labels of .sel": selecting, "opening with where and bbox": choosing},
        "tasks": tasks,
        "documented tasks": documented,
        "open": _median(lambda: xr.open_dataset(to, engine="cube")),
        "select": _median(lambda: open_cube(to).sel(season="summer").sel(split="train")),
        "choose": _median(lambda: open_cube(to, **chosen)),
    }


def mean_tasks(cube: xr.Dataset) -> dict[str, int]:
    """Return how many tasks Dask would run for the mean of each variable, and of all."""
    wanted: dict[str, Any] = {str(name): array.mean() for name, array in cube.data_vars.items()} | {"all": cube.mean()}
    return {name: len(dict(dask.optimize(mean)[0].__dask_graph__())) for name, mean in wanted.items()}


@contextmanager
def _noting(asked: list[str]) -> Iterator[None]:
    """Note the key of every object, or part of one, that this package reads of a folder."""
    read, read_ranges = LocalStore.read, LocalStore.read_ranges

    def noted(store: LocalStore, key: str) -> bytes:
        asked.append(key)
        return read(store, key)

    def noted_ranges(store: LocalStore, ranges: list[Range]) -> list[bytes]:
        asked.extend(item.key for item in ranges)
        return read_ranges(store, ranges)

    with mock.patch.multiple(LocalStore, read=noted, read_ranges=noted_ranges):
        yield


def _median(function: Callable[[], Any], repeats: int = 5) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to make the files (a temporary folder by default)")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="cube-fullsize-"))
    try:
        sys.exit(run(folder))
    finally:
        shutil.rmtree(folder)


def run(folder: Path) -> int:
    """Measure in a folder and print; return 1 if a requirement is missed."""
    missed = 0
    for recipe, names in (("sen12ms", sen12ms_names()), ("sen1-2", sen12_names())):
        source = folder / recipe
        files = make_files(source, names)
        figures, seconds, megabytes = measured(plan_figures, recipe, str(source))
        print(f"{recipe}: {files:,} files, {figures['patches']:,} patches, {figures['rejected']} rejected")
        missed += require("scan and plan, s", seconds, 60)
        missed += require("peak memory, MB", megabytes, 1500)
        missed += require("tasks", figures["tasks"], 1200)
    to = str(folder / "full.zarr")
    patches, seconds, megabytes = measured(write_coordinates, str(folder / "sen12ms"), to)
    print(f"coordinates of {patches:,} patches written in {seconds:.1f} s, {megabytes:.0f} MB")
    figures, seconds, megabytes = measured(write_catalog, to)
    print(f"catalog: {figures}")
    missed += require("catalog and overviews, s", seconds, 60)
    missed += require("peak memory, MB", megabytes, 1000)
    figures, _, megabytes = measured(opening_figures, to)
    missed += require("xr.open_zarr(T), s", figures["open"], 1.0)
    missed += require("the documented line, s", figures["documented"], 1.0)
    print(f"  the obvious line, xr.open_zarr(T).sel(season=…), s: {figures['obvious']:.1f}")
    print(f"  {sum(figures['requests'].values())} requests of xr.open_zarr(T):")
    for request, count in sorted(figures["requests"].items()):
        print(f"    {count} × {request}")
    return min(missed + run_engine(to), 1)


def run_engine(to: str) -> int:
    """Measure the engine on the full cube and print; return how many requirements are missed."""
    figures, _, _ = measured(engine_figures, to)
    missed = require('xr.open_dataset(T, engine="cube"), s', figures["open"], 1.0)
    missed += require("requests of it", len(figures["requests"]["opening"]), 3)
    print(f"  open_cube(T).sel(season=…).sel(split=…), s: {figures['select']:.2f}")
    print(f"  open_cube(T, where=…, bbox=…), s: {figures['choose']:.2f}")
    for what, keys in figures["requests"].items():
        print(f"  {what}: {len(keys)} requests: {', '.join(sorted(keys))}")
        missed += require("of tiles", sum(key.split("/")[0] in SIZES for key in keys), 0)
    for what, chunks in (("tasks", "chunks={}"), ("documented tasks", ".chunk(patch=128)")):
        print(f"  tasks of a mean with {chunks}: {figures[what]}")
    missed += require("tasks of a mean over the whole cube", figures["tasks"]["all"], 5000)
    return missed + require("tasks of a mean of one modality, as documented", max(_single(figures["documented tasks"])), 5000)


def _single(tasks: dict[str, int]) -> list[int]:
    return [count for name, count in tasks.items() if name != "all"]


def require(what: str, seen: float, most: float) -> bool:
    """Print a requirement beside its measurement; return whether it is missed."""
    print(f"  {what}: {seen:,.2f}, at most {most:,} {'' if seen <= most else ' MISSED'}")
    return seen > most


if __name__ == "__main__":
    main()
