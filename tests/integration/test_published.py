"""A published cube is never modified in place: building it again reads it, and writes nothing into it unless it is damaged."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from making import Built, Made, build, survey, write_recipe

from cube import Samples
from cube.convert.writer import write_cube
from cube.errors import CorruptError
from cube.format.target import Target, target_of
from cube.jobs.build import REPORT
from cube.store.protocol import Store
from cube.verify.verification import verify_cube


@dataclass(frozen=True)
class Counting:
    """A store whose requests are counted by kind."""

    store: Store
    seen: Counter[str] = field(default_factory=Counter)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        if not callable(found):
            return found

        def counted(*arguments: Any, **options: Any) -> Any:
            self.seen[name] += 1
            return found(*arguments, **options)

        return counted


def counted(target: Target) -> tuple[Target, Counter[str], Counter[str]]:
    cube, beside = Counting(target.cube), Counting(target.build)
    return replace(target, cube=cube, build=beside), cube.seen, beside.seen  # type: ignore[arg-type]


@pytest.fixture
def built(made: Made, tmp_path: Path) -> Built:
    return build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "a.zarr")


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    facts = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (info.st_ino, info.st_mtime_ns) for path, info in facts}


def test_building_it_again_asks_a_fixed_number_of_times_and_writes_nothing(built: Built, tmp_path: Path) -> None:
    before = inodes(tmp_path / "a.zarr")
    target, cube, beside = counted(target_of(built.url))
    written = write_cube(built.plan, target, None)
    assert written.resumed == built.plan.tasks
    assert cube == {"exists": 4, "read": 2, "list": 1}  # the root, asked for and read; one listing
    assert {name for name in beside if name.startswith(("write", "remove"))} == set()
    assert sum(beside.values()) < 15
    assert inodes(tmp_path / "a.zarr") == before


def test_only_what_is_damaged_is_written_again(built: Built, tmp_path: Path) -> None:
    before = inodes(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/s2/c/1/0/0/0").unlink()
    write_cube(built.plan, target_of(built.url), None)
    after = inodes(tmp_path / "a.zarr")
    shards = {key for key in before if key.split("/")[0] in ("s1", "s2", "lc") and "/c/0/" in key}
    assert shards
    assert {key: after[key] for key in shards} == {key: before[key] for key in shards}
    report, _ = survey(built)
    assert report.passed
    assert not target_of(built.url).build.exists(REPORT)


def test_the_catalog_tells_the_digest_that_a_cube_is_held_against(tiny_published: Target) -> None:
    told = json.loads(tiny_published.stac.read("collection.json"))["patchcube:digest"]
    assert verify_cube(tiny_published, expect=told).passed
    assert len(Samples(tiny_published.url, expect=told)) == 25
    with pytest.raises(CorruptError, match="digest"):
        Samples(tiny_published.url, expect=told[:-1] + ("0" if told[-1] != "0" else "1"))
