"""Batches partition the patches exactly once, whatever the files, the shard length and the policy."""

from __future__ import annotations

from functools import cache
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.convert.deciding import make_plan
from cube.errors import IncompleteError
from cube.recipes.recipe import Recipe, read_recipe
from cube.source.pairing import pair
from cube.store.protocol import Entry

BASE = read_recipe("sen12ms")
SEASONS = [season.token for season in BASE.seasons.values()]
KINDS = tuple(BASE.modalities)

files = st.tuples(
    st.sampled_from(SEASONS),
    st.sampled_from(KINDS),
    st.integers(1, 4),
    st.integers(0, 12),
    st.sampled_from([-1, 0, 7, 7, 7, 7, 9]),
)


@cache
def recipe_of(shard: int) -> Recipe:
    return BASE.model_copy(update={"layout": BASE.layout.model_copy(update={"shard": shard})})


@settings(max_examples=150, deadline=None)
@given(
    listed=st.lists(files, min_size=1, max_size=120),
    shard=st.integers(1, 20),
    policy=st.sampled_from(["fail", "reject", "keep"]),
    order=st.randoms(use_true_random=False),
)
def test_every_patch_is_in_one_batch_and_every_file_is_used_or_named(
    listed: list[tuple[str, str, int, int, int]], shard: int, policy: Literal["fail", "reject", "keep"], order: object
) -> None:
    recipe = recipe_of(shard)
    names = {f"ROIs{season}_{kind}_{scene}_p{patch}.tif": size for season, kind, scene, patch, size in listed}
    entries = [Entry(name, size) for name, size in names.items()]
    inventory = pair(recipe, "s", entries)
    try:
        plan = make_plan(recipe, inventory, incomplete=policy, software={})
    except IncompleteError:
        assert policy == "fail" or not (inventory.size >= 0).all(axis=1).any()
        return
    batches = [plan.batch(index) for index in range(plan.tasks)]
    assert [name for batch in batches for name in batch.patch] == plan.inventory.patch.tolist()
    assert [batch.index for batch in batches] == list(range(plan.tasks))
    assert [batch.start for batch in batches] == [shard * index for index in range(plan.tasks)]
    assert all(0 < len(batch.patch) == batch.stop - batch.start <= shard for batch in batches)
    assert len({batch.digest for batch in batches}) == plan.tasks
    used = [path for batch in batches for row in batch.path for path in row if path]
    assert len(used) == len(set(used))
    named = {item.path for item in plan.inventory.rejected}
    for name, size in names.items():
        patch = "_".join(part for part in name.removesuffix(".tif").split("_") if part not in KINDS)
        assert (name in used) + (name in named) + (patch in named and size > 0) >= 1
        assert not (name in used and name in named)
    keys = [key for spec in plan.arrays for key in spec.object_keys()]
    assert len(keys) == len(set(keys))
    order.shuffle(entries)  # type: ignore[attr-defined]
    again = make_plan(recipe, pair(recipe, "s", entries), incomplete=policy, software={})
    assert again.digest == plan.digest


@pytest.mark.parametrize(("shard", "lengths"), [(5, [5, 5, 2]), (12, [12]), (13, [12]), (1, [1] * 12)])
def test_the_last_batch_is_cut_short(shard: int, lengths: list[int]) -> None:
    entries = [Entry(f"ROIs{SEASONS[0]}_{kind}_1_p{patch}.tif", 9) for kind in KINDS for patch in range(12)]
    plan = make_plan(recipe_of(shard), pair(BASE, "s", entries), incomplete="fail", software={})
    assert [len(plan.batch(index).patch) for index in range(plan.tasks)] == lengths
