"""Files as they come: what differs is read right, what is damaged is named, and what was written before stays unharmed.

Every build goes through the command, in this process: its exit code, the build records and the cube are looked at.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from click.testing import CliRunner, Result
from making import BANDS, FILLS, MODALITIES, Made, Scene, make_patches, write_recipe, write_tif
from rasterio.transform import Affine

from cube.cli.main import main
from cube.convert.labels import label_values
from cube.convert.preparation import claimed
from cube.store.local import LocalStore
from cube.store.protocol import Entry

SCENE = Scene("fall", 3, rows=3, columns=4)
BAD = SCENE.id(35)
"""The patch that is damaged: the second of the second batch of four."""
ROW = 5
OTHERS = [row for row in range(12) if row != ROW]
SPACE = "free some space (there and in the temporary folder)"
POLICIES = ("fail", "reject", "keep")


@pytest.fixture
def files(tmp_path: Path) -> Made:
    return make_patches(tmp_path / "files", [SCENE])


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    return str(write_recipe(tmp_path / "tiny.yaml", shard=4))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cube of the undamaged files."""
    folder = tmp_path_factory.mktemp("clean")
    made = make_patches(folder / "files", [SCENE])
    result = cube(
        "build", str(write_recipe(folder / "tiny.yaml", shard=4)), "--source", made.folder, "--to", folder / "clean.zarr"
    )
    assert result.exit_code == 0
    return folder / "clean.zarr"


def cube(*arguments: Any) -> Result:
    """Run the command in this process; a traceback fails the test."""
    words = [str(word) for word in arguments]
    if words[0] in ("build", "verify"):
        words += ["--workers", "0"]
    result = CliRunner().invoke(main, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def convert(recipe: str, made: Made, to: Path, *more: Any) -> Result:
    return cube("build", recipe, "--source", made.folder, "--to", to, *more)


def named(to: Path) -> dict[str, tuple[str, str]]:
    """Return what plan and receipts say was rejected: path → reason, detail."""
    build = to.with_suffix(".build")
    items = json.loads((build / "plan.json").read_text())["rejected"]
    for receipt in (build / "receipts").glob("*.json"):
        items += json.loads(receipt.read_text())["rejected"]
    return {path: (reason, detail) for path, reason, detail in items}


def objects(to: Path) -> dict[str, bytes]:
    """Return every object of a cube."""
    return {str(path.relative_to(to)): path.read_bytes() for path in sorted(to.rglob("*")) if path.is_file()}


def written(to: Path, name: str) -> dict[str, Any]:
    """Return one document of the build records."""
    document: dict[str, Any] = json.loads(to.with_suffix(".build").joinpath(name).read_text())
    return document


def path_of(made: Made, modality: str) -> Path:
    return made.files[BAD, modality]


def key_of(made: Made, modality: str) -> str:
    return str(path_of(made, modality).relative_to(made.folder))


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels, **profile: Any) -> None:
    with rasterio.open(path) as image:
        pixels, known = image.read(), {"crs": image.crs, "transform": image.transform}
    path.unlink()
    write_tif(path, change(pixels), **{**known, **profile})


def same_pixels(opened: xr.Dataset, made: Made, rows: list[int], places: list[int]) -> None:
    for name in MODALITIES:
        np.testing.assert_array_equal(opened[name].values[places], made.array(name)[rows])


# What is read, and right


def test_every_kind_of_tiff_mixed_in_one_data_set(tmp_path: Path, recipe: str, files: Made) -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"compress": "deflate"},
        {"compress": "lzw", "interleave": "band"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate", "interleave": "band"},
        {"interleave": "band"},
        {"ENDIANNESS": "BIG"},
        {"ENDIANNESS": "BIG", "compress": "lzw", "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"BIGTIFF": "YES"},
        {"BIGTIFF": "YES", "compress": "deflate", "ENDIANNESS": "BIG"},
    ]
    for number, path in enumerate(files.files.values()):
        rewrite(path, **kinds[number % len(kinds)])
    to = tmp_path / "mixed.zarr"
    assert convert(recipe, files, to).exit_code == 0
    assert named(to) == {}
    opened = xr.open_zarr(to)
    for (name, modality), path in files.files.items():
        row = files.ids.index(name)
        with rasterio.open(path) as image:
            np.testing.assert_array_equal(opened[modality].values[row], image.read())
            assert opened["epsg"].values[row] == image.crs.to_epsg()
            assert opened["transform"].values[row].tolist() == list(image.transform)[:6]
    report = cube("verify", to, "--source", files.folder)
    assert report.exit_code == 0, report.output
    assert "36 files of" in report.output


def test_alpha_is_never_a_mask(tmp_path: Path, recipe: str, files: Made) -> None:
    for number, name in enumerate(files.ids):
        path = files.files[name, "lc"]

        def clear(pixels: np.ndarray) -> np.ndarray:
            pixels[3, ::2] = 0
            return pixels

        rewrite(path, clear, **({"compress": "deflate"} if number % 2 else {}))
        with rasterio.open(path) as image:
            assert image.colorinterp[3].name == "alpha"
            assert not image.dataset_mask().all()
            files.pixels[name, "lc"] = image.read()
    to = tmp_path / "alpha.zarr"
    assert convert(recipe, files, to).exit_code == 0
    opened = xr.open_zarr(to)
    assert (opened["lc"].values[:, 3, ::2] == 0).all()
    assert (opened["lc"].values[:, :3] > 0).all()
    np.testing.assert_array_equal(opened["lc"].values, files.array("lc"))


def test_one_scene_number_in_two_seasons_is_two_places(tmp_path: Path, recipe: str) -> None:
    here, there = Scene("spring", 15, rows=2, columns=2), Scene("winter", 15, rows=2, columns=2, epsg=32737, origin=(4e5, 8e6))
    made = make_patches(tmp_path / "two", [here, there])
    to = tmp_path / "two.zarr"
    assert convert(recipe, made, to).exit_code == 0
    opened = xr.open_zarr(to)
    assert opened["scene"].values.tolist() == [15] * 8
    assert opened["season"].values.tolist() == ["spring"] * 4 + ["winter"] * 4
    assert opened["epsg"].values.tolist() == [32632] * 4 + [32737] * 4
    assert opened["split"].values.tolist() == ["test"] * 4 + ["train"] * 4
    assert opened["lat"].values[0] > 40
    assert opened["lat"].values[4] < 0
    same_pixels(opened, made, list(range(8)), list(range(8)))
    assert json.loads(cube("info", to, "--json").stdout)["scenes"] == 2


@pytest.mark.parametrize("profile", [{}, {"compress": "deflate"}])
def test_nan_is_kept_to_the_last_bit_and_counted(tmp_path: Path, recipe: str, files: Made, profile: dict[str, Any]) -> None:
    payloads = np.array([0x7FC00000, 0x7FC12345, 0xFFC00001, 0x7F800001, 0x7F800000, 0xFF800000, 0x80000000], "<u4")
    words = files.pixels[BAD, "s1"].copy()
    words[0, 3, :7] = payloads.view("<f4")
    rewrite(path_of(files, "s1"), lambda pixels: words, **profile)
    to = tmp_path / "nan.zarr"
    assert convert(recipe, files, to).exit_code == 0
    opened = xr.open_zarr(to)
    assert opened["s1"].values[ROW].tobytes() == words.tobytes()
    counted = opened["nan_count"].sel(modality="s1").values
    np.testing.assert_array_equal(counted, np.isnan(opened["s1"].values).sum(axis=(1, 2, 3)))
    assert counted[ROW] >= 4
    assert "patches have NaN pixels" in cube("info", to).stdout
    assert cube("verify", to, "--source", files.folder).exit_code == 0


# What is damaged


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def break_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.tif")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside.txt").write_text("x")


