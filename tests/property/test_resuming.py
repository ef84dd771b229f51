"""Wherever a build is killed, running it again gives the same bytes as one that never was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import Built, Made, Scene, build, make_patches, write_recipe

from cube.convert.plan import Plan
from cube.convert.writer import write_cube
from cube.format.target import Target, target_of
from cube.store.protocol import Store
from cube.verify.verification import verify_cube

SCENE = Scene("winter", 9, rows=2, columns=5)
MISSING = ((SCENE.id(33), "s2"),)


class Killed(BaseException):
    """The end of a process; nothing catches it."""


@dataclass
class Clock:
    """Counts writes and kills at one of them."""

    at: int
    half: bool
    """Whether the bytes are on the way when it ends, or have arrived."""
    count: int = 0
    keys: list[str] = field(default_factory=list)

    def tick(self, key: str) -> bool:
        self.count += 1
        self.keys.append(key)
        return self.count == self.at


@dataclass(frozen=True)
class Mortal:
    """A store whose process ends at the n-th write or removal."""

    store: Store
    clock: Clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def write(self, key: str, data: bytes) -> None:
        with self.writing(key) as file:
            file.write(data)

    keep = write

    def write_new(self, key: str, data: bytes) -> bytes:
        dies = self.clock.tick(key)
        if dies and self.clock.half:
            raise Killed
        stands = self.store.write_new(key, data)
        if dies:
            raise Killed
        return stands

    @contextmanager
    def writing(self, key: str) -> Iterator[Any]:
        dies = self.clock.tick(key)
        if dies and self.clock.half:
            with self.store.writing(key) as file:
                yield file
                raise Killed
        with self.store.writing(key) as file:
            yield file
        if dies:
            raise Killed

    def remove(self, key: str) -> None:
        dies = self.clock.tick(key)
        if not (dies and self.clock.half):
            self.store.remove(key)
        if dies:
            raise Killed


def mortal(target: Target, clock: Clock) -> Target:
    return Target(target.url, Mortal(target.cube, clock), Mortal(target.build, clock), target.stac)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_patches(tmp_path_factory.mktemp("files") / "patches", [SCENE], size=16, missing=MISSING)


@pytest.fixture(scope="module")
def whole(files: Made, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(folder / "tiny.yaml", size=16, tile=8, shard=4)
    return build(recipe, files.folder, folder / "whole.zarr", incomplete="keep")


def objects(url: str) -> dict[str, bytes]:
    return {str(path.relative_to(url)): path.read_bytes() for path in Path(url).rglob("*") if path.is_file()}


def run(plan: Plan, target: Target, clock: Clock) -> bool:
    """Build until it is killed; return whether it came to its end."""
    try:
        write_cube(plan, mortal(target, clock), None)
    except Killed:
        return False
    return True


@pytest.fixture(scope="module")
def keys(whole: Built, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every write of a whole build, in order."""
    clock = Clock(at=-1, half=False)
    assert run(whole.plan, target_of(str(tmp_path_factory.mktemp("count") / "count.zarr")), clock)
    return clock.keys


def test_the_root_is_the_last_thing_written(keys: list[str]) -> None:
    assert keys[-1] == "zarr.json"
    assert keys.count("zarr.json") == 1
    last_receipt = max(place for place, key in enumerate(keys) if key.startswith("receipts/"))
    first_label = min(place for place, key in enumerate(keys) if key.startswith("patch/"))
    assert last_receipt < first_label
    shards = {key for key in keys if key.startswith(("s1/c", "s2/c", "lc/c", "originals/header/c"))}
    assert len(shards) == 12
    for place, key in enumerate(keys):
        if key.startswith("receipts/"):
            assert keys[place - 1].startswith("originals/header/c")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.booleans()), min_size=1, max_size=4))
def test_killed_anywhere_any_number_of_times(
    whole: Built, keys: list[str], tmp_path: Path, kills: list[tuple[float, bool]]
) -> None:
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    target = target_of(str(tmp_path / "a.zarr"))
    for share, half in kills:
        clock = Clock(at=1 + int(share * len(keys)), half=half)
        finished = run(whole.plan, target, clock)
        assert target.complete() == (finished or (clock.keys[-1] == "zarr.json" and not half))
    last = write_cube(whole.plan, target, None)
    assert len(last.receipts) == 3
    assert objects(target.url) == objects(whole.url)
    assert verify_cube(target).passed
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.judges)])
def test_killed_at_every_single_write(whole: Built, keys: list[str], tmp_path: Path, step: int) -> None:
    expected = objects(whole.url)
    for at in range(1, len(keys) + 1, step):
        target = target_of(str(tmp_path / f"{at}.zarr"))
        assert not run(whole.plan, target, Clock(at=at, half=at % 2 == 0))
        write_cube(whole.plan, target, None)
        assert objects(target.url) == expected, at
