"""Targets: writable in all their places before any work is done."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from making import Built

from cube.errors import StorageError, TargetError
from cube.store import LocalStore
from cube.target import Target, target_of
from cube.writer import PLAN, prepare


@dataclass(frozen=True)
class ReadOnly(LocalStore):
    """A folder in which nothing can be written."""

    def write(self, key: str, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return target_of(str(tmp_path / "a.zarr"))


def test_a_probe_leaves_nothing_behind(target: Target, tmp_path: Path) -> None:
    target.require_writable()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["cube", "build"])
def test_the_cube_and_the_build_records_must_both_be_writable(target: Target, tmp_path: Path, name: str) -> None:
    half = replace(target, **{name: ReadOnly(str(tmp_path / name))})
    with pytest.raises(TargetError, match=r"a.zarr: cannot be written \(Permission denied\); choose another --to"):
        half.require_writable()


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(28, r"free some space \(there and in the temporary folder\) and run again"), (5, "mend that and run again")],
)
def test_what_a_disk_answers_comes_with_what_to_do(target: Target, code: int, remedy: str) -> None:
    with pytest.raises(StorageError, match=remedy), target.storing():
        raise OSError(code, "it says no")


def test_a_plan_without_a_finished_batch_stands_in_nobodys_way(tiny_cube: Built, tmp_path: Path) -> None:
    target = target_of(str(tmp_path / "x.zarr"))
    prepare(tiny_cube.plan, target)
    other = tiny_cube.plan.recipe.model_copy(update={"name": "other"})
    prepare(replace(tiny_cube.plan, recipe=other, digest="other"), target)
    assert json.loads(target.build.read(PLAN))["digest"] == "other"