def write_text(path: Path) -> None:
    path.write_text("404 not found")


def scribble(path: Path) -> None:
    """Damage that a listing cannot show: the size stays."""
    size = path.stat().st_size
    path.write_bytes(b"<html>not here</html>".ljust(size, b" "))


def damage_directory(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:10] = b"\xff\xff"
    path.write_bytes(bytes(data))


def move_away(path: Path) -> None:
    path.unlink()


def other_dtype(path: Path) -> None:
    rewrite(path, lambda pixels: pixels.astype("int32"))


def other_size(path: Path) -> None:
    rewrite(path, lambda pixels: pixels[:, :16])


def other_bands(path: Path) -> None:
    rewrite(path, lambda pixels: pixels[:2])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def no_place(path: Path) -> None:
    rewrite(path, crs=None, transform=None)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, "truncated"),
    "empty": (empty, "empty"),
    "broken link": (break_link, "unreadable"),
    "folder": (make_folder, "incomplete"),
    "no TIFF": (write_text, "unknown format"),
    "no TIFF of the same size": (scribble, "unknown format"),
    "damaged directory": (damage_directory, "unreadable"),
    "missing": (move_away, "incomplete"),
    "another type": (other_dtype, "wrong dtype"),
    "another size": (other_size, "wrong size"),
    "other bands": (other_bands, "wrong bands"),
    "no place": (no_place, "no georeference"),
}
WHEN_READ = {"no TIFF of the same size", "damaged directory"}
"""Damages that are seen only when a file is read."""


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_leaves_a_marked_gap(
    tmp_path: Path, recipe: str, files: Made, damage: str, policy: str
) -> None:
    spoil, reason = DAMAGES[damage]
    spoil(path_of(files, "s2"))
    to = tmp_path / "a.zarr"
    result = convert(recipe, files, to, "--incomplete", policy)
    if policy == "fail":
        assert_refused(result, to, BAD if damage not in WHEN_READ else key_of(files, "s2"))
        return
    said = named(to)
    assert result.exit_code == (3 if said else 0), result.output
    if damage in ("missing", "folder"):
        assert policy == "keep" or said[BAD] == ("incomplete", "lacks s2")
    else:
        assert said[key_of(files, "s2")][0] == reason
    opened = xr.open_zarr(to)
    if policy == "reject" and damage not in WHEN_READ:
        assert opened["patch"].values.tolist() == [files.ids[row] for row in OTHERS]
        same_pixels(opened, files, OTHERS, list(range(11)))
    else:
        gaps = ["s2"] if policy == "keep" else list(MODALITIES)
        assert_gap(opened, files, gaps)
    assert cube("verify", to).exit_code == 0


def assert_refused(result: Result, to: Path, name: str) -> None:
    assert result.exit_code == 1
    assert name in result.stderr
    assert "Traceback" not in result.stderr
    assert not (to / "zarr.json").exists()
    assert not to.with_suffix(".stac").exists()


def assert_gap(opened: xr.Dataset, made: Made, gaps: list[str]) -> None:
    """All is as in the files, but for the gaps of one patch: marked, and read as the fill value."""
    assert opened["patch"].values.tolist() == made.ids
    same_pixels(opened, made, OTHERS, OTHERS)
    for place, name in enumerate(MODALITIES):
        present = opened["present"].values[:, place]
        assert present[OTHERS].all()
        assert present[ROW] == (name not in gaps)
        expected = np.full((BANDS[name], 32, 32), FILLS[name]) if name in gaps else made.pixels[BAD, name]
        np.testing.assert_array_equal(opened[name].values[ROW], expected)
        assert opened["digest"].values[ROW, place].any() == (name not in gaps)
    known = set(gaps) != set(MODALITIES)
    assert opened["epsg"].values[ROW] == (32632 if known else 0)
    assert np.isfinite(opened["lon"].values[ROW]) == known
    assert np.isfinite(opened["transform"].values[ROW]).all() == np.isfinite(opened["transform"].values[ROW]).any() == known


