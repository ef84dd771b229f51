"""Copies: local → S3, S3 → S3, a subset to a disk. Byte for byte, resumable, verified, the root last."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from making import BANDS, Built, Made, build, survey, write_recipe
from servers import S3Server, close_connections, seaweedfs

from cube import Samples, open_cube
from cube.catalog.describe import describe
from cube.catalog.publish import publish
from cube.cli.main import main
from cube.convert.preparation import prepare
from cube.errors import CorruptError, FilterError, RequestError, StorageError, TargetError
from cube.format.target import Target, target_of
from cube.jobs import copy as copying
from cube.jobs.copy import copy_cube
from cube.store.local import LocalStore
from cube.verify.verification import verify_cube, verify_unrooted


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    close_connections()
    with seaweedfs(tmp_path_factory.mktemp("seaweed")) as running, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running
    close_connections()


@pytest.fixture(scope="module")
def whole(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A cube of four shards per modality, with its catalog."""
    folder = tmp_path_factory.mktemp("whole")
    built = build(write_recipe(folder / "tiny.yaml", shard=8), made.folder, folder / "whole.zarr")
    report, seen = survey(built)
    publish(describe(built.target, built.plan.recipe, report, seen), built.target, report)
    return built


def objects_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(made: Made, season: str) -> list[int]:
    return [row for row, name in enumerate(made.ids) if made.scenes[name].season == season]


@dataclass(frozen=True)
class Flaky(LocalStore):
    """A folder that stops answering after so many objects were written."""

    left: tuple[str, ...] = ()

    def writing(self, key: str) -> Any:
        if key in self.left:
            raise OSError(5, "Input/output error")
        return LocalStore.writing(self, key)


def test_from_a_disk_to_s3_and_on(whole: Built, server: S3Server, tmp_path: Path) -> None:
    here = objects_of(Path(whole.url))
    first = copy_cube(whole.target, target_of("s3://public/a/whole.zarr"))
    second = copy_cube(target_of("s3://public/a/whole.zarr"), target_of("s3://private/b.zarr"))
    back = copy_cube(target_of("s3://private/b.zarr"), target_of(str(tmp_path / "back.zarr")))
    for copied in (first, second, back):
        assert copied.report.passed
        assert (copied.objects, copied.standing) == (len(here) - 1, 0)
    assert server.objects("public", "a/whole.zarr/") == server.objects("private", "b.zarr/") == here
    assert objects_of(tmp_path / "back.zarr") == here
    assert server.objects("public", "a/whole.stac/") == objects_of(Path(whole.url).with_suffix(".stac"))
    assert {key.split("/")[0] for key in server.objects("public", "a/whole.build/")} == {"claims", "report.json"}


def test_a_catalog_goes_along_and_finds_a_cube_of_another_name(whole: Built, tmp_path: Path) -> None:
    copied = copy_cube(whole.target, target_of(str(tmp_path / "other.zarr")))
    assert copied.catalog == str(tmp_path / "other.stac/collection.json")
    assert open_cube(copied.catalog).sizes["patch"] == 25
    items = [json.loads(path.read_text()) for path in (tmp_path / "other.stac/items").iterdir()]
    assert {item["assets"]["zarr"]["href"] for item in items} == {"../../other.zarr"}
    assert not [path for path in (tmp_path / "other.stac").rglob("*") if path.is_file() and b"whole.zarr" in path.read_bytes()]


@pytest.mark.parametrize("where", ["", "season=spring"])
def test_the_root_is_the_last_thing_written(whole: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    to = target_of(str(tmp_path / "a.zarr"))
    seen = []

    def look(*arguments: Any, **options: Any) -> Any:
        seen.append((to.complete(), len(list(to.cube.list()))))
        return verify_unrooted(*arguments, **options)

    monkeypatch.setattr(copying, "verify_unrooted", look)
    copied = copy_cube(whole.target, to, where=where)
    assert copied.report.passed
    assert to.complete()
    assert seen == [(False, len(list(to.cube.list())) - 1)]  # everything else was there, and checked


@pytest.mark.parametrize("where", ["", "season=spring"])
def test_a_copy_that_was_interrupted_goes_on(whole: Built, tmp_path: Path, where: str) -> None:
    to = target_of(str(tmp_path / "a.zarr"))
    broken = replace(to, cube=Flaky(to.cube.url, to.cube.staging, left=("s2/c/1/0/0/0",)))  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="Input/output error"):
        copy_cube(whole.target, broken, where=where)
    assert not to.complete()
    with pytest.raises(RequestError, match="there is no cube"):
        verify_cube(to)
    copied = copy_cube(whole.target, to, where=where)
    again = copy_cube(whole.target, to, where=where)
    assert copied.standing > 0
    assert copied.objects > 0
    assert again.objects == 0
    assert copied.report.passed
    assert again.report.passed
    fresh = copy_cube(whole.target, target_of(str(tmp_path / "fresh.zarr")), where=where)
    assert fresh.standing == 0
    assert objects_of(tmp_path / "fresh.zarr") == objects_of(tmp_path / "a.zarr")


