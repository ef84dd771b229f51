"""How well batches are mixed, how many tiles that costs, and how much memory: SEN12MS in full size, without a pixel.

Patches, scenes and grids are those of the index beside the repository. Tiles are planned as the reader does it: those that
fit the memory are decoded once, of the others the one that is wanted again last is dropped. Planning is timed along.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scenes import SHARED, TRIPLET_BYTES

from cube.train.planning import TilePlan
from cube.train.shuffle import Shuffle, same_share, shuffled

SHARD, BATCH = 256, 32
SEASONS = ("spring", "summer", "fall", "winter")
TILE_BYTES = TRIPLET_BYTES // 4
MEMORIES = (0.5, 1, 2, 4)
OUT = Path(__file__).resolve().parent / "out" / "shuffle.json"

Array = NDArray[Any]


def read_index(folder: Path) -> tuple[Array, Array]:
    """Return (patch) scene numbers over all seasons and (patch, 4) ground tiles, in the order of a cube."""
    with gzip.open(folder / "sen12ms_index_180662.csv.gz", "rt", encoding="utf-8") as file:
        rows = [[SEASONS.index(r["roi_season"].partition("_")[2]), *map(int, (r["scene"], r["patch"], r["grid_width"]))]
                for r in csv.DictReader(file)]  # fmt: skip
    table = np.array(sorted(rows))
    scenes = table[:, 0] * 1000 + table[:, 1]
    row, column = np.divmod(table[:, 2], table[:, 3])
    shard = np.arange(len(table)) // SHARD  # tiles are shared within a shard
    corners = [((shard * 10_000 + scenes) * 100 + row + down) * 100 + column + right for down in (0, 1) for right in (0, 1)]
    return scenes, np.stack(corners, axis=1)


def decoded(uses: Array, order: Array, memory: int) -> tuple[int, float, int]:
    """Return the tiles decoded for patches in some order, the seconds of planning, and the slots that avoid decoding twice.

    ``uses`` (patch, tile) are the tiles of each patch.
    """
    entries = np.stack([uses, np.ones_like(uses)], axis=-1).astype(np.uint64)
    begun = time.perf_counter()
    plan = TilePlan(order, BATCH, shard=SHARD, places=uses.shape[1], entries=lambda rows: entries[rows])
    plan.slots.limit = memory // TILE_BYTES
    count = sum(len(plan.step(number).tiles) for number in range(len(plan)))
    return count, time.perf_counter() - begun, plan.needed(len(plan) - 1)


def main() -> None:
    """Print one row for each way to shuffle and each memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, default=SHARED / "data" / "index")
    scenes, tiles = read_index(parser.parse_args().index)
    runs = np.arange(len(scenes)) // SHARD
    plain = same_share(scenes[np.random.default_rng(0).permutation(len(scenes))], BATCH)
    found = []
    print(f"{len(scenes):,} patches, batches of {BATCH}; a shuffle over everything has {plain:.2%} pairs of one scene")
    print(
        f"{len(np.unique(tiles)) / len(tiles):.3f} of the tiles are distinct: {len(np.unique(tiles)) / len(scenes):.2f} a patch"
    )
    for block, lanes in ((256, 8), (256, 16), (256, 32), (256, 64), (256, 128), (256, 512), (1, 32)):
        order = shuffled(runs, Shuffle(block=block, lanes=lanes), (0, 0))
        share = same_share(scenes[order], BATCH)
        runs_of = {memory: decoded(tiles, order, int(memory * 2**30)) for memory in MEMORIES}
        costs = {memory: count / len(scenes) for memory, (count, _, _) in runs_of.items()}
        seconds, needed = max(seconds for _, seconds, _ in runs_of.values()), runs_of[MEMORIES[0]][2] * TILE_BYTES / 2**30
        found.append({"block": block, "lanes": lanes, "same_scene": share, "global": plain, "tiles_per_patch": costs,
                      "planning": seconds, "needed": needed})  # fmt: skip
        shown = ", ".join(f"{memory:g} GiB {cost:.2f}" for memory, cost in costs.items())
        print(f"block {block}, lanes {lanes}: {share:.2%} of one scene; tiles decoded a patch: {shown}; "
              f"{needed:.1f} GiB decode none twice; planned in {seconds:.1f} s a modality", flush=True)  # fmt: skip
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