@pytest.mark.parametrize("policy", ["reject", "keep"])
def test_a_file_found_damaged_while_writing_is_told_everywhere(tmp_path: Path, recipe: str, files: Made, policy: str) -> None:
    damage_directory(path_of(files, "s2"))
    to = tmp_path / "a.zarr"
    text = convert(recipe, files, to, "--incomplete", policy)
    assert "1 file rejected when read:" in text.stdout
    assert f"{key_of(files, 's2')}: unreadable: its first TIFF directory" in text.stdout
    again = json.loads(convert(recipe, files, to, "--incomplete", policy, "--json").stdout)
    assert [item[:2] for item in again["rejected"]] == [[key_of(files, "s2"), "unreadable"]]
    assert again["figures"]["rejected"]["actual"] == 1
    kept = json.loads(to.with_suffix(".build").joinpath("build.json").read_text())
    assert kept["rejected"] == again["rejected"]
    lacking = [name for name in MODALITIES if policy == "reject" or name == "s2"]
    facts = json.loads(cube("info", to, "--json").stdout)["modalities"]
    assert {name: facts[name]["missing"] for name in MODALITIES} == {name: int(name in lacking) for name in MODALITIES}


def test_under_fail_the_mended_file_is_all_that_was_missing(tmp_path: Path, recipe: str, files: Made, clean: Path) -> None:
    right = path_of(files, "s2").read_bytes()
    damage_directory(path_of(files, "s2"))
    to = tmp_path / "a.zarr"
    first = convert(recipe, files, to, "--incomplete", "fail", "--sample", "0")
    assert_refused(first, to, key_of(files, "s2"))
    assert "Mend the file and run again" in first.stderr
    before = objects(to)
    assert {key for key in before if key.startswith("s2")} == {"s2/c/0/0/0/0"}
    shards = [key for key in before if key.endswith("/0/0/0/0")]
    times = {key: (to / key).stat().st_mtime_ns for key in shards}
    again = convert(recipe, files, to, "--incomplete", "fail", "--sample", "0")
    assert again.exit_code == 1
    assert objects(to) == before
    path_of(files, "s2").write_bytes(right)
    last = convert(recipe, files, to, "--incomplete", "fail", "--sample", "0", "--json")
    assert last.exit_code == 0
    assert json.loads(last.stdout)["resumed"] == 1
    assert {key: (to / key).stat().st_mtime_ns for key in shards} == times
    pixels, expected = ({key: data for key, data in objects(path).items() if "/c/" in key} for path in (to, clean))
    assert pixels == expected


def test_a_sample_that_meets_a_damaged_file_says_so_under_fail(tmp_path: Path, recipe: str, files: Made) -> None:
    damage_directory(path_of(files, "s2"))
    result = convert(recipe, files, tmp_path / "a.zarr", "--incomplete", "fail", "--sample", "100")
    assert_refused(result, tmp_path / "a.zarr", key_of(files, "s2"))
    planned = cube("plan", recipe, "--source", files.folder, "--incomplete", "fail", "--sample", "12")
    assert planned.exit_code == 1
    assert key_of(files, "s2") in planned.stderr


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_patch_in_both_folder_layouts(tmp_path: Path, recipe: str, files: Made, policy: str) -> None:
    other = files.folder / "ROIs1970_fall_s2" / "s2_3" / path_of(files, "s2").name
    other.parent.mkdir(parents=True)
    other.write_bytes(path_of(files, "s2").read_bytes()[:-1] + b"x")
    to = tmp_path / "a.zarr"
    result = convert(recipe, files, to, "--incomplete", policy)
    if policy == "fail":
        assert_refused(result, to, BAD)
        return
    assert result.exit_code == 3
    said = named(to)
    for path in (path_of(files, "s2"), other):
        assert said[str(path.relative_to(files.folder))][0] == "duplicate"
    opened = xr.open_zarr(to)
    if policy == "keep":
        assert_gap(opened, files, ["s2"])
    else:
        same_pixels(opened, files, OTHERS, list(range(11)))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("what", ["transform", "CRS"])
def test_modalities_of_one_patch_that_lie_at_different_places(
    tmp_path: Path, recipe: str, files: Made, what: str, policy: str
) -> None:
    if what == "CRS":
        rewrite(path_of(files, "lc"), crs="EPSG:32633")
    else:
        rewrite(path_of(files, "lc"), transform=files.transforms[BAD] @ Affine.translation(1, 0))
    to = tmp_path / "a.zarr"
    result = convert(recipe, files, to, "--incomplete", policy)
    if policy == "fail":
        assert_refused(result, to, BAD)
        return
    assert result.exit_code == 3
    reason, detail = named(to)[BAD]
    assert reason == "different georeferences"
    assert all(name in detail for name in MODALITIES)
    assert_gap(xr.open_zarr(to), files, list(MODALITIES))
    assert cube("verify", to).exit_code == 0


