"""What a survey costs: CPU time for the tiles of one made triplet, the best of many looks at each tile."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from scenes import STRIDE, TEXTURE, WIDTH, make_images, read_cells

from cube.format.layout import tile_layouts
from cube.recipes.recipe import read_recipe
from cube.survey.ground import GroundSlice
from cube.survey.surveyor import tally_jobs
from cube.survey.tally import ShardTally

TILES = 8
"""Along one side of a scene."""
LOOKS = 30


def main() -> None:
    """Print a table."""
    recipe = read_recipe("sen12ms")
    layouts, jobs = tile_layouts(recipe), tally_jobs(recipe)
    images = make_images(read_cells(TEXTURE), 0, TILES * STRIDE, TILES * STRIDE)
    distinct = ((WIDTH + 1) / WIDTH) ** 2
    total = 0.0
    for kind, (name, layout) in enumerate(layouts.items()):
        corners = [(row * STRIDE, column * STRIDE) for row in range(TILES) for column in range(TILES)]
        tiles = [images[name][top : top + STRIDE, left : left + STRIDE].transpose(2, 0, 1) for top, left in corners]
        index = np.arange(len(tiles), dtype=np.uint64).reshape(-1, 4, 1)
        slots = len(index)
        owned = np.ones((slots, len(layouts), 4), bool)
        zeros = np.zeros(slots, np.int64)
        tally = ShardTally(jobs[name], layout, GroundSlice(zeros, np.ones(slots, bool), zeros, zeros, owned), kind, index)
        seconds = looks(tally, [np.ascontiguousarray(tile) for tile in tiles])
        started = time.process_time()
        tally.finish()
        finish = (time.process_time() - started) / len(tiles)
        print(f"{name}: {seconds * 1e3:.3f} ms a tile, {finish * 1e3:.3f} ms more at the end of a shard")
        total += seconds + finish
    print(f"a triplet, with {distinct:.2f} distinct tiles of each modality: {total * distinct * 1e3:.2f} ms")


def looks(tally: ShardTally, tiles: list[NDArray[np.generic]]) -> float:
    """Return the mean over tiles of the shortest CPU time of a look."""
    best = np.full(len(tiles), np.inf)
    for _ in range(LOOKS):
        for place, tile in enumerate(tiles):
            started = time.process_time()
            tally.tile(place, tile)
            best[place] = min(best[place], time.process_time() - started)
    return float(best.mean())


if __name__ == "__main__":
    main()