@pytest.mark.parametrize("where", ["", "season=spring"])
def test_what_was_damaged_on_the_way_is_written_again(whole: Built, tmp_path: Path, where: str) -> None:
    to = target_of(str(tmp_path / "a.zarr"))
    copy_cube(whole.target, to, where=where)
    sound = objects_of(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/zarr.json").unlink()
    for key in ("s2/c/0/0/0/0", "scene/c/0", "patch/zarr.json", "originals/header/c/1/0/0"):
        data = bytearray(sound[key])
        data[len(data) // 3] ^= 1
        (tmp_path / "a.zarr" / key).write_bytes(data)
    assert copy_cube(whole.target, to, where=where).report.passed
    assert objects_of(tmp_path / "a.zarr") == sound


def test_a_damaged_source_is_no_copy(whole: Built, tmp_path: Path) -> None:
    source = target_of(str(tmp_path / "damaged.zarr"))
    copy_cube(whole.target, source)
    data = bytearray(source.cube.read("s2/c/1/0/0/0"))
    data[100] ^= 1
    source.cube.write("s2/c/1/0/0/0", bytes(data))
    to = target_of(str(tmp_path / "to.zarr"))
    copied = copy_cube(source, to)
    assert not copied.report.passed
    assert not to.complete()
    assert not list((tmp_path / "to.stac").rglob("*"))
    with pytest.raises(CorruptError, match=r"s2|checksum"):
        copy_cube(source, target_of(str(tmp_path / "part.zarr")), where="season=spring")
    source.cube.remove("lc/c/0/0/0/0")
    with pytest.raises(CorruptError, match="lacks 1 objects, such as lc/c/0/0/0/0"):
        copy_cube(source, target_of(str(tmp_path / "lacking.zarr")))


@pytest.mark.parametrize("where", ["season=summer", "season=spring and scene=1 and number>=33", "number>=30 and number<=33"])
def test_a_subset_is_a_cube_of_its_own(whole: Built, made: Made, server: S3Server, tmp_path: Path, where: str) -> None:
    to = target_of(str(tmp_path / "part.zarr"))
    expected = open_cube(whole.url, where=where).load()
    copied = copy_cube(whole.target, to, where=where)
    assert copied.report.passed
    assert verify_cube(to).passed
    assert copied.patches == expected.sizes["patch"] < 25
    plain, engine = xr.open_zarr(to.url, chunks=None).load(), open_cube(to.url).load()
    for name in BANDS:
        rows = [made.ids.index(patch) for patch in plain["patch"].values]
        np.testing.assert_array_equal(plain[name].values, made.array(name)[rows])
    for opened in (plain, engine):
        for name in ("open_with", "subset", "cube"):
            opened.attrs.pop(name)
    xr.testing.assert_equal(plain, expected)
    xr.testing.assert_equal(engine, expected)


def test_a_subset_keeps_tiles_shared_and_stored_bytes_as_they_are(whole: Built, made: Made, tmp_path: Path) -> None:
    to = target_of(str(tmp_path / "part.zarr"))
    copied = copy_cube(whole.target, to, where="season=spring and scene=1")
    alone = build(write_recipe(tmp_path / "tiny.yaml", shard=8), made.folder, tmp_path / "whole.zarr")
    assert alone.plan.digest == whole.plan.digest
    rows = rows_of(made, "spring")[:11]
    assert copied.patches == len(rows) == 11
    part, full = objects_of(tmp_path / "part.zarr"), objects_of(Path(whole.url))
    assert part["s2/c/0/0/0/0"] == full["s2/c/0/0/0/0"]  # the same eight patches: the same shard, to the byte
    used, stored = copied.tiles["s2"]
    assert used == 11 * 4
    assert used / stored > 1.5
    assert len(part["s2/c/1/0/0/0"]) < len(full["s2/c/1/0/0/0"])


def test_tiles_from_several_shards_are_shared_again(whole: Built, made: Made, tmp_path: Path) -> None:
    """Patches 7 and 8 lie in two shards of the whole cube, and in one of the subset."""
    first, second = (made.numbers[made.ids[row]] for row in (7, 8))
    copied = copy_cube(
        whole.target,
        target_of(str(tmp_path / "part.zarr")),
        where=f"season=spring and scene=1 and number>={first} and number<={second}",
    )
    assert copied.report.passed
    assert copied.patches >= 2
    assert all(stored < used for used, stored in copied.tiles.values())


def test_a_subset_says_what_it_is_of(whole: Built, tmp_path: Path) -> None:
    to = target_of(str(tmp_path / "part.zarr"))
    copied = copy_cube(whole.target, to, where="season=summer")
    root, of = (json.loads(Path(url, "zarr.json").read_text())["attributes"] for url in (to.url, whole.url))
    certificate = of["cube"]["certificate"]
    assert root["subset"] == {"where": "season=summer", "of_patches": 25, "of_pixels": certificate["pixels"]}
    assert "slice(0, 8)" in root["open_with"]
    assert root["cube"]["plan"] != of["cube"]["plan"]
    assert root["cube"]["certificate"]["pixels"] != certificate["pixels"]
    collection = json.loads(Path(copied.catalog).read_text())
    assert collection["patchcube:patches"] == copied.patches == 8
    assert [link["href"] for link in collection["links"] if link["rel"] == "item"] == ["./items/summer-1.json"]


def test_a_subset_of_a_cube_without_its_build_has_no_catalog(whole: Built, tmp_path: Path) -> None:
    bare = target_of(str(tmp_path / "bare.zarr"))
    copy_cube(whole.target, bare)
    copied = copy_cube(bare, target_of(str(tmp_path / "part.zarr")), where="season=summer")
    assert (copied.report.passed, copied.catalog) == (True, "")


def test_the_same_cube_built_there_is_a_copy_already(whole: Built, made: Made, tmp_path: Path) -> None:
    there = build(write_recipe(tmp_path / "tiny.yaml", shard=8), made.folder, tmp_path / "whole.zarr")
    copied = copy_cube(whole.target, there.target)
    assert (copied.report.passed, copied.objects) == (True, 0)


def test_places_that_hold_something_else(whole: Built, tiny_cube: Built, tmp_path: Path) -> None:
    def target(name: str) -> Target:
        return target_of(str(tmp_path / f"{name}.zarr"))

    with pytest.raises(RequestError, match="there is no cube"):
        copy_cube(target("none"), target("to"))
    with pytest.raises(RequestError, match=r"no patch of .* is chosen by --where 'scene=99'"):
        copy_cube(whole.target, target("to"), where="scene=99")
    with pytest.raises(FilterError):
        copy_cube(whole.target, target("to"), where="colour=red")
    copy_cube(whole.target, target("a"))
    with pytest.raises(TargetError, match="holds another cube"):
        copy_cube(tiny_cube.target, target("a"))
    target("strange").cube.write("file", b"x")
    with pytest.raises(TargetError, match="is not empty and no copy that was begun here"):
        copy_cube(whole.target, target("strange"))
    (tmp_path / "a.zarr/zarr.json").unlink()
    with pytest.raises(TargetError, match="holds an unfinished build, or the copy of something else"):
        copy_cube(tiny_cube.target, target("a"))
    with pytest.raises(TargetError, match="holds an unfinished copy"):
        prepare(whole.plan, target("a"))
    prepare(whole.plan, target("begun"))
    with pytest.raises(TargetError, match=r"holds an unfinished build.*`cube clean .*begun\.zarr` removes it"):
        copy_cube(whole.target, target("begun"))


def test_the_command(whole: Built, tmp_path: Path) -> None:
    def cube(*words: str) -> Any:
        return CliRunner().invoke(main, ["copy", whole.url, *words])

    said = cube(str(tmp_path / "a.zarr"), "--where", "season=spring", "--workers", "0")
    assert said.exit_code == 0, said.output
    assert "Copied 17 patches to" in said.stdout
    assert "is sound" in said.stdout
    assert "each used" in said.stdout
    command = [sys.executable, "-m", "cube", "copy", whole.url, str(tmp_path / "b.zarr"), "--workers", "2", "--json"]
    by_two = subprocess.run(command, capture_output=True, text=True, check=False)
    assert by_two.returncode == 0, by_two.stderr
    document = json.loads(by_two.stdout)
    assert (document["report"]["passed"], document["standing"]) == (True, 0)
    again = cube(str(tmp_path / "b.zarr"), "--workers", "0")
    assert f"{document['objects']} objects stood from an earlier run" in again.stdout
    assert cube(str(tmp_path / "b"), "--workers", "0").exit_code == 2


@pytest.mark.parametrize("where", ['class="Urban and Built-up Lands"', "class:IGBP:urban_and_built_up_lands>0.2 and scene=1"])
def test_a_class_chooses_what_it_chooses_for_readers(tiny_published: Target, tmp_path: Path, where: str) -> None:
    wanted = Samples(tiny_published.url, where=where, incomplete="keep").ids.tolist()
    assert 0 < len(wanted) < 25
    copied = copy_cube(tiny_published, target_of(str(tmp_path / "part.zarr")), where=where)
    assert copied.report.passed
    assert Samples(str(tmp_path / "part.zarr"), incomplete="keep").ids.tolist() == wanted