def test_strangers_among_the_files_are_named_and_harm_nothing(tmp_path: Path, recipe: str, files: Made, clean: Path) -> None:
    strangers = ["photo.jpg", "ROIs1970_fall/s2_3/ROIs1970_fall_s2_3_p35 (1).tif", "a/b/ROIs9999_fall_s2_3_p35.tif"]
    for name in strangers:
        (files.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (files.folder / name).write_bytes(b"x")
    with open(os.fsencode(files.folder) + b"/w\xe4lder.tif", "wb") as file:
        file.write(b"x")
    (files.folder / "readme.txt").write_text("x")
    to = tmp_path / "a.zarr"
    result = convert(recipe, files, to)
    assert result.exit_code == 3
    said = named(to)
    assert len(said) == 4
    assert all(said[name][0] == "wrong name" for name in strangers)
    assert "1 files ignored, 4 rejected (4 wrong name)" in result.stderr
    assert {key: data for key, data in objects(to).items() if "/c/" in key} == {
        key: data for key, data in objects(clean).items() if "/c/" in key
    }


def test_side_files_of_macos_are_no_patches(tmp_path: Path, recipe: str, files: Made, clean: Path) -> None:
    for path in (*files.files.values(), files.folder / "x"):
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
    to = tmp_path / "a.zarr"
    result = convert(recipe, files, to)
    assert result.exit_code == 0
    assert named(to) == {}
    assert "37 files ignored, 0 rejected" in result.stderr
    assert objects(to) == objects(clean)


def test_every_rejected_file_is_listed_whenever_it_was_found(tmp_path: Path, recipe: str, files: Made) -> None:
    truncate(path_of(files, "s1"))
    damage_directory(files.files[SCENE.id(40), "s2"])
    to = tmp_path / "a.zarr"
    first = convert(recipe, files, to, "--incomplete", "keep", "--json")
    again = convert(recipe, files, to, "--incomplete", "keep", "--json")
    late = str(files.files[SCENE.id(40), "s2"].relative_to(files.folder))
    for document in (json.loads(first.stdout), json.loads(again.stdout), written(to, "build.json")):
        assert [item[:2] for item in document["rejected"]] == [[key_of(files, "s1"), "truncated"], [late, "unreadable"]]
        assert document["figures"]["rejected"]["actual"] == 2
        assert document["figures"]["objects"]["actual"] == len(objects(to))


def test_no_document_holds_nan(tmp_path: Path, recipe: str, files: Made) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    to = tmp_path / "a.zarr"
    for name in files.ids:
        damage_directory(files.files[name, "lc"])
    for code, result in (
        (0, cube("plan", recipe, "--source", files.folder, "--json")),
        (3, convert(recipe, files, to, "--sample", "0", "--incomplete", "keep", "--json")),
        (0, cube("info", to, "--json")),
        (0, cube("verify", to, "--json")),
    ):
        assert result.exit_code == code, result.output
        json.loads(result.stdout, parse_constant=refuse)
    for name in ("plan.json", "build.json", "estimate.json", "report.json"):
        json.loads(to.with_suffix(".build").joinpath(name).read_text(), parse_constant=refuse)
    assert written(to, "build.json")["figures"]["seconds"]["predicted"] is None
    assert cube("info", to).exit_code == 0


# Sources that go away


@pytest.mark.parametrize("sample", [0, 100])
def test_a_source_that_is_gone_after_the_plan_makes_no_gap(
    tmp_path: Path, recipe: str, files: Made, clean: Path, monkeypatch: pytest.MonkeyPatch, sample: int
) -> None:
    to, away = tmp_path / "a.zarr", tmp_path / "away"

    @contextmanager
    def claimed_and_lost(*arguments: Any, **options: Any) -> Iterator[None]:
        with claimed(*arguments, **options):
            files.folder.rename(away)
            yield

    with monkeypatch.context() as patch:
        patch.setattr("cube.jobs.build.claimed", claimed_and_lost)
        result = convert(recipe, files, to, "--incomplete", "keep", "--sample", sample)
    assert result.exit_code == 1
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("cube: ")
    assert "FileNotFoundError" in last
    assert str(files.folder) in last
    assert list(objects(to)) == ["modality/c/0"]  # the first small object of all, to see that it can be written
    assert not list(tmp_path.glob("a.build/receipts/*"))
    away.rename(files.folder)
    assert convert(recipe, files, to, "--incomplete", "keep").exit_code == 0
    assert named(to) == {}
    pixels, expected = ({key: data for key, data in objects(path).items() if "/c/" in key} for path in (to, clean))
    assert pixels == expected


def test_a_source_that_is_gone_while_it_is_read_stops_the_build(
    tmp_path: Path, recipe: str, files: Made, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, away = tmp_path / "a.zarr", tmp_path / "away"

    class Leaving(LocalStore):
        def read_listed(self, entries: list[Entry]) -> Iterator[bytes | OSError]:
            for place, data in enumerate(super().read_listed(entries)):
                yield data
                if place == 4 and SCENE.id(35) in tmp_ids([entry.key for entry in entries]):
                    files.folder.rename(away)

    with monkeypatch.context() as patch:
        patch.setattr("cube.store.urls.LocalStore", Leaving)
        assert convert(recipe, files, to, "--sample", "0").exit_code == 1
    assert len(list(tmp_path.glob("a.build/receipts/*"))) == 1
    assert not (to / "zarr.json").exists()
    away.rename(files.folder)
    last = convert(recipe, files, to, "--sample", "0", "--json")
    assert json.loads(last.stdout)["resumed"] == 1
    assert objects(to) == objects(clean)


def tmp_ids(keys: list[str]) -> set[str]:
    return {Path(key).stem.replace("_s1_", "_").replace("_s2_", "_").replace("_lc_", "_") for key in keys}


# Damage seen by a verification


class Unreadable(LocalStore):
    """A folder on a disk with bad sectors."""

    bad: tuple[str, ...] = ()

    def check(self, key: str) -> None:
        if key in self.bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def read(self, key: str) -> bytes:
        self.check(key)
        return super().read(key)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        self.check(key)
        return super().read_range(key, start, stop)


@pytest.mark.parametrize(
    ("key", "check"),
    [
        ("s2/c/1/0/0/0", "shards"),
        ("originals/header/c/2/0/0", "originals"),
        ("lon/c/0", "labels"),
        ("s1/zarr.json", "metadata"),
    ],
)
def test_an_object_that_cannot_be_read_is_named_and_all_others_are_checked(
    tmp_path: Path, clean: Path, monkeypatch: pytest.MonkeyPatch, key: str, check: str
) -> None:
    to = tmp_path / "a.zarr"
    shutil.copytree(clean, to)
    shard = bytearray((to / "lc/c/0/0/0/0").read_bytes())
    shard[40] ^= 1
    (to / "lc/c/0/0/0/0").write_bytes(shard)
    monkeypatch.setattr(Unreadable, "bad", (key,))
    monkeypatch.setattr("cube.store.urls.LocalStore", Unreadable)
    result = cube("verify", to, "--json")
    assert result.exit_code == 1, result.stderr
    checks = {item["name"]: item for item in json.loads(result.stdout)["checks"]}
    (finding,) = (item for item in checks[check]["findings"] if "lc/" not in item["where"])
    assert finding["where"] == key
    assert re.fullmatch(r"cannot be read: (\[Errno 5\] )?Input/output error", finding["what"])
    assert any("lc/c/0/0/0/0" in item["where"] for item in checks["shards"]["findings"])
    failed = {name for name, item in checks.items() if item["findings"]}
    assert failed <= {check, "shards", "georeference"}
    assert checks["pixels"]["seen"] == "36 images of 12 patches, decoded and hashed"


def test_labels_that_tell_of_an_image_that_is_not_there_are_found(
    tmp_path: Path, recipe: str, files: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels are certified as they are, so only the rules of absent images can tell."""
    path_of(files, "s2").unlink()

    def invent(*arguments: Any) -> dict[str, np.ndarray]:
        values = label_values(*arguments)
        values["zero_count"][ROW, 1] = 5
        return values

    monkeypatch.setattr("cube.convert.writer.label_values", invent)
    result = convert(recipe, files, tmp_path / "a.zarr", "--incomplete", "keep", "--json")
    assert result.exit_code == 1
    findings = [
        (check["name"], item["where"], item["what"])
        for check in json.loads(result.stdout)["report"]["checks"]
        for item in check["findings"]
    ]
    assert findings == [("presence", BAD, "said to be absent, but its labels tell of an image")]


def test_verification_names_how_many_files_are_no_part_of_the_cube(tmp_path: Path, recipe: str, files: Made) -> None:
    to = tmp_path / "a.zarr"
    assert convert(recipe, files, to, "--limit", "10").exit_code == 0
    (files.folder / "notes.txt").write_text("x")
    result = cube("verify", to, "--source", files.folder)
    assert result.exit_code == 0
    assert f"30 files of {files.folder}; 7 other files there are no part of the cube" in result.stdout


# Targets


def test_a_target_within_the_source_is_refused(tmp_path: Path, recipe: str, files: Made) -> None:
    for to in (files.folder / "a.zarr", files.folder / "deep/er/a.zarr", files.folder / ".." / files.folder.name / "a.zarr"):
        result = convert(recipe, files, to)
        assert result.exit_code == 2
        assert "lies inside the source" in result.stderr
        assert "choose another --to" in result.stderr
    assert not list(files.folder.rglob("a.*"))
    assert not list(files.folder.rglob("deep"))
    assert convert(recipe, files, files.folder.with_name("files.zarr"), "--sample", "0").exit_code == 0


def test_targets_are_looked_at_before_any_process_is_started(
    tmp_path: Path, recipe: str, files: Made, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(**options: Any) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr("cube.work.clusters.open_cluster", start)
    photos(tmp_path / "a.zarr")
    shutil.copytree(clean, tmp_path / "b.zarr")
    (tmp_path / "c.zarr").write_text("x")
    for name in ("a", "b", "c"):
        assert convert(recipe, files, tmp_path / f"{name}.zarr", "--limit", "5").exit_code == 2


def test_an_unfinished_build_of_another_plan_is_thrown_away_only_when_told(
    tmp_path: Path, recipe: str, files: Made, clean: Path
) -> None:
    right = path_of(files, "s2").read_bytes()
    damage_directory(path_of(files, "s2"))
    to, build = tmp_path / "a.zarr", tmp_path / "a.build"
    begun = ("--incomplete", "fail", "--sample", "0")
    assert convert(recipe, files, to, *begun).exit_code == 1
    path_of(files, "s2").write_bytes(right)
    before, records = objects(to), objects(build)
    result = convert(recipe, files, to, *begun, "--profile", "fast")
    assert result.exit_code == 2
    assert "1 of its 1 finished batches would be thrown away" in result.stderr
    assert "Give the options it was begun with, choose another --to, or give --replace" in result.stderr
    assert objects(to) == before
    assert objects(build) == records
    taken = convert(recipe, files, to, *begun, "--profile", "fast", "--replace", "--json")
    assert taken.exit_code == 0, taken.stderr
    assert json.loads(taken.stdout)["resumed"] == 0
    fresh = tmp_path / "fresh.zarr"
    assert convert(recipe, files, fresh, *begun, "--profile", "fast").exit_code == 0
    assert objects(to) == objects(fresh)
    assert len(list((build / "receipts").iterdir())) == 3


def test_an_unfinished_build_is_taken_over_where_nothing_is_lost(tmp_path: Path, recipe: str, files: Made, clean: Path) -> None:
    """The first batch is the same in both plans, and it is all that was finished."""
    damage_directory(path_of(files, "s2"))
    to = tmp_path / "a.zarr"
    assert convert(recipe, files, to, "--incomplete", "fail", "--sample", "0").exit_code == 1
    path_of(files, "s2").unlink()
    result = convert(recipe, files, to, "--incomplete", "fail", "--sample", "0", "--limit", "4", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["resumed"] == 1
    assert not [key for key in objects(to) if "/c/1/" in key]


def test_replace_never_touches_a_finished_cube(tmp_path: Path, recipe: str, files: Made) -> None:
    to = tmp_path / "a.zarr"
    assert convert(recipe, files, to, "--sample", "0").exit_code == 0
    before = objects(to)
    result = convert(recipe, files, to, "--limit", "5", "--replace")
    assert result.exit_code == 2
    assert "holds another cube" in result.stderr
    assert objects(to) == before


def test_files_that_were_written_anew_are_noticed_though_their_size_is_the_same(
    tmp_path: Path, recipe: str, files: Made
) -> None:
    to = tmp_path / "a.zarr"
    assert convert(recipe, files, to, "--sample", "0").exit_code == 0
    before = objects(to)
    path_of(files, "s2").write_bytes(path_of(files, "s2").read_bytes())
    result = convert(recipe, files, to, "--sample", "0")
    assert result.exit_code == 2
    assert "was built from other files than these, or they were written anew since" in result.stderr
    assert objects(to) == before


def test_batches_of_files_that_were_written_anew_are_written_again(tmp_path: Path, recipe: str, files: Made) -> None:
    damage_directory(path_of(files, "s2"))
    to = tmp_path / "a.zarr"
    assert convert(recipe, files, to, "--incomplete", "fail", "--sample", "0").exit_code == 1
    first = files.files[files.ids[0], "lc"]
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    path_of(files, "s2").unlink()
    result = convert(recipe, files, to, "--incomplete", "keep", "--sample", "0", "--replace", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["resumed"] == 0
    assert cube("verify", to, "--source", files.folder).exit_code == 0


def test_a_cube_that_does_not_pass_any_more_loses_its_catalog_until_it_is_mended(
    tmp_path: Path, recipe: str, files: Made
) -> None:
    to, collection = tmp_path / "a.zarr", tmp_path / "a.stac/collection.json"
    assert convert(recipe, files, to, "--sample", "0").exit_code == 0
    expected = objects(to)
    for key in ("s2/c/1/0/0/0", "lon/c/0", "s1/zarr.json"):
        data = bytearray((to / key).read_bytes())
        data[len(data) // 2] ^= 1
        (to / key).write_bytes(data)
    failed = convert(recipe, files, to, "--sample", "0")
    assert failed.exit_code == 1
    assert "No catalog was written" in failed.stdout
    assert not collection.exists()
    assert convert(recipe, files, to, "--sample", "0").exit_code == 0
    assert objects(to) == expected
    assert collection.exists()


def test_a_target_that_holds_the_cube_of_another_plan(tmp_path: Path, recipe: str, files: Made) -> None:
    to = tmp_path / "a.zarr"
    assert convert(recipe, files, to).exit_code == 0
    before = objects(to)
    result = convert(recipe, files, to, "--limit", "5")
    assert result.exit_code == 2
    assert "holds another cube (plan " in result.stderr
    assert "choose another --to" in result.stderr
    assert objects(to) == before
    assert cube("verify", to).exit_code == 0


def test_a_target_that_holds_an_unfinished_build_of_another_recipe(tmp_path: Path, recipe: str, files: Made) -> None:
    damage_directory(path_of(files, "s2"))
    to = tmp_path / "a.zarr"
    assert convert(recipe, files, to, "--incomplete", "fail", "--sample", "0").exit_code == 1
    before = objects(to)
    other = write_recipe(tmp_path / "other.yaml", shard=4)
    other.write_text(other.read_text().replace("name: tiny", "name: other"))
    result = convert(str(other), files, to)
    assert result.exit_code == 2
    assert "holds an unfinished build of recipe 'tiny'" in result.stderr
    assert objects(to) == before


def photos(to: Path) -> None:
    to.mkdir()
    (to / "holiday.jpg").write_bytes(b"x")


def another_group(to: Path) -> None:
    zarr.create_group(to, zarr_format=3, attributes={"title": "mine"})


def damaged_root(to: Path) -> None:
    to.mkdir()
    (to / "zarr.json").write_bytes(b"{half a docu")


def odd_root(to: Path) -> None:
    to.mkdir()
    (to / "zarr.json").write_bytes(b"[]")


@pytest.mark.parametrize("fill", [photos, another_group, damaged_root, odd_root])
def test_a_target_that_is_no_cube(tmp_path: Path, recipe: str, files: Made, fill: Callable[[Path], None]) -> None:
    to = tmp_path / "a.zarr"
    fill(to)
    before = objects(to)
    result = convert(recipe, files, to)
    assert result.exit_code == 2
    assert f"cube: {to}" in result.stderr
    assert "choose another --to" in result.stderr
    assert objects(to) == before


def test_a_plan_that_is_damaged_is_written_again(tmp_path: Path, recipe: str, files: Made) -> None:
    build = tmp_path / "a.build"
    build.mkdir()
    (build / "plan.json").write_text("{half a docu")
    assert convert(recipe, files, tmp_path / "a.zarr").exit_code == 0
    assert json.loads((build / "plan.json").read_text())["recipe"]["name"] == "tiny"


def test_a_damaged_receipt_is_one_batch_to_do_again(tmp_path: Path, recipe: str, files: Made, clean: Path) -> None:
    damage = path_of(files, "s2").read_bytes()
    damage_directory(path_of(files, "s2"))
    to = tmp_path / "a.zarr"
    assert convert(recipe, files, to, "--incomplete", "fail", "--sample", "0").exit_code == 1
    (receipt,) = (tmp_path / "a.build/receipts").iterdir()
    receipt.write_bytes(receipt.read_bytes()[:100])
    path_of(files, "s2").write_bytes(damage)
    result = convert(recipe, files, to, "--incomplete", "fail", "--sample", "0", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["resumed"] == 0


@pytest.mark.parametrize("place", ["below a file", "where nobody writes", "is a file"])
def test_a_target_that_cannot_be_written(tmp_path: Path, recipe: str, files: Made, place: str) -> None:
    (tmp_path / "file").write_text("x")
    to = {
        "below a file": tmp_path / "file/a.zarr",
        "where nobody writes": Path("/proc/cubes/a.zarr"),
        "is a file": tmp_path / "a.zarr",
    }
    if place == "is a file":
        (tmp_path / "a.zarr").write_text("x")
    result = convert(recipe, files, to[place])
    assert result.exit_code == 2, result.output
    assert f"cube: {to[place]}" in result.stderr
    assert "choose another --to" in result.stderr
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("name", ["cube", "a.zip", ".zarr", "folder/.zarr", ""])
def test_a_target_of_the_wrong_name(tmp_path: Path, recipe: str, files: Made, name: str) -> None:
    result = convert(recipe, files, name if not name else tmp_path / name)  # type: ignore[arg-type]
    assert result.exit_code == 2
    assert "expected a path or URL that ends in .zarr" in result.stderr


# Disks that are full


def limited(limit: int, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run the command where no file may grow beyond ``limit`` bytes, as on a disk that is full."""

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "cube", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, preexec_fn=limit_files, timeout=120)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_disk_too_full_for_a_shard(tmp_path: Path, workers: int) -> None:
    recipe = str(write_recipe(tmp_path / "large.yaml", size=128, tile=64, shard=4))
    made = make_patches(tmp_path / "files", [SCENE], size=128)
    to = tmp_path / "a.zarr"
    command = ["build", recipe, "--source", made.folder, "--to", to, "--sample", 0, "--workers"]
    result = limited(300_000, *command, workers)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert f"cube: writing to {to} failed: File too large; {SPACE} and run again" in result.stderr
    assert result.stdout == ""
    assert not [path for path in to.rglob("*") if path.is_file() and path.stat().st_size > 300_000]
    assert not (to / "zarr.json").exists()
    assert not list(tmp_path.rglob("*.partial"))
    again = limited(10**9, *command, 0)
    assert again.returncode == 0, again.stderr
    np.testing.assert_array_equal(xr.open_zarr(to)["s2"].values, made.array("s2"))


class FullDisk(LocalStore):
    """A folder on a disk that fills up when one file is written."""

    at = ""

    @contextmanager
    def writing(self, key: str) -> Iterator[Any]:
        with super().writing(key) as file:
            yield file
            if f"{self.root}/{key}".endswith(self.at):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "at",
    [
        "a.build/plan.json", "a.zarr/s2/c/1/0/0/0", "a.zarr/originals/header/c/2/0/0", "a.zarr/lon/c/0", "a.zarr/s1/zarr.json",
        "a.zarr/zarr.json", "a.stac/collection.json", "a.build/report.json",
    ],
)  # fmt: skip
def test_a_disk_that_is_full_at_any_point(
    tmp_path: Path, recipe: str, files: Made, clean: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    to = tmp_path / "a.zarr"
    monkeypatch.setattr(FullDisk, "at", at)
    with monkeypatch.context() as patch:
        patch.setattr("cube.store.urls.LocalStore", FullDisk)
        result = convert(recipe, files, to)
    assert result.stdout == ""
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    if at.startswith("a.stac"):
        assert last == f"cube: {tmp_path}/a.stac: the catalog cannot be written: [Errno 28] No space left on device"
    else:
        assert last == f"cube: writing to {to} failed: No space left on device; {SPACE} and run again"
    assert (to / "zarr.json").exists() == (at.startswith(("a.stac", "a.build/report")))
    assert not (tmp_path / at).exists()
    before = {path: path.stat().st_mtime_ns for name in MODALITIES for path in to.glob(f"{name}/c/*/0/0/0")}
    shards = {"a.build/plan.json": 0, "a.zarr/s2/c/1/0/0/0": 4}  # `lc` of the second batch was closed before
    assert len(before) == shards.get(at, 9)
    assert convert(recipe, files, to).exit_code == 0
    after = {path: path.stat().st_mtime_ns for path in before}
    redone = {path for path in before if before[path] != after[path]}
    unfinished = {"a.zarr/s2/c/1/0/0/0": {"1"}, "a.zarr/originals/header/c/2/0/0": {"2"}}
    assert {path.parts[-4] for path in redone} == unfinished.get(at, set())
    pixels, expected = ({key: data for key, data in objects(path).items() if "/c/" in key} for path in (to, clean))
    assert pixels == expected


# Requests that are wrong


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--where", "saison=fall"], "unknown field 'saison'; did you mean 'season'?"),
        (["--where", "season=autumn"], "no season is 'autumn'; known are fall"),
        (["--where", "season=fal"], "no season is 'fal'; did you mean 'fall'?"),
        (["--where", "scene=three"], "scene is a number, 'three' is none"),
        (["--where", "fall"], "cannot read 'fall': expected field, operator and value"),
        (["--where", "scene=99"], "no patch of"),
        (["--profile", "fats"], "layout.profile: 'fats' is not a profile; did you mean 'fast'?"),
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["--incomplete", "ignore"], "Invalid value for '--incomplete'"),
        (["--volume", "11"], "No such option"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "build"])
