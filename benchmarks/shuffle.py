"""How well batches are mixed, how many tiles that costs, and how much memory: SEN12MS in full size, without a pixel.

Patches, scenes and grids are those of the index beside the repository. Tiles that fit the memory are decoded once; the
others again, as the reader does it: it plans batches ahead until their tiles fill the memory.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import Counter, deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scenes import SHARED, TRIPLET_BYTES

from cube.train.shuffle import Shuffle, same_share, shuffled

SHARD, BATCH = 256, 32
SEASONS = ("spring", "summer", "fall", "winter")
TILE_BYTES = TRIPLET_BYTES // 4
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


def decoded(uses: Array, memory: int) -> int:
    """Return how many tiles are decoded when patches want ``uses`` (patch, tile) in this order."""
    batches = [np.unique(uses[start : start + BATCH]).tolist() for start in range(0, len(uses), BATCH)]
    wanted: Counter[int] = Counter()
    live: set[int] = set()
    ahead: deque[list[int]] = deque()
    count = following = 0
    for number in range(len(batches)):
        while following < len(batches) and (following <= number or len(wanted) * TILE_BYTES < memory):
            ahead.append(batches[following])
            wanted.update(batches[following])
            following += 1
        for tile in ahead.popleft():
            count += tile not in live
            live.add(tile)
            wanted[tile] -= 1
            if not wanted[tile]:
                del wanted[tile]
                live.discard(tile)
    return count


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
        costs = {memory: decoded(tiles[order], memory << 30) / len(scenes) for memory in (1, 2, 4, 8)}
        found.append({"block": block, "lanes": lanes, "same_scene": share, "global": plain, "tiles_per_patch": costs})
        shown = ", ".join(f"{memory} GiB {cost:.2f}" for memory, cost in costs.items())
        print(f"block {block}, lanes {lanes}: {share:.2%} of one scene; tiles decoded a patch: {shown}", flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
