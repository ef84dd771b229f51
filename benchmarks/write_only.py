"""The writing stage alone: ``write_cube`` through Dask for growing numbers of patches, on workers that are already running.

The slope of seconds over patches is the writing rate, free of start-up. Also decodes what it wrote, one process, each distinct
tile once. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client

from cube.convert.plan import Plan
from cube.convert.writer import write_cube
from cube.format.arrays import chunk_key
from cube.format.target import Target, target_of
from cube.format.tiles import TileLayout, decode_tile, read_index
from cube.jobs.planning import Chosen, plan_build
from cube.recipes.recipe import read_recipe, with_profile
from cube.work.clusters import open_cluster

DECODED_SHARDS = 2


def write(plan: Plan, to: Path, client: Client | None) -> tuple[Target, dict[str, Any]]:
    """Write a planned cube and return it with what the writing took."""
    target = target_of(str(to))
    begun = time.monotonic()
    written = write_cube(plan, target, client)
    seconds = time.monotonic() - begun
    return target, {
        "patches": plan.patches,
        "seconds": seconds,
        "cpu_seconds": sum(receipt["cpu_seconds"] for receipt in written.receipts),
        "busy_seconds": sum(receipt["seconds"] for receipt in written.receipts),
        "peak_bytes": max(receipt["peak_bytes"] for receipt in written.receipts),
        "stored_bytes": folder_bytes(to),
        "raw_bytes": plan.raw_bytes,
    }


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def decode(plan: Plan, target: Target) -> dict[str, dict[str, float]]:
    """Decode each distinct tile of a few shards; return decoded bytes and seconds by modality, reading excluded."""
    spent = {}
    for name, layout in plan.job.layouts.items():
        shards = [target.cube.read(chunk_key(name, (index, 0, 0, 0))) for index in range(min(DECODED_SHARDS, plan.tasks))]
        tiles, seconds = 0, 0.0
        for shard in shards:
            more = decode_shard(layout, shard)
            tiles, seconds = tiles + more[0], seconds + more[1]
        spent[name] = {"bytes": tiles * layout.tile_bytes, "seconds": seconds}
    return spent


def decode_shard(layout: TileLayout, shard: bytes) -> tuple[int, float]:
    """Decode a shard's distinct tiles; return their number and the seconds."""
    index = read_index(layout, shard[-layout.index_bytes :], len(shard))
    used = index[index[..., 1] != np.uint64(2**64 - 1)]
    places = [(int(at), int(at + length)) for at, length in np.unique(used, axis=0)]
    out = np.empty((layout.bands, layout.tile, layout.tile), layout.dtype)
    compressor, view = layout.compressor(), memoryview(shard)
    begun = time.perf_counter()
    for start, stop in places:
        decode_tile(layout, compressor, view[start:stop], out)
    return len(places), time.perf_counter() - begun


def main() -> None:
    """Write and decode a few sizes of one data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True)
    parser.add_argument("--to", required=True, type=Path, help="an existing folder")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--patches", type=int, nargs="+", required=True)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    recipe = with_profile(read_recipe(given.recipe), given.profile)
    plans = [plan_build(recipe, given.source, Chosen(limit=count)) for count in given.patches]
    runs, decoded = [], {}
    with open_cluster(scheduler=None, workers=given.workers) as client:
        write(plans[0], given.to / "warm.zarr", client)
        for place, plan in enumerate(plans):
            os.sync()
            target, run = write(plan, given.to / f"{place}.zarr", client)
            runs.append(run)
            if plan is plans[-1]:
                decoded = decode(plan, target)
            shutil.rmtree(given.to / f"{place}.zarr")
    print(json.dumps({"runs": runs, "decoded": decoded}))


if __name__ == "__main__":
    main()