def test_choices_that_cannot_be(tmp_path: Path, recipe: str, files: Made, verb: str, more: list[str], message: str) -> None:
    to = ["--to", tmp_path / "a.zarr"] if verb == "build" else []
    result = cube(verb, recipe, "--source", files.folder, *to, *more)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("layout: {tile: 16", "layout: {tlie: 16", "line 4: layout.tlie: unknown key 'tlie'; did you mean 'tile'?"),
        ("tile: 16", "tile: 12", "line 4: layout.tile: 12 does not divide patch.size 32"),
        ("tile: 16", "tile: 16, tile: 16", "line 4: the key 'tile' stands on line 4 already"),
        ("extends: sen12ms", "extends: sen12mx", "line 1: extends: no recipe is called 'sen12mx'; did you mean 'sen12ms'?"),
        ("shard: 4", "shard: 4, memory_limit_mb: 64", "a worker would need"),
        ("shard: 4", "shard: 65536", "the recipe allows 400 MB: lower layout.shard or raise layout.memory_limit_mb"),
    ],
)
def test_recipes_that_cannot_be(tmp_path: Path, recipe: str, files: Made, old: str, new: str, message: str) -> None:
    path = Path(recipe)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    result = convert(recipe, files, tmp_path / "a.zarr")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.glob("a.*"))


