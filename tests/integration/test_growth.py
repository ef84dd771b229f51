"""A cube that grows: every reader sees the old cube or the new one between any two writes, and the format stays as it is."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from growing import Look, grow, joined
from making import BANDS, Made, Scene, build, make_patches

from cube.convert.deciding import make_plan
from cube.convert.plan import Plan
from cube.convert.writer import write_cube
from cube.errors import TargetError
from cube.format.arrays import chunk_key
from cube.format.root import read_root
from cube.format.target import target_of
from cube.format.tiles import read_index
from cube.jobs.clean import find_leftovers, remove_leftovers
from cube.recipes.recipe import Recipe, read_recipe
from cube.verify.verification import verify_cube

SEED = 85
FALL = Scene("fall", 7, rows=3, columns=4, gaps=((0, 1), (2, 2)))
SPRING = (Scene("spring", 3, rows=2, columns=3), Scene("spring", 15, rows=1, columns=3, epsg=32737))
LATE = Scene("fall", 7, rows=3, columns=4, gaps=tuple((r, c) for r in range(3) for c in range(4) if (r, c) not in FALL.gaps))
"""The patches that ``FALL`` lacks."""
MISSING = (("ROIs1970_fall_7_p35", "lc"), ("ROIs1158_spring_3_p32", "s2"))


@dataclass(frozen=True)
class Growth:
    """One way to grow."""

    shard: int
    labels: int
    """Chunk length of coordinates."""
    more: tuple[tuple[Scene, ...], ...]
    """Scenes of each source that comes after ``FALL``."""
    missing: tuple[tuple[str, str], ...] = ()


WAYS = {
    "a cut-short shard and new ones": Growth(4, 4, (SPRING,)),
    "within one shard, sharing its tiles": Growth(64, 64, ((LATE,),)),
    "new shards only": Growth(5, 16, (SPRING,)),
    "twice, with files missing": Growth(4, 8, (SPRING, (LATE,)), MISSING),
}


@dataclass
class Case:
    """A cube of fall, the sources that it is to grow by, and a folder with all files together."""

    recipe: Recipe
    recipe_path: Path
    target: Path
    together: Path
    parts: list[Made]
    plans: list[Plan]
    """How it was built, and how it grew."""

    def grow(self, part: int, look: Look = lambda key: None, **how: Any) -> Plan:
        plan = grow(self.recipe, str(self.parts[part].folder), target_of(str(self.target)), look=look, **how)
        self.plans.append(plan)
        return plan


def make_case(folder: Path, way: Growth) -> Case:
    parts = [make_patches(folder / str(i), scenes, missing=way.missing) for i, scenes in enumerate([(FALL,), *way.more])]
    make_patches(folder / "together", [scene for part in [(FALL,), *way.more] for scene in part], missing=way.missing)
    path = folder / "tiny.yaml"
    layout = f"layout: {{tile: 16, shard: {way.shard}, labels: {way.labels}, header_bytes: 1024, path_bytes: 64}}"
    path.write_text(
        f"extends: sen12ms\nname: tiny\npatch: {{size: 32}}\nsource: {{incomplete: keep}}\n{layout}\n", encoding="utf-8"
    )
    built = build(path, parts[0].folder, folder / "grown.zarr")
    return Case(read_recipe(str(path)), path, folder / "grown.zarr", folder / "together", parts, [built.plan])


SHORT = ("within one shard, sharing its tiles",)
"""The way that is tried in each run; the others are for the judges."""


@pytest.fixture(
    params=[way if way in SHORT else pytest.param(way, marks=pytest.mark.judges) for way in WAYS],
)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return make_case(tmp_path, WAYS[request.param])


def objects(target: Path) -> dict[str, str]:
    files = sorted(path for path in target.rglob("*") if not path.is_dir())
    return {str(path.relative_to(target)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def truth(parts: Iterable[Made]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part.array(name) for part in parts]) for name in BANDS}


def built_in_that_order(case: Case) -> Path:
    """Write the cube of all patches in the order in which it grew, at once."""
    whole = joined([plan.inventory for plan in case.plans])
    target = case.target.with_name(f"at once {len(whole)}.zarr")
    first = case.plans[0]
    inventory = replace(whole, source=str(case.together))
    plan = make_plan(first.recipe, inventory, incomplete="keep", software=first.software)
    write_cube(plan, target_of(str(target)), None)
    return target


def assert_same_cube(grown: Path, at_once: Path) -> None:
    """All objects are the same to the byte; the roots differ in what they tell of plan and versions alone."""
    here, there = objects(grown), objects(at_once)
    assert {key for key in here.keys() | there.keys() if here.get(key) != there.get(key)} == {"zarr.json"}
    roots = [json.loads((path / "zarr.json").read_bytes()) for path in (grown, at_once)]
    facts = [root["attributes"]["cube"] for root in roots]
    assert facts[0].pop("versions")
    for of in facts:
        of.pop("plan")
        of["certificate"].pop("root")
    assert roots[0] == roots[1]


@dataclass
class Readers:
    """Readers that look at a growing cube between any two writes."""

    target: Path
    old: dict[str, np.ndarray]
    new: dict[str, np.ndarray]
    ids: list[str]
    """Of the new cube."""
    keys: list[str] = field(default_factory=list)
    """What has been written."""

    def __post_init__(self) -> None:
        self.rng = random.Random(SEED)
        self.before = xr.open_dataset(self.target, engine="zarr", chunks=None, cache=False, consolidated=True)
        self.arrays = dict(zarr.open_group(str(self.target), mode="r").arrays())
        self.labels = {name: self.before[name].values for name in self.before.coords if "patch" in self.before[name].dims}

    @property
    def count(self) -> int:
        """Patches of the old cube."""
        return len(self.old["s1"])

    def look(self, key: str) -> None:
        """Look at what the write has touched, and at something else."""
        self.keys.append(key)
        images, labels = self._some(key, set(BANDS)), self._some(key, set(self.labels))
        self.opened_before(images, labels)
        self.opening_now(images, labels)
        self.array_by_array(images, labels)

    def _some(self, key: str, names: set[str]) -> set[str]:
        touched = names if key == "zarr.json" else names & {key.partition("/")[0]}
        return touched | {self.rng.choice(sorted(names))}

    def opened_before(self, images: set[str], labels: set[str]) -> None:
        """A reader that holds the old metadata keeps reading the old cube."""
        for name in images:
            np.testing.assert_array_equal(self.before[name].values, self.old[name], f"{name} after {self.keys[-1]}")
            np.testing.assert_array_equal(self.arrays[name][-3:], self.old[name][-3:], f"{name} after {self.keys[-1]}")
        for name in labels:
            np.testing.assert_array_equal(self.before[name].values, self.labels[name], f"{name} after {self.keys[-1]}")

    def opening_now(self, images: set[str], labels: set[str]) -> None:
        """A reader that opens the cube now sees all of the old one, or all of the new one once its root is there."""
        cube = xr.open_zarr(self.target, chunks=None)
        pixels = self.new if self.keys[-1] == "zarr.json" else self.old
        count = len(pixels["s1"])
        assert cube["patch"].values.tolist() == self.ids[:count], self.keys[-1]
        assert {len(cube[name]) for name in (*BANDS, *self.labels)} == {count}
        for name in images:
            np.testing.assert_array_equal(cube[name].values, pixels[name], f"{name} after {self.keys[-1]}")
        for name in labels:
            seen = cube[name].values
            assert len(seen) == count
            np.testing.assert_array_equal(seen[: self.count], self.labels[name], f"{name} after {self.keys[-1]}")

    def array_by_array(self, images: set[str], labels: set[str]) -> None:
        """A reader that ignores consolidated metadata sees each array old or new, and never a wrong pixel."""
        group = zarr.open_group(str(self.target), mode="r", use_consolidated=False)
        for name in images:
            pixels = group[name][:]
            assert len(pixels) in (self.count, len(self.ids))
            np.testing.assert_array_equal(pixels, self.new[name][: len(pixels)], f"{name} after {self.keys[-1]}")
        for name in labels:
            seen = group[name][:]
            assert len(seen) in (self.count, len(self.ids))
            np.testing.assert_array_equal(seen[: self.count], self.labels[name], f"{name} after {self.keys[-1]}")


def stage(key: str) -> int:
    """Return when a key may be written: shards and headers, coordinate chunks, metadata, the root."""
    if key == "zarr.json":
        return 3
    return 2 if key.endswith("/zarr.json") else 0 if key.startswith((*(f"{n}/c/" for n in BANDS), "originals/header/")) else 1


def test_every_reader_sees_the_old_cube_or_the_new_one_at_every_write(case: Case) -> None:
    for part in range(1, len(case.parts)):
        old, new = case.parts[:part], case.parts[: part + 1]
        ids = [name for made in new for name in made.ids]
        readers = Readers(case.target, truth(old), truth(new), ids)
        case.grow(part, readers.look)
        stages = [stage(key) for key in readers.keys]
        assert stages == sorted(stages)
        assert readers.keys[-1] == "zarr.json"
        assert len(readers.keys) == len(set(readers.keys))
        shards = [int(key.split("/")[2]) for key in readers.keys if key.startswith("s1/c/")]
        cut_short, kept = divmod(readers.count, case.recipe.layout.shard)
        assert shards == [*sorted(index for index in shards if index != cut_short or not kept), *([cut_short] if kept else [])]


def test_a_grown_cube_is_what_it_would_be_had_it_been_built_in_that_order(case: Case) -> None:
    for part in range(1, len(case.parts)):
        case.grow(part)
        assert_same_cube(case.target, built_in_that_order(case))
    report = verify_cube(target_of(str(case.target)), source=str(case.together))
    assert report.findings == []
    names = {check.name for check in report.checks}
    assert {"pixels", "sharing", "originals", "source", "certificate"} <= names


def test_old_slots_keep_their_bytes(case: Case) -> None:
    for part in range(1, len(case.parts)):
        count = sum(len(made.ids) for made in case.parts[:part])
        before = {key: (case.target / key).read_bytes() for key in objects(case.target)}
        plan = case.grow(part)
        index, kept = divmod(count, case.recipe.layout.shard)
        untouched = {key for key in before if stage(key) == 0 and int(key.split("/c/")[1].split("/")[0]) < index}
        assert all((case.target / key).read_bytes() == before[key] for key in untouched)
        for name, layout in plan.job.layouts.items() if kept else ():
            key = chunk_key(name, (index, 0, 0, 0))
            old, new = before[key], (case.target / key).read_bytes()
            assert new.startswith(old[: -layout.index_bytes])
            tables = [read_index(layout, shard[-layout.index_bytes :], len(shard)) for shard in (old, new)]
            np.testing.assert_array_equal(tables[1][:kept], tables[0][:kept])


def test_grown_and_built_at_once_agree_patch_by_patch(case: Case) -> None:
    for part in range(1, len(case.parts)):
        case.grow(part)
    once = case.target.with_name("once.zarr")
    build(case.recipe_path, case.together, once)
    grown, built = (xr.open_zarr(path, chunks=None) for path in (case.target, once))
    assert sorted(grown["patch"].values) == sorted(built["patch"].values)
    if any(scene.season == "spring" for scenes in case.parts for scene in scenes.scenes.values()):
        assert grown["patch"].values.tolist() != built["patch"].values.tolist()
        assert grown["season"].values[0] == "fall"
        assert built["season"].values[0] == "spring"
    again = built.sel(patch=grown["patch"].values)
    for name in [*BANDS, *grown.coords]:
        np.testing.assert_array_equal(grown[name].values, again[name].values, name)
    certificates = [read_root(target_of(str(path)))[1]["attributes"]["cube"]["certificate"] for path in (case.target, once)]
    assert certificates[0]["pixels"] == certificates[1]["pixels"]
    assert (certificates[0]["arrays"] == certificates[1]["arrays"]) is bool(
        (grown["patch"].values == built["patch"].values).all()
    )


def test_new_tiles_share_old_ones(tmp_path: Path) -> None:
    case = make_case(tmp_path, WAYS["within one shard, sharing its tiles"])
    before = (case.target / "s2/c/0/0/0/0").stat().st_size
    plan = case.grow(1)
    layout = plan.job.layouts["s2"]
    data = (case.target / "s2/c/0/0/0/0").read_bytes()
    index = read_index(layout, data[-layout.index_bytes :], len(data))
    new = index[len(case.parts[0].ids) :][: plan.patches].reshape(-1, 2)
    assert len(new) == 8
    assert (new[:, 0] < before - layout.index_bytes).sum() == 8, "every tile of the late patches is in their neighbours"
    assert len(data) == before


class Killed(Exception):
    pass


def test_a_growth_that_was_killed_begins_again(tmp_path: Path) -> None:
    case = make_case(tmp_path, WAYS["a cut-short shard and new ones"])
    rng = random.Random(SEED)
    old, ids = truth(case.parts[:1]), case.parts[0].ids

    def die(key: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    for _ in range(12):
        left = rng.randrange(1, 45)
        with pytest.raises(Killed):
            case.grow(1, die)
        cube = xr.open_zarr(case.target, chunks=None)
        assert cube["patch"].values.tolist() == ids
        for name, pixels in old.items():
            np.testing.assert_array_equal(cube[name].values, pixels)
    case.grow(1)
    assert_same_cube(case.target, built_in_that_order(case))
    assert verify_cube(target_of(str(case.target))).passed


def test_a_growth_given_up_leaves_nothing_in_another_one(tmp_path: Path) -> None:
    case = make_case(tmp_path, Growth(4, 4, (SPRING, (LATE,))))

    def die(key: str) -> None:
        if key == "s2/zarr.json":
            raise Killed

    with pytest.raises(Killed):
        case.grow(1, die)
    with pytest.raises(TargetError, match="unfinished growth by other files"):
        case.grow(2)
    case.grow(2, throw_away=True)
    assert_same_cube(case.target, built_in_that_order(case))
    assert verify_cube(target_of(str(case.target))).passed


@pytest.mark.parametrize(
    "way",
    ["a cut-short shard and new ones", *(pytest.param(way, marks=pytest.mark.judges) for way in (*SHORT, "new shards only"))],
)
def test_a_growth_is_undone_wherever_it_was_killed(tmp_path: Path, way: str) -> None:
    case = make_case(tmp_path, WAYS[way])
    before, rng = objects(case.target), random.Random(SEED)
    count: list[str] = []
    copy = case.target.with_name("copy.zarr")
    for place in (case.target, case.target.with_name("grown.build")):
        shutil.copytree(place, copy.with_suffix(place.suffix))
    grow(case.recipe, str(case.parts[1].folder), target_of(str(copy)), look=count.append)

    def die(key: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    for at in [1, len(count) - 1, *rng.sample(range(1, len(count)), 4)]:
        left = at
        with pytest.raises(Killed):
            case.grow(1, die)
        assert verify_cube(target_of(str(case.target))).findings == []
        (left_over,) = find_leftovers(str(case.target))
        assert left_over.kind == "growth"
        remove_leftovers(target_of(str(case.target)))
        assert objects(case.target) == before
        assert find_leftovers(str(case.target)) == []
    assert case.target.with_name("grown.build").joinpath("plan.json").exists()
    build(case.recipe_path, case.parts[0].folder, case.target)
    assert objects(case.target) == before
