"""Measures reading: shuffled training batches against what people use today, random patches, and a store that is far away.

One run reads the same SEN12MS-shaped cube (see ``scenes.py``: **B10, S1 and land cover are made up**) with every competitor in
turn, several times over, and judges the medians. It writes ``out/read.json`` and exits with 1 if a requirement is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convert import as_text, verdict_table
from line import far_store
from requirements import Requirement
from scenes import SHARED, make_scenes

HERE = Path(__file__).resolve().parent
OUT = HERE / "out" / "read.json"
LATENCY, RATE = 0.05, 100e6
LOADERS = {
    "rasterio_one": "rasterio, one thread, no batches",
    "files_loader": "DataLoader over GeoTIFFs, 2 workers, image and mask as TorchGeo",
    "zarr_loader": "DataLoader over zarr-python patch by patch, 2 workers",
    "tensorstore_batches": "tensorstore, futures, 2 threads, 2 GiB cache",
    "webdataset_loader": "WebDataset, shards of 64, shuffle 500, 2 workers",
    "litdata_loader": "LitData, chunks of 64 MB, shuffled, 2 workers",
    "cube_loader_processes": "cube, BatchLoader, 2 worker processes",
    "cube_form": "cube, BatchLoader, image and mask as TorchGeo, 2 threads",
    "cube_loader": "cube, BatchLoader, 2 threads",
    "cube_batches": "cube, Batches, 2 threads",
    "cube_stored": "cube, Batches in stored order, 2 threads",
    "cube_optical": "cube, Batches of s2 only, 2 threads",
    "cube_colors": "cube, Batches of three bands of s2, 2 threads",
    "bare_assemble": "bare loop: decode, copy to patches",
    "bare_gather": "bare loop: decode into slots, gather as ours",
    "bare_decode": "bare loop: decode only",
}
Runs = dict[str, list[dict[str, Any]]]


def run(name: str, folder: Path, python: str = sys.executable, **more: str) -> dict[str, Any]:
    """Run one competitor and return its figures."""
    command = [python, str(HERE / "readers.py"), name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **more})
    if done.returncode:
        raise SystemExit(f"{name} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {name:24} {found.get('rate', 0):8.1f} patches/s", file=sys.stderr, flush=True)
    return found


def measure(folder: Path, repeats: int) -> Runs:
    """Run everything ``repeats`` times, in turn."""
    other = os.environ.get("CUBE_OTHER_PYTHON")
    runs: Runs = {}
    for repeat in range(repeats):
        print(f"repeat {repeat + 1} of {repeats}", file=sys.stderr)
        for name in (*LOADERS, "random_engine", "random_plain", "bands"):
            runs.setdefault(name, []).append(run(name, folder))
        for name in ("random_engine", "random_plain") if other else ():
            runs.setdefault(f"{name} 3.4", []).append(run(name, folder, other))
    for name in ("random_requests", "unshared", "many_epochs"):
        runs[name] = [run(name, folder)]
    return runs


def far(folder: Path, repeats: int) -> dict[str, Any]:
    """Read over a line that answers late and carries so much: the first batch, an epoch, a second one that was kept."""
    found: dict[str, Any] = {"epochs": []}
    with far_store(folder, LATENCY, RATE) as line:
        options = json.dumps({"anon": True, "endpoint_url": line.url})
        environment = {"CUBE_URL": "s3://far/cube.zarr", "CUBE_OPTIONS": options}
        found["random_requests"] = run("random_requests", folder, **environment)
        for _ in range(repeats):
            line.seen()
            found["epochs"].append({**run("far_epoch", folder, **environment), "seen": line.seen()})
        with tempfile.TemporaryDirectory(dir=folder) as kept:
            found["kept"] = run("far_epoch", folder, CUBE_CACHE=kept, **environment)
    return found


def rate(runs: Runs, name: str) -> float:
    """Return the median rate of a competitor."""
    return statistics.median(figures["rate"] for figures in runs[name])


def requirements(runs: Runs, away: dict[str, Any]) -> Iterator[Requirement]:
    """Judge the medians."""
    ours = rate(runs, "cube_batches")
    yield _least(f"cube, the same form / {LOADERS['files_loader']}", rate(runs, "cube_form") / rate(runs, "files_loader"), 7)
    for name, least in {"zarr_loader": 3, "tensorstore_batches": 1, "litdata_loader": 2.5,
                        "webdataset_loader": 3.5, "bare_assemble": 0.9}.items():  # fmt: skip
        yield _least(f"cube, shuffled / {LOADERS[name]}", ours / rate(runs, name), least)
    yield _least("bare loop / rasterio on one thread", rate(runs, "bare_decode") / rate(runs, "rasterio_one"), 9)
    yield _least("three bands of s2 / all thirteen", rate(runs, "cube_colors") / rate(runs, "cube_optical"), 1.8)
    for line, least in (("", 40), (" 3.4", 3.5)):
        if f"random_plain{line}" in runs:
            ratio = rate(runs, f"random_engine{line}") / rate(runs, f"random_plain{line}")
            yield _least(f"32 random patches, engine / xr.open_zarr{line or ' on this Python'}", ratio, least)
    for kind, found in runs["random_requests"][0].items():
        yield _most(f"{kind}: requests per touched shard, 32 random patches", found["requests"] / found["shards"], 2)
        yield _most(f"{kind}: bytes / distinct tiles", (found["bytes"] - found["indexes"]) / found["tiles"], 1.1)
    tiles = runs["cube_batches"][0]
    yield _most("tiles decoded a patch and modality", tiles["tiles"] / 3 / tiles["patches"], 1.35)
    epochs, stored = away["epochs"], runs["unshared"][0]
    far_rate = statistics.median(epoch["rate"] * epoch["needed"] / epoch["patches"] for epoch in epochs)
    yield _least("needed bytes over the line at 50 ms / what it carries", far_rate / RATE, 0.85)
    yield _most("bytes of an epoch from far / those of an unshared cube", epochs[0]["bytes"] / stored["every"], 0.36)
    yield _most("requests of a second epoch with a cache", away["kept"]["asked again"], 0)
    yield _most("first batch, local, s", statistics.median(r["first"] for r in runs["cube_batches"]), 1)
    yield _most("first batch, at 50 ms, s", statistics.median(epoch["first"] for epoch in epochs), 1)
    memory = runs["many_epochs"][0]["memory"]
    yield _most("memory after 20 epochs / after 2", memory[-1] / memory[1], 1.05)
    yield _most("memory / stated bound + 300 MB", max(memory) / (runs["many_epochs"][0]["bound"] + 300e6), 1)


def _least(name: str, seen: float, least: float) -> Requirement:
    return Requirement(name=name, required=f">= {least:g}", measured=f"{seen:.2f}", met=seen >= least)


def _most(name: str, seen: float, most: float) -> Requirement:
    return Requirement(name=name, required=f"<= {most:.3g}", measured=f"{seen:.2f}", met=seen <= most)


def loader_table(runs: Runs) -> list[list[str]]:
    """Return the rates of all loaders."""
    rows = [["batches of 32, all modalities", "patches/s", "first batch, s"]]
    return rows + [[LOADERS[n], f"{rate(runs, n):.0f}", f"{runs[n][-1]['first']:.2f}"] for n in LOADERS]


def benchmark(folder: Path, repeats: int, patches: int) -> list[Requirement]:
    """Make the cube, measure, print and save; return the requirements."""
    if not (folder / "cube.zarr").exists():
        make_scenes(folder / "files", patches)
        build = [sys.executable, "-m", "cube", "build", "sen12ms", "--source", folder / "files", "--to", folder / "cube.zarr"]
        subprocess.run([str(word) for word in build], check=True, capture_output=True)
    runs, away = measure(folder, repeats), far(folder, repeats)
    verdict = list(requirements(runs, away))
    OUT.parent.mkdir(exist_ok=True)
    document = {"runs": runs, "s3": away, "requirements": [vars(item) for item in verdict]}
    OUT.write_text(json.dumps(document, indent=1), encoding="utf-8")
    for table in (loader_table(runs), verdict_table(verdict)):
        print("\n" + as_text(table))
    print("\nOver the line: " + json.dumps(away["epochs"][-1]) + "\nwith a cache: " + json.dumps(away["kept"]))
    print("Bands: " + json.dumps(runs["bands"][-1]))
    return verdict


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the data are made, or lie from an earlier run (about 16 GB)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repeat, 1,400 patches: a smoke run, not a measurement")
    given = parser.parse_args()
    if not SHARED.is_dir():
        raise SystemExit("the texture the scenes are cut from is not there")
    patches, repeats = (1400, 1) if given.quick else (2688, given.repeats)
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
        verdict = benchmark(given.folder, repeats, patches)
    else:
        with tempfile.TemporaryDirectory(prefix="read-") as folder:
            verdict = benchmark(Path(folder), repeats, patches)
    if not given.quick and not all(item.met for item in verdict):
        sys.exit(1)


if __name__ == "__main__":
    main()