def test_a_recipe_of_another_data_set(tmp_path: Path, files: Made) -> None:
    result = convert("sen1-2", files, tmp_path / "a.zarr")
    assert result.exit_code == 2
    assert "no file fits the pattern of recipe 'sen1-2' (36 have other names, 0 are ignored)" in result.stderr


def test_nothing_is_left_of_files_that_are_all_wrong(tmp_path: Path, recipe: str, files: Made) -> None:
    for name in files.ids:
        files.files[name, "s1"].unlink()
    result = convert(recipe, files, tmp_path / "a.zarr")
    assert result.exit_code == 1
    assert "no patch of" in result.stderr
    assert "lacks s1" in result.stderr
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.parametrize("verb", ["verify", "info"])
def test_what_is_no_cube(tmp_path: Path, recipe: str, files: Made, verb: str) -> None:
    nothing = cube(verb, tmp_path / "a.zarr")
    assert nothing.exit_code == 2
    assert "there is no cube" in nothing.stderr
    damage_directory(path_of(files, "s2"))
    assert convert(recipe, files, tmp_path / "a.zarr", "--incomplete", "fail", "--sample", "0").exit_code == 1
    unfinished = cube(verb, tmp_path / "a.zarr")
    assert unfinished.exit_code == 2
    assert "its build is not finished: run the same `cube build` again" in unfinished.stderr
    for fill, name in ((damaged_root, "b.zarr"), (another_group, "c.zarr"), (odd_root, "d.zarr")):
        fill(tmp_path / name)
        result = cube(verb, tmp_path / name)
        assert result.exit_code in (1, 2)
        assert "damaged or not of this package" in result.output + result.stderr


