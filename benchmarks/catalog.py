"""The catalog of a data set of the size of SEN12MS: written, and searched on a disk and on S3.

The patches have the numbers of SEN12MS and their true places on the grids of their scenes; where a scene lies, its classes and
its statistics are made up. Labels are written into a cube without shards; the catalog is described and published from them, in
a fresh process, and searched in others. Prints each requirement beside what was measured; exits 1 if one is missed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import s3fs
from fullsize import measured, require
from tiny import TinyScene, read_scenes

from cube.catalog.describe import describe
from cube.catalog.publish import publish
from cube.convert.deciding import make_plan
from cube.convert.plan import Plan
from cube.convert.writer import publish_root
from cube.format.originals import BYTES
from cube.format.target import Target, target_of
from cube.query.search import box_of, search
from cube.recipes.recipe import Recipe, read_recipe
from cube.records.receipts import receipt_bytes, receipt_key
from cube.source.inventory import Inventory
from cube.survey.overviews import png
from cube.survey.summary import BandStatistics, PatchClasses, Summary, Survey
from cube.survey.tally import BINS
from cube.verify.report import Check, Report

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "tests" / "integration"), str(HERE.parent / "tests")]
from servers import close_connections, seaweedfs  # noqa: E402

PATCHES, SCENES = 180_662, 252
WHERE, BBOX = "season=summer and class:Urban>0.3 and split=train", "-10,35,30,60"
QUERIES = {
    "box, season and class": (WHERE, BBOX),
    "box": (None, BBOX),
    "season and class": (WHERE, None),
    "class alone": ("class:Urban>0.3", None),
    "one patch": ("patch=ROIs1868_summer_102_p30", None),
}
_STRIDE = 1280.0
"""Metres from one patch to the next."""


def inventory_of(recipe: Recipe, scenes: list[TinyScene]) -> Inventory:
    """Return the patches of all scenes, as a scan of their files would."""
    names, tokens = list(recipe.seasons), {season.token: name for name, season in recipe.seasons.items()}
    rows = sorted(
        (names.index(tokens[scene.season]), scene.number, patch, scene.season) for scene in scenes for patch in scene.patches
    )
    ids = [f"ROIs{token}_{scene}_p{patch}" for _, scene, patch, token in rows]
    shape = len(rows), len(recipe.modalities)
    season, scene, number = (np.array([row[place] for row in rows], np.int32) for place in range(3))
    return Inventory(
        source="made",
        modalities=tuple(recipe.modalities),
        seasons=tuple(names),
        patch=np.array(ids, object),
        season=season.astype(np.int8),
        scene=scene,
        number=number,
        path=np.array([[f"{modality}/{patch}.tif" for modality in recipe.modalities] for patch in ids], object),
        size=np.ones(shape, np.int64),
        stamp=np.full(shape, "", object),
        found={},
    )


def write_labels(to: str) -> int:
    """Write a cube that has everything but shards: made receipts stand in for the workers'."""
    recipe, scenes = read_recipe("sen12ms"), read_scenes()
    plan = make_plan(recipe, inventory_of(recipe, scenes), incomplete="reject", software={})
    tokens = {season.token: place for place, season in enumerate(recipe.seasons.values())}
    known = {(tokens[scene.season], scene.number): scene for scene in scenes}
    target = target_of(to)
    for index in range(plan.tasks):
        _write_receipt(plan, target, index, known)
    publish_root(plan, target)
    return plan.patches


def _write_receipt(plan: Plan, target: Target, index: int, scenes: dict[tuple[int, int], TinyScene]) -> None:
    batch, inventory = plan.batch(index), plan.inventory
    rows = range(batch.start, batch.stop)
    shape = len(rows), len(plan.job.layouts)
    of = [scenes[int(inventory.season[row]), int(inventory.scene[row])] for row in rows]
    zeros, hashes = np.zeros(shape, int).tolist(), bytes(32 * shape[0] * shape[1]).hex()
    columns = {
        "epsg": [scene.epsg for scene in of],
        "crs": [[], [-1] * len(rows)],
        "transform": [_transform(scene, int(inventory.number[row])) for scene, row in zip(of, rows, strict=True)],
        **dict.fromkeys(("nan_count", "zero_count", "saturated_count", "constant", "masked", "pixel_start", "size"), zeros),
        "header_size": np.full(shape, 884).tolist(),
        "kept": np.full(shape, BYTES).tolist(),
        **dict.fromkeys(("digest", "header_digest"), hashes),
    }
    facts = {"batch": batch.digest, "stamp": batch.stamp, "index": index, "start": batch.start, "stop": batch.stop}
    nothing = {"peak_bytes": 0, "files": 0, "bytes_in": 0, "taken_over": 0, "objects": {}, "rejected": []}
    nothing |= {"tiles": {name: [0, 0] for name in plan.job.layouts}, "statements": {name: [] for name in plan.job.layouts}}
    target.build.write(receipt_key(batch.digest), receipt_bytes({**facts, **nothing, "columns": columns}))


def _transform(scene: TinyScene, number: int) -> list[float]:
    """Return the affine of a patch: its true place in its scene, the scene anywhere in its zone."""
    rng = np.random.default_rng([scene.number, scene.width, ord(scene.season[-1]), ord(scene.season[-3])])
    x, y = rng.uniform(2e5, 6e5), rng.uniform(5e5, 8e6)
    row, column = divmod(number - 1, scene.width)
    return [10.0, 0.0, x + _STRIDE * column, 0.0, -10.0, y - _STRIDE * row]


