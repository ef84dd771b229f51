"""Plans: equal inputs give equal plans, batches cover the patches, limits are kept."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import MODALITIES, Scene, source_path, write_recipe

from cube.convert.deciding import make_plan
from cube.convert.plan import READ_AHEAD, Plan
from cube.errors import IncompleteError, RequestError
from cube.recipes.recipe import Recipe, read_recipe, with_profile
from cube.source.pairing import pair
from cube.store.protocol import Entry

SOFTWARE = {"numcodecs": "1.0"}
SCENES = (Scene("spring", 1, rows=3, columns=4), Scene("summer", 1, rows=2, columns=4), Scene("winter", 2, rows=1, columns=3))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return read_recipe(str(write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml", shard=5)))


def entries(*lost: int) -> list[Entry]:
    places = [(scene, number, name) for scene in SCENES for number, _, _ in scene.places() for name in MODALITIES]
    return [Entry(source_path(*place), 1000) for row, place in enumerate(places) if row not in lost]


def planned(recipe: Recipe, listed: list[Entry] | None = None, **options: Any) -> Plan:
    given: dict[str, Any] = {"incomplete": "reject", "software": SOFTWARE, **options}
    return make_plan(recipe, pair(recipe, "somewhere", entries() if listed is None else listed), **given)


def test_batches_are_whole_shards_of_consecutive_patches(recipe: Recipe) -> None:
    plan = planned(recipe)
    batches = [plan.batch(index) for index in range(plan.tasks)]
    assert [(batch.start, batch.stop) for batch in batches] == [(0, 5), (5, 10), (10, 15), (15, 20), (20, 23)]
    assert [name for batch in batches for name in batch.patch] == plan.inventory.patch.tolist()
    assert [row for batch in batches for row in batch.path] == [tuple(row) for row in plan.inventory.path]
    assert len({batch.digest for batch in batches}) == 5
    head = batches[4].head(2)
    assert (head.start, head.stop, head.patch, head.path) == (20, 22, batches[4].patch[:2], batches[4].path[:2])
    assert batches[4].head(99) == batches[4]


def test_no_object_belongs_to_two_batches(recipe: Recipe) -> None:
    plan = planned(recipe)
    keys = [key for spec in plan.arrays for key in spec.object_keys()]
    assert len(keys) == len(set(keys))
    for name in MODALITIES:
        shards = [key for key in keys if key.startswith(f"{name}/c/")]
        assert shards == [f"{name}/c/{index}/0/0/0" for index in range(plan.tasks)]
    assert plan.shards == 15
    groups = 2
    assert plan.objects == len(keys) + len(plan.arrays) + groups


def test_figures(recipe: Recipe) -> None:
    plan = planned(recipe, entries(0), incomplete="keep")
    pixels = 32 * 32
    assert (plan.patches, plan.tasks) == (23, 5)
    assert plan.raw_bytes == pixels * (22 * 2 * 4 + 23 * 13 * 2 + 23 * 4)
    typical = pixels * (22 * 2 * 4 / 4.4 + 23 * 13 * 2 / 6.6 + 23 * 4 / 200)
    assert sum(plan.typical_bytes().values()) == pytest.approx(typical, abs=1)
    ahead = (READ_AHEAD - 1) * sum(layout.patch_bytes + plan.job.header_bytes for layout in plan.job.layouts.values())
    assert plan.peak_bytes(spool=10**7) - plan.peak_bytes(spool=0) == 3 * 10**7 + ahead
    assert plan.peak_bytes(spool=0, base=1) < plan.peak_bytes(spool=0)
    document = plan.document()
    assert document["bytes_in"] == 68 * 1000
    assert document["batches"] == list(plan.batch_digests)


def test_equal_inputs_in_any_order_give_equal_plans(recipe: Recipe) -> None:
    first = planned(recipe)
    for seed in range(5):
        listed = entries()
        random.Random(seed).shuffle(listed)
        again = planned(recipe, listed)
        assert again.digest == first.digest
        assert again.batch_digests == first.batch_digests
        assert again.document() == first.document()


@pytest.mark.parametrize(
    "change", ["policy", "software", "profile", "size of a file", "path of a file", "lost patch", "tile", "title", "header"]
)
def test_whatever_decides_a_byte_is_in_the_digest(recipe: Recipe, tmp_path: Path, change: str) -> None:
    listed, options = entries(), {}
    if change == "policy":
        options["incomplete"] = "keep"
    elif change == "software":
        options["software"] = {"numcodecs": "1.1"}
    elif change == "profile":
        recipe = with_profile(recipe, "fast")
    elif change == "size of a file":
        listed[40] = Entry(listed[40].key, 1001)
    elif change == "path of a file":
        listed[40] = Entry("deep/" + listed[40].key, 1000)
    elif change == "lost patch":
        listed = entries(66, 67, 68)
    elif change == "tile":
        recipe = read_recipe(str(write_recipe(tmp_path / "a.yaml", shard=5, tile=8)))
    elif change == "title":
        recipe = read_recipe(str(write_recipe(tmp_path / "a.yaml", shard=5, more="title: Other\n")))
    elif change == "header":
        text = write_recipe(tmp_path / "a.yaml", shard=5).read_text().replace("labels: 64", "labels: 64, header_bytes: 4096")
        (tmp_path / "a.yaml").write_text(text)
        recipe = read_recipe(str(tmp_path / "a.yaml"))
    first = planned(read_recipe(str(write_recipe(tmp_path / "tiny.yaml", shard=5))))
    assert planned(recipe, listed, **options).digest != first.digest


def test_a_change_of_one_file_changes_only_its_batch(recipe: Recipe) -> None:
    listed = entries()
    listed[40] = Entry(listed[40].key, 1001)
    pairs = zip(planned(recipe).batch_digests, planned(recipe, listed).batch_digests, strict=True)
    assert [before == after for before, after in pairs] == [True, True, False, True, True]


def test_what_was_written_anew_changes_its_batchs_stamp_and_no_digest(recipe: Recipe) -> None:
    listed = [replace(entry, stamp="then") for entry in entries()]
    before = planned(recipe, listed)
    key = str(before.inventory.path[6, 1])
    after = planned(recipe, [replace(entry, stamp="now") if entry.key == key else entry for entry in listed])
    assert (after.digest, after.batch_digests) == (before.digest, before.batch_digests)
    changed = [index for index in range(before.tasks) if before.stamp(index) != after.stamp(index)]
    assert changed == [6 // recipe.layout.shard]
    assert after.batch(1).stamp == after.stamp(1)


def test_unfinished_objects_in_memory_count_against_the_limit(recipe: Recipe) -> None:
    inventory = pair(recipe, "s", entries())
    with pytest.raises(RequestError, match="a worker would need"):
        make_plan(recipe, inventory, incomplete="reject", software={}, spool=10**9)


def test_the_source_is_in_no_digest(recipe: Recipe) -> None:
    here, there = (
        make_plan(recipe, pair(recipe, url, entries()), incomplete="reject", software=SOFTWARE) for url in ("a", "s3://b")
    )
    assert here.digest == there.digest


def test_incomplete_patches_under_each_policy(recipe: Recipe) -> None:
    listed = entries(1, 6, 8)
    left_out = planned(recipe, listed)
    assert left_out.patches == 21
    assert [(item.path, item.reason, item.detail) for item in left_out.inventory.rejected] == [
        ("ROIs1158_spring_1_p30", "incomplete", "lacks s2"),
        ("ROIs1158_spring_1_p32", "incomplete", "lacks s1, lc"),
    ]
    kept = planned(recipe, listed, incomplete="keep")
    assert kept.patches == 23
    assert not kept.inventory.rejected
    assert (kept.inventory.size[:3] < 0).tolist() == [[False, True, False], [False] * 3, [True, False, True]]
    with pytest.raises(IncompleteError) as caught:
        planned(recipe, listed, incomplete="fail")
    said = (
        "2 of 23 patches are incomplete: ROIs1158_spring_1_p30 lacks s2; ROIs1158_spring_1_p32 lacks s1, lc. Give the missing"
    )
    assert str(caught.value).startswith(said)
    assert planned(recipe, incomplete="fail").patches == 23


def test_many_incomplete_patches_are_counted(recipe: Recipe) -> None:
    with pytest.raises(IncompleteError, match=r"23 of 23 patches are incomplete: .* and 18 more\. "):
        planned(recipe, entries(*range(1, 69, 3)), incomplete="fail")


def test_a_patch_without_any_file_is_never_kept(recipe: Recipe) -> None:
    listed = [*entries(), Entry("ROIs1158_spring_s1_9_p1.tif", 0)]
    assert planned(recipe, listed, incomplete="keep").patches == 23


def test_nothing_left(recipe: Recipe) -> None:
    with pytest.raises(IncompleteError, match=r"no patch of somewhere is left to convert: .*lacks s2"):
        planned(recipe, entries(*range(1, 69, 3)))


def altered(tmp_path: Path, old: str, new: str) -> Recipe:
    path = write_recipe(tmp_path / "altered.yaml", shard=5)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return read_recipe(str(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "size: 32",
            "size: 32, id_length: 20",
            r"'ROIs.*' has \d+ characters, the recipe has room for 20: raise patch.id_length",
        ),
        ("labels: 64", "labels: 64, path_bytes: 40", r"has \d+ bytes, the recipe has room for 40: raise layout.path_bytes"),
        ("shard: 5", "shard: 65536", r"a worker would need [\d,]+ MB, the recipe allows 400 MB: lower layout.shard or raise"),
        ("labels: 64", "labels: 64, memory_limit_mb: 64", r"a worker would need \d+ MB, the recipe allows 64 MB"),
        ("size: 32", 'size: 32, id: "{scene}_p{patch}"', r"the id '1_p3\d' is that of several patches: patch.id needs more"),
    ],
)
def test_limits(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        planned(altered(tmp_path, old, new))


def test_paths_are_measured_in_bytes(tmp_path: Path) -> None:
    recipe = altered(tmp_path, "labels: 64", "labels: 64, path_bytes: 60")
    listed = [Entry("ö" * 8 + "/" + entry.key.rpartition("/")[2], 5) for entry in entries()]
    assert planned(recipe, listed).patches == 23
    listed = [Entry("ö" * 16 + "/" + entry.key.rpartition("/")[2], 5) for entry in entries()]
    with pytest.raises(RequestError, match="the path 'öööööööööööööööö/"):
        planned(recipe, listed)


def test_the_whole_published_data_set_can_be_planned() -> None:
    """As big as SEN12MS: still one small value, and quick."""
    recipe = read_recipe("sen12ms")
    names = [
        f"ROIs1158_spring_{name}_{scene}_p{patch}.tif" for scene in range(60) for patch in range(300) for name in MODALITIES
    ]
    plan = make_plan(recipe, pair(recipe, "s", [Entry(name, 9) for name in names]), incomplete="reject", software=SOFTWARE)
    assert plan.patches == 18_000
    assert plan.tasks == -(-18_000 // 256)
    assert np.array_equal(np.unique(plan.inventory.scene), np.arange(60))