def many_bad(folder: Path) -> Made:
    """Return the files of 60 patches, a third of which have no pixels in Sentinel-2."""
    made = make_patches(folder / "files", [Scene("fall", 3, rows=5, columns=12)])
    for name in made.ids[::3]:
        made.files[name, "s2"].write_bytes(made.files[name, "s2"].read_bytes()[:2000])
    return made


def build_words(made: Made, folder: Path) -> list[str]:
    recipe = write_recipe(folder / "tiny.yaml", shard=10)
    words = ["build", str(recipe), "--source", str(made.folder), "--to", str(folder / "x.zarr"), "--incomplete", "keep"]
    return [*words, "--workers", "0"]


@pytest.mark.parametrize("limit", ["19", "0"])
def test_more_bad_files_than_are_borne_with_stop_a_build_and_lose_nothing(tmp_path: Path, limit: str) -> None:
    made = many_bad(tmp_path)
    words = build_words(made, tmp_path)
    result = CliRunner().invoke(main, [*words, "--max-rejected", limit])
    assert result.exit_code == 1
    assert "too many files are bad: of " in result.stderr
    assert f"{int(limit) + 1 if limit != '0' else 4} files were rejected" in result.stderr
    assert "--max-rejected" in result.stderr
    assert not (tmp_path / "x.zarr" / "zarr.json").exists()
    standing = {path: path.stat().st_mtime_ns for path in (tmp_path / "x.zarr").rglob("s1/c/*/0/0/0")}
    assert standing
    again = CliRunner().invoke(main, [*words, "--max-rejected", "20"])
    assert again.exit_code == 3, again.output
    assert xr.open_zarr(tmp_path / "x.zarr", chunks=None)["present"].values.sum() == 160