def make_survey(recipe: Recipe, inventory: Inventory) -> Survey:
    """Return a survey with made statistics; every patch has two classes of each legend."""
    rng = np.random.default_rng(1)
    keys = [(season, int(scene)) for season, scene in inventory.scene_keys()]
    shares = {}
    for name, legend in recipe.legends.items():
        part = np.zeros((len(inventory), len(legend)), np.float32)
        first = rng.integers(0, 65537, len(inventory)) / np.float32(65536)
        for share in (first, 1 - first):
            part[np.arange(len(part)), rng.integers(0, len(legend), len(part))] += share
        shares[name] = PatchClasses(tuple(item.value for item in legend), part)
    picture = png(rng.integers(0, 255, (500, 500, 1), np.uint8), [])
    return Survey(
        whole=_summary(recipe, rng),
        scenes={key: _summary(recipe, rng) for key in keys},
        grounded=dict.fromkeys(keys, True),
        drawn=dict.fromkeys(keys, True),
        tiles=dict.fromkeys(recipe.modalities, (1, 1)),
        patch_classes=shares,
        overviews={key: dict.fromkeys(recipe.modalities, picture) for key in keys},
        reduction=dict.fromkeys(recipe.modalities, 8),
    )


def _summary(recipe: Recipe, rng: np.random.Generator) -> Summary:
    def band() -> BandStatistics:
        low, mean, high, deviation = (float(value) for value in rng.random(4))
        histogram = tuple(rng.integers(0, 10**6, BINS).tolist())
        return BandStatistics(count=10**6, nan=0, minimum=low, maximum=high, mean=mean, stddev=deviation, histogram=histogram)

    bands = {name: tuple(band() for _ in modality.bands) for name, modality in recipe.modalities.items()}
    classes = {name: {item.name: float(rng.random()) for item in legend} for name, legend in recipe.legends.items()}
    return Summary(bands=bands, classes=classes)


def write_catalog(to: str) -> dict[str, Any]:
    """Describe and publish; return the sizes."""
    recipe, target = read_recipe("sen12ms"), target_of(to)
    survey = make_survey(recipe, inventory_of(recipe, read_scenes()))
    started = time.perf_counter()
    report = Report(target.url, (Check("none", "made up"),))
    catalog = describe(target, recipe, report, survey)
    publish(catalog, target, report)
    seconds = time.perf_counter() - started
    return {"items": len(catalog.items), "table": len(catalog.files["items.parquet"]), "seconds": seconds}


def search_figures(to: str) -> dict[str, tuple[int, int, int, float]]:
    """Return, by query, patches, requests, bytes and the median of five seconds."""
    target, figures = target_of(to), {}
    search(target)
    for name, (where, bbox) in QUERIES.items():
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            found = search(target, where, box_of(bbox) if bbox else None)
            seconds.append(time.perf_counter() - started)
        figures[name] = found.patches, found.requests, found.bytes_read, float(np.median(seconds))
    return figures


def remote_figures(to: str, url: str) -> dict[str, tuple[int, int, int]]:
    """Put the table on S3 and return, by query: patches, requests of the S3 client, bytes."""
    local, target, figures = target_of(to), target_of(url), {}
    target.stac.write("items.parquet", local.stac.read("items.parquet"))
    for name, (where, bbox) in QUERIES.items():
        with counted_requests() as counts:
            found = search(target, where, box_of(bbox) if bbox else None)
        figures[name] = found.patches, sum(counts.values()), found.bytes_read
        if counts != {"get_object": found.requests}:
            raise AssertionError(f"{name}: the client made {dict(counts)}, the search counted {found.requests}")
    return figures


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """Count every call of the S3 client."""
    counts: Counter[str] = Counter()
    real = s3fs.S3FileSystem._call_s3

    async def call(system: Any, method: str, *rest: Any, **options: Any) -> Any:
        counts[method] += 1
        return await real(system, method, *rest, **options)

    with mock.patch.object(s3fs.S3FileSystem, "_call_s3", call):
        yield counts


def whole_command(to: str) -> float:
    """Return the seconds of `cube search` as a process of its own."""
    command = [sys.executable, "-m", "cube", "search", to, "--where", WHERE, "--bbox", BBOX]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def run(folder: Path) -> int:
    """Measure in a folder and print; return 1 if a requirement is missed."""
    to, missed = str(folder / "full.zarr"), 0
    patches, _, _ = measured(write_labels, to)
    written, seconds, megabytes = measured(write_catalog, to)
    print(
        f"{patches:,} patches, {written['items']} items, table {written['table']:,} bytes; {seconds:.1f} s with the made survey"
    )
    missed += (patches, written["items"]) != (PATCHES, SCENES)
    missed += require("describe and publish, s", written["seconds"], 60)
    missed += require("peak memory, MB", megabytes, 1000)
    figures, _, _ = measured(search_figures, to)
    for name, (found, requests, size, median) in figures.items():
        print(f"  {name}: {found:,} patches, {requests} parts, {size:,} bytes, {median:.3f} s")
    missed += require("box, season and class on a disk, s", figures["box, season and class"][-1], 1.0)
    print(f"  the whole command, s: {whole_command(to):.1f}")
    return min(missed, 1)


def run_remote(folder: Path) -> None:
    """Search the same table on a real S3 server and print what was asked of it."""
    with seaweedfs(folder / "server") as server, mock.patch.dict("os.environ", server.environment):
        for name, (found, requests, size) in remote_figures(str(folder / "full.zarr"), "s3://private/full.zarr").items():
            print(f"  from S3, {name}: {found:,} patches, {requests} requests, {size:,} bytes")
        close_connections()


def main() -> None:
    """Run everything and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to make the cube (a temporary folder by default)")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="cube-catalog-"))
    try:
        missed = run(folder)
        run_remote(folder)
    finally:
        shutil.rmtree(folder)
    sys.exit(missed)


if __name__ == "__main__":
    main()
