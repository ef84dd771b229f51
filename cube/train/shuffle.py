"""In what order an epoch visits the patches. Pure: equal arguments give equal orders, on every machine and in every process.

Neighbours share tiles, so they should be read together; a training batch should hold patches from all over. Both are had
by cutting the patches into *blocks* of neighbours, shuffling the blocks, dealing them to a number of *lanes*, and drawing
every next patch from a random lane. A batch mixes all lanes, and a tile is wanted again soon after it was first read.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.train.states import require_whole

Array = NDArray[Any]
Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shuffle:
    """How patches are mixed. More lanes mix better and hold more tiles; larger blocks decode less and mix worse."""

    block: int = 256
    """Most neighbouring patches that are read one after the other; 1 is a shuffle over everything."""
    lanes: int = 32
    """Blocks that are open at a time."""
    spread: int = 16
    """How far a patch may move from its place within its block."""

    def __post_init__(self) -> None:
        for name in ("block", "lanes", "spread"):
            require_whole(name, getattr(self, name), 1)


def stream_bounds(length: int, streams: int) -> Positions:
    """Return where each of some streams begins and, last, where they end: lengths differ by at most one."""
    return np.arange(streams + 1, dtype=np.int64) * length // streams


def shuffled(runs: Array, shuffle: Shuffle, seeds: tuple[int, int], stream: tuple[int, int] = (0, 1)) -> Positions:
    """Return the patches of one stream of an epoch in order; all streams of an epoch together hold every patch once.

    ``runs`` (patch) numbers what may be read together, such as the shard each patch lies in; equal numbers stand side by
    side. ``seeds`` are the seed and the epoch; ``stream`` is a number and how many there are.
    """
    rng = np.random.Generator(np.random.Philox(key=list(seeds)))
    starts = _block_starts(runs, shuffle.block, int(rng.integers(shuffle.block)))
    stops = np.append(starts, len(runs))[1:]
    moved = np.arange(len(runs)) + rng.uniform(0, shuffle.spread, len(runs))
    visit = rng.permutation(len(starts))
    rows = _joined(starts[at] + np.argsort(moved[starts[at] : stops[at]]) for at in visit)
    blocks = np.repeat(np.arange(len(visit)), (stops - starts)[visit])
    low, high = stream_bounds(len(runs), stream[1])[stream[0] : stream[0] + 2]
    own = np.random.Generator(np.random.Philox(key=list(seeds)).jumped(1 + stream[0]))
    return _dealt(rows[low:high], blocks[low:high], shuffle.lanes, own)


def in_order(length: int, stream: tuple[int, int] = (0, 1)) -> Positions:
    """Return the patches of one stream as they are stored."""
    return np.arange(*stream_bounds(length, stream[1])[stream[0] : stream[0] + 2])


def same_share(groups: Array, batch: int) -> float:
    """Return the share of the pairs within batches that are of one group, such as one scene; ``groups`` comes in order."""
    same = pairs = 0
    for start in range(0, len(groups), batch):
        _, counts = np.unique(groups[start : start + batch], return_counts=True)
        same += int((counts * (counts - 1)).sum())
        pairs += int(counts.sum() * (counts.sum() - 1))
    return same / pairs if pairs else 0.0


def _joined(parts: Any) -> Positions:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _block_starts(runs: Array, block: int, phase: int) -> Positions:
    """Return where blocks begin: with every new run, and after so many patches; ``phase`` shifts the cuts."""
    begins = np.append(np.flatnonzero(np.diff(runs, prepend=runs[:1] - 1)), len(runs))
    cuts = (np.r_[begin, begin + phase + 1 : stop : block] for begin, stop in pairwise(begins.tolist()))
    return _joined(cuts)


def _dealt(rows: Positions, blocks: Positions, lanes: int, rng: np.random.Generator) -> Positions:
    """Deal a sequence of blocks to lanes and draw from them at random.

    Each lane begins elsewhere in its first block, so that they do not all come to a block's end at once.
    """
    lanes = max(1, min(lanes, len(rows)))
    bounds = stream_bounds(len(rows), lanes)
    dealt = []
    for lane, (low, high) in enumerate(pairwise(bounds.tolist())):
        first = int(np.searchsorted(blocks[low:high] != blocks[low], True)) if low < high else 0
        dealt.append(np.roll(rows[low:high], -(first * lane // lanes)))
    order = np.empty(len(rows), np.int64)
    draws = rng.permutation(np.repeat(np.arange(lanes), np.diff(bounds)))
    order[np.argsort(draws, kind="stable")] = _joined(dealt)
    return order