def test_some_bad_files_are_borne_with_and_told_by_the_exit_code(tmp_path: Path) -> None:
    made = many_bad(tmp_path)
    words = build_words(made, tmp_path)
    assert CliRunner().invoke(main, words).exit_code == 3  # twenty are always borne with
    assert CliRunner().invoke(main, words).exit_code == 3  # the finished cube is still one without them
    for name in made.ids[::3]:
        made.files[name, "s2"].unlink()
    assert CliRunner().invoke(main, [*words[:-5], str(tmp_path / "y.zarr"), *words[-4:]]).exit_code == 0


@pytest.mark.parametrize("limit", ["-1", "101%", "many", "%", "nan"])
def test_a_limit_of_bad_files_that_is_none(tmp_path: Path, limit: str) -> None:
    words = ["build", "sen12ms", "--source", str(tmp_path), "--to", str(tmp_path / "x.zarr"), "--max-rejected", limit]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "neither a share such as 1% nor a number such as 500" in result.stderr


def test_a_file_found_bad_before_the_build_counts_too(tmp_path: Path) -> None:
    made = make_patches(tmp_path / "files", [SCENE])
    path = made.files[made.ids[3], "s2"]
    path.write_bytes(path.read_bytes()[:2000])
    (path.parent / "stranger.tif").write_bytes(b"x")
    words = build_words(made, tmp_path)
    refused = CliRunner().invoke(main, [*words, "--max-rejected", "0"])
    assert refused.exit_code == 1
    assert "too many files are bad: of 1 read, 1 files were rejected (1 truncated)" in refused.stderr
    assert not (tmp_path / "x.zarr" / "zarr.json").exists()
    assert CliRunner().invoke(main, [*words, "--max-rejected", "1"]).exit_code == 3
