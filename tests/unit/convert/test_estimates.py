"""Estimates: exact when every patch was sampled, near when some were, said to be typical when none was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from making import MODALITIES, Built, Scene, build, make_patches, write_recipe

from cube.convert.estimates import Estimate, Sample, Share, estimate, measure, sample_tasks
from cube.convert.plan import READ_AHEAD, Plan
from cube.format.tiles import TileLayout
from cube.store.objects import SPOOL_LIMIT
from cube.store.urls import open_store
from cube.work.clusters import run


def samples(plan: Plan, patches: int) -> list[Sample]:
    return list(run(None, measure, sample_tasks(plan, patches)))


def predict(plan: Plan, patches: int, workers: int = 1) -> Estimate:
    return estimate(plan, samples(plan, patches), workers=workers, local=True)


def stored(built: Built, name: str) -> int:
    return sum(
        size for receipt in built.written.receipts for key, size in receipt["objects"].items() if key.startswith(f"{name}/")
    )


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """One scene, eight batches."""
    folder = tmp_path_factory.mktemp("wide")
    made = make_patches(folder / "files", [Scene("fall", 3, rows=8, columns=15, first=0)])
    return build(write_recipe(folder / "tiny.yaml", shard=15), made.folder, folder / "wide.zarr")


@pytest.mark.parametrize("patches", [25, 26, 10_000])
def test_exact_when_the_sample_is_everything(tiny_cube: Built, patches: int) -> None:
    expected = predict(tiny_cube.plan, patches)
    assert expected.sampled == 25
    tiles = tiny_cube.written.tiles()
    for name in MODALITIES:
        assert expected.stored[name] == stored(tiny_cube, name)
        assert expected.sharing[name] == pytest.approx(tiles[name][0] / tiles[name][1])
    assert expected.stored_bytes == tiny_cube.written.shard_bytes
    assert (expected.objects, expected.tasks, expected.rejected) == (tiny_cube.plan.objects, 2, 0)


def test_near_when_it_is_a_part(wide: Built) -> None:
    expected = predict(wide.plan, 60)
    assert 2 <= expected.sampled <= 60
    for name in MODALITIES:
        assert expected.stored[name] == pytest.approx(stored(wide, name), rel=0.35)
    assert expected.sharing["s2"] > 1.3


def test_runs_are_spread_over_the_batches(wide: Built) -> None:
    plan = wide.plan
    assert [arguments[1].index for _, arguments in sample_tasks(plan, 119)] == [0]
    assert [arguments[1].index for _, arguments in sample_tasks(plan, 120)] == list(range(8))
    keys = [key for patches in (5, 50, 120) for key, _ in sample_tasks(plan, patches)]
    assert len(set(keys)) == len(keys)


def test_a_sample_says_what_it_read(tiny_cube: Built) -> None:
    plan = tiny_cube.plan
    sample = measure(plan.job, plan.batch(0).head(6), open_store(plan.inventory.source))
    assert (sample.patches, sample.rejected) == (6, 0)
    for name, share in sample.shares.items():
        assert share.patches == 6
        assert share.tiles == 24
        assert share.distinct_half <= share.distinct < share.tiles, name
        assert share.stored > 0
    assert sample.write_seconds > 0
    assert sample.verify_seconds > 0
    assert sample.idle_bytes > 10**7


def test_typical_ratios_without_a_sample(tiny_cube: Built) -> None:
    expected = estimate(tiny_cube.plan, [], workers=2, local=True)
    assert expected.stored == tiny_cube.plan.typical_bytes()
    assert expected.sampled == 0
    assert set(expected.sharing.values()) == {1.0}
    assert expected.seconds is None
    assert json.loads(json.dumps(expected.document(), allow_nan=False))["seconds"] is None
    assert expected.peak_bytes == tiny_cube.plan.peak_bytes(spool=0)


def test_an_object_store_costs_memory_for_unfinished_objects_and_files_asked_for_ahead(tiny_cube: Built) -> None:
    plan = tiny_cube.plan
    here, there = (estimate(plan, [], workers=2, local=local) for local in (True, False))
    assert here.spooled_bytes == there.spooled_bytes == there.peak_bytes == plan.peak_bytes(spool=SPOOL_LIMIT)
    files = sum(layout.patch_bytes + plan.job.header_bytes for layout in plan.job.layouts.values())
    assert there.peak_bytes - here.peak_bytes == (READ_AHEAD - 1) * files + 3 * SPOOL_LIMIT


def test_memory_measured_outside_a_worker_is_not_that_of_a_worker(tiny_cube: Built) -> None:
    read = samples(tiny_cube.plan, 10)
    expected = estimate(tiny_cube.plan, read, workers=1, local=True, measured_base=False)
    assert expected.peak_bytes == tiny_cube.plan.peak_bytes(spool=0)
    assert estimate(tiny_cube.plan, read, workers=1, local=True).peak_bytes == tiny_cube.plan.peak_bytes(
        spool=0, base=max(sample.idle_bytes for sample in read)
    )


def test_more_workers_take_less_time_up_to_the_number_of_tasks(wide: Built) -> None:
    read = samples(wide.plan, 30)
    seconds = {workers: estimate(wide.plan, read, workers=workers, local=True).seconds for workers in (0, 1, 2, 8, 99)}
    assert seconds[0] == seconds[1] > seconds[2] > seconds[8] == seconds[99]


def test_gaps_are_counted_and_do_not_disturb(tmp_path: Path) -> None:
    scene = Scene("fall", 3, rows=3, columns=4)
    made = make_patches(tmp_path / "files", [scene], missing=[(scene.id(31), "s2"), (scene.id(36), "s1")])
    built = build(write_recipe(tmp_path / "tiny.yaml", shard=5), made.folder, tmp_path / "a.zarr", incomplete="keep")
    expected = predict(built.plan, 12)
    for name in MODALITIES:
        assert expected.stored[name] == stored(built, name)


def test_a_modality_no_sample_had_is_estimated_by_its_typical_ratio(tiny_cube: Built) -> None:
    plan = tiny_cube.plan
    none = Share(patches=0, tiles=0, distinct=0, distinct_half=0, stored=0)
    some = Share(patches=5, tiles=20, distinct=10, distinct_half=5, stored=1000)
    shares = {"s1": none, "s2": some, "lc": some}
    sample = Sample(
        patches=5, shares=shares, write_seconds=1.0, verify_seconds=1.0, idle_bytes=10**8, rejected=0, statements={}
    )
    expected = estimate(plan, [sample], workers=1, local=True)
    layout: TileLayout = plan.job.layouts["s1"]
    assert expected.stored["s1"] == pytest.approx(layout.patch_bytes * 25 / 4.4, abs=1)
    assert expected.stored["s2"] != expected.stored["s1"]
    assert expected.peak_bytes == plan.peak_bytes(spool=0, base=10**8)
