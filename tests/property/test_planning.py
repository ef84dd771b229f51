"""Plans of epochs: every tile is where a batch looks for it, and nothing is overwritten that is still copied."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cube.format.tiles import ABSENT
from cube.read.ranges import Tile
from cube.train.planning import AHEAD, NEVER, TilePlan, next_uses

PLACES, SHARD = 4, 8
UNLIMITED = 1 << 40


@st.composite
def orders(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.uint64], int]:
    """Return rows in some order, entries (patch, place, [offset, length]) of shared and absent tiles, and a batch size."""
    patches = draw(st.integers(1, 60))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    offsets = rng.integers(0, draw(st.integers(1, 40)), (patches, PLACES)).astype(np.uint64) * np.uint64(10)
    offsets[rng.random((patches, PLACES)) < draw(st.sampled_from([0.0, 0.2, 1.0]))] = ABSENT
    entries = np.stack([offsets, np.full_like(offsets, 7)], axis=-1)
    rows = rng.permutation(patches) if draw(st.booleans()) else rng.integers(0, patches, patches)
    return rows, entries, draw(st.integers(1, 9))


def made_plan(rows: NDArray[np.int64], entries: NDArray[np.uint64], batch: int, limit: int, wanted: Any = None) -> TilePlan:
    plan = TilePlan(rows, batch, shard=SHARD, places=PLACES, entries=lambda some: entries[some], wanted=wanted)
    plan.slots.limit = limit
    return plan


def content(rows: NDArray[np.int64], entries: NDArray[np.uint64]) -> NDArray[Any]:
    """Return (patch, place): the tile that belongs there, or None."""
    found = np.full((len(rows), PLACES), None, object)
    for at, row in enumerate(rows.tolist()):
        for place, (offset, length) in enumerate(entries[row].tolist()):
            found[at, place] = None if offset == ABSENT else Tile(row // SHARD, offset, length)
    return found


@settings(max_examples=200, deadline=None)
@given(given_order=orders(), limit=st.sampled_from([0, 1, 5, 20, UNLIMITED]))
def test_every_tile_is_where_it_is_looked_for(
    given_order: tuple[NDArray[np.int64], NDArray[np.uint64], int], limit: int
) -> None:
    rows, entries, batch = given_order
    plan, right = made_plan(rows, entries, batch, limit), content(rows, entries)
    holds: dict[int, Tile | None] = {0: None}
    before: list[set[int]] = []
    decoded: list[Tile] = []
    again = 0
    for number in range(len(plan)):
        step = plan.step(number)
        assert step.tiles == sorted(step.tiles)
        new = step.slots.tolist()
        assert len(set(new)) == len(new)
        assert not set(new) & {0, *(slot for slots in before[max(0, number - AHEAD) :] for slot in slots)}
        again += step.again
        holds |= dict(zip(new, step.tiles, strict=True))
        decoded += step.tiles
        part = right[number * batch : (number + 1) * batch]
        assert [[holds[slot] for slot in slots] for slots in step.gathered.tolist()] == part.tolist()
        before.append({slot for slot in step.gathered.ravel().tolist() if slot})
    tiles = {tile for tile in right.ravel() if tile is not None}
    assert set(decoded) == tiles
    assert plan.distinct == len(tiles)
    assert again == len(decoded) - len(tiles)
    assert max(holds) < 1 + max(limit, (1 + AHEAD) * batch * PLACES)
    needed = plan.needed(len(plan) - 1)
    if limit >= needed:
        assert again == 0
        assert max(holds) < needed


@settings(max_examples=100, deadline=None)
@given(given_order=orders(), limit=st.integers(1, 60))
def test_no_fewer_are_dropped_by_dropping_what_was_used_longest_ago(
    given_order: tuple[NDArray[np.int64], NDArray[np.uint64], int], limit: int
) -> None:
    rows, entries, batch = given_order
    plan, right = made_plan(rows, entries, batch, limit), content(rows, entries)
    ours = sum(len(plan.step(number).tiles) for number in range(len(plan)))
    kept: OrderedDict[Tile, int] = OrderedDict()
    theirs = 0
    for number in range(len(plan)):
        for tile in {tile for tile in right[number * batch : (number + 1) * batch].ravel() if tile is not None}:
            theirs += tile not in kept
            kept[tile] = number
            kept.move_to_end(tile)
        for tile in [tile for tile, last in kept.items() if last < number - AHEAD + 1][: max(0, len(kept) - limit + 1)]:
            del kept[tile]
    assert ours <= theirs


@settings(max_examples=100, deadline=None)
@given(given_order=orders(), seed=st.integers(0, 100))
def test_tiles_that_nobody_looks_at_are_left_out(
    given_order: tuple[NDArray[np.int64], NDArray[np.uint64], int], seed: int
) -> None:
    rows, entries, batch = given_order
    mask = np.random.default_rng(seed).random((len(rows), PLACES)) < 0.5
    plan, right = made_plan(rows, entries, batch, UNLIMITED, lambda at: mask[at]), content(rows, entries)
    steps = [plan.step(number) for number in range(len(plan))]
    looked_at = {tile for tile in right[mask] if tile is not None}
    assert {tile for step in steps for tile in step.tiles} == looked_at
    gathered = np.concatenate([step.gathered for step in steps])
    assert not gathered[~mask].any()


def test_the_next_batch_that_wants_a_tile() -> None:
    number = np.array([5, 6, 5, 5, 6, 7])
    batch = np.array([0, 0, 0, 2, 3, 3])
    following, begins = next_uses(number, batch)
    assert following.tolist() == [2, 3, 2, NEVER, NEVER, NEVER]
    assert begins.tolist() == [True, True, False, False, False, True]
