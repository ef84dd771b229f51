"""Listing and pairing: which files make which patch, and which are set aside by name."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import MODALITIES, Made, Scene, make_patches, source_path, write_recipe

from cube.cli.words import published_document, published_text
from cube.errors import RejectedFile, RequestError
from cube.recipes.recipe import Recipe, read_recipe
from cube.source.inventory import Inventory
from cube.source.pairing import pair
from cube.source.rejected import Rejected, rejection
from cube.source.scan import examine, scan
from cube.store.protocol import Entry

ONE = Scene("spring", 7, rows=1, columns=2, first=30)
TWO = Scene("winter", 7, rows=1, columns=1, first=30)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe("sen12ms")


def entries(*scenes: Scene, size: int = 1000) -> list[Entry]:
    return [
        Entry(source_path(scene, number, name), size)
        for scene in scenes
        for number, _, _ in scene.places()
        for name in MODALITIES
    ]


def same(first: Inventory, second: Inventory) -> bool:
    columns = ("patch", "season", "scene", "number", "path", "size")
    plain = ("source", "modalities", "seasons", "rejected", "ignored")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in columns) and all(
        getattr(first, name) == getattr(second, name) for name in plain
    )


def test_files_are_paired_in_the_order_of_season_scene_and_number(recipe: Recipe) -> None:
    scenes = (TWO, Scene("spring", 15, rows=1, columns=1, first=100), ONE)
    inventory = pair(recipe, "somewhere", entries(*scenes))
    assert inventory.patch.tolist() == [
        "ROIs1158_spring_7_p30", "ROIs1158_spring_7_p31", "ROIs1158_spring_15_p100", "ROIs2017_winter_7_p30"
    ]  # fmt: skip
    assert inventory.scene.tolist() == [7, 7, 15, 7]
    assert inventory.number.tolist() == [30, 31, 100, 30]
    assert [inventory.seasons[place] for place in inventory.season] == ["spring", "spring", "spring", "winter"]
    assert inventory.path[3].tolist() == [source_path(TWO, 30, name) for name in MODALITIES]
    assert inventory.complete.all()
    assert inventory.total_bytes == 12 * 1000
    assert not inventory.rejected
    assert inventory.scene_keys() == [("spring", 7), ("spring", 15), ("winter", 7)]


def test_the_order_of_a_listing_does_not_matter(recipe: Recipe) -> None:
    listed = [
        *entries(ONE, TWO),
        Entry("x/ROIs1158_spring_s1_7_p30.tif", 5),
        Entry("ROIs1158_spring/s2_7/ROIs1158_spring_s2_7_p0031.tif", 5),
        Entry("ROIs1158_spring/s1_9/ROIs1158_spring_s1_9_p1.tif", 5),
        Entry("ROIs1158_spring/s2_9/ROIs1158_spring_s2_9_p01.tif", 5),
        Entry("readme.txt", 5),
        Entry("junk.dat", 5),
        Entry("ROIs1158_spring/s1_7/ROIs1158_spring_s1_7_p99.tif", 0),
    ]
    first = pair(recipe, "s", listed)
    for seed in range(10):
        shuffled = random.Random(seed).sample(listed, len(listed))
        assert same(pair(recipe, "s", shuffled), first)


@pytest.mark.parametrize(
    "name",
    [
        "junk.dat",
        "ROIs1158_spring_s1_7_p30.tifff",
        "ROIs1158_spring_s1_7_p30",
        "ROIs1158_spring_s1_7_p30.tif.part",
        "ROIs1158_spring_s3_7_p30.tif",
        "ROIs1868_spring_s1_7_p30.tif",
        "ROIs1158_spring_s1_7_p.tif",
        "ROIs1158_spring_s1_7_p30 (1).tif",
        "ROIs1158_spring_s1_7_p99999999999.tif",
        "ROIs1158_spring_s1_2147483648_p1.tif",
        "ROIs1158_spring_s1_" + "9" * 30 + "_p1.tif",
        "",
    ],
)
def test_other_names_are_rejected_and_named(recipe: Recipe, name: str) -> None:
    inventory = pair(recipe, "s", [*entries(ONE), Entry(f"deep/{name}", 10)])
    assert len(inventory) == 2
    assert inventory.rejected[0].path == f"deep/{name}"
    assert inventory.rejected[0].reason == "wrong name"
    assert "pattern of recipe 'sen12ms'" in inventory.rejected[0].detail
    assert inventory.reasons() == {"wrong name": 1}


@pytest.mark.parametrize(
    "name",
    [
        "a/readme.txt",
        "x.aux.xml",
        "__MACOSX/._a.tif",
        "a/__MACOSX/b",
        "d/.DS_Store",
        "Thumbs.db",
        "a/.ipynb_checkpoints/b.tif",
        "._ROIs1158_spring_s1_7_p30.tif",
        "ROIs1158_spring/s1_7/._ROIs1158_spring_s1_7_p30.tif",
    ],
)
def test_side_files_are_ignored_and_counted(recipe: Recipe, name: str) -> None:
    inventory = pair(recipe, "s", [*entries(ONE), Entry(name, 10)])
    assert (inventory.ignored, inventory.rejected, len(inventory)) == (1, (), 2)


@pytest.mark.parametrize(("size", "reason"), [(0, "empty"), (-1, "unreadable")])
def test_empty_files_and_broken_links_are_rejected(recipe: Recipe, size: int, reason: str) -> None:
    listed = entries(ONE)
    listed[1] = Entry(listed[1].key, size)
    inventory = pair(recipe, "s", listed)
    assert [(item.path, item.reason) for item in inventory.rejected] == [(listed[1].key, reason)]
    assert inventory.complete.tolist() == [False, True]
    assert inventory.size[0].tolist() == [1000, -1, 1000]
    assert inventory.path[0, 1] == ""


def test_a_patch_that_stands_in_both_folder_layouts_is_named_with_both_places(recipe: Recipe) -> None:
    usual = source_path(ONE, 30, "s1")
    other = "ROIs1158_spring_s1/s1_7/ROIs1158_spring_s1_7_p30.tif"
    inventory = pair(recipe, "s", [*entries(ONE), Entry(other, 1000)])
    assert [(item.path, item.reason) for item in inventory.rejected] == [(usual, "duplicate"), (other, "duplicate")]
    assert other in inventory.rejected[0].detail
    assert usual in inventory.rejected[1].detail
    assert inventory.complete.tolist() == [False, True]
    third = pair(recipe, "s", [*entries(ONE), Entry(other, 1000), Entry("a/" + other, 1000)])
    assert third.reasons() == {"duplicate": 3}


def test_both_folder_layouts_give_the_same_patches(recipe: Recipe) -> None:
    split = [
        Entry(entry.key.replace("spring/s", "spring_s1/s").replace("spring/lc", "spring_lc/lc"), 9) for entry in entries(ONE)
    ]
    inventory = pair(recipe, "s", split)
    assert inventory.patch.tolist() == pair(recipe, "s", entries(ONE)).patch.tolist()
    assert inventory.complete.all()
    flat = pair(recipe, "s", [Entry(entry.key.rpartition("/")[2], 9) for entry in entries(ONE, TWO)])
    assert len(flat) == 3


def test_the_same_scene_number_in_two_seasons_is_two_scenes(recipe: Recipe) -> None:
    inventory = pair(recipe, "s", entries(ONE, TWO))
    assert inventory.scene_keys() == [("spring", 7), ("winter", 7)]
    assert not inventory.rejected


def test_published_counts(recipe: Recipe) -> None:
    lines = published_text(recipe, pair(recipe, "s", entries(ONE, TWO)))
    assert lines == [
        "  spring             2 of 40,883 patches in 1 of 56 scenes, 40,881 missing",
        "  summer             0 of 45,753 patches in 0 of 65 scenes, 45,753 missing",
        "  fall               0 of 62,201 patches in 0 of 85 scenes, 62,201 missing",
        "  winter             1 of 31,825 patches in 1 of 46 scenes, 31,824 missing",
    ]
    unknown = read_recipe("sen12ms-cr")
    listed = [Entry("ROIs1158_spring_s2_cloudy_3_p1.tif", 5), Entry("ROIs1158_spring_s1_3_p1.tif", 5)]
    assert published_text(unknown, pair(unknown, "s", listed)) == ["  spring             1 patches in 1 scene"]


def test_published_counts_are_those_of_the_whole_source_whatever_is_chosen(recipe: Recipe) -> None:
    whole = pair(recipe, "s", entries(ONE, TWO))
    chosen = whole.take(np.array([0]))
    assert published_document(recipe, chosen) == published_document(recipe, whole)
    assert published_document(recipe, whole)["spring"] == {"scenes": 1, "of_scenes": 56, "patches": 2, "of_patches": 40883}
    lines = published_text(recipe, chosen)
    assert lines[0] == "  spring             2 of 40,883 patches in 1 of 56 scenes, 40,881 missing; 1 to be converted"
    assert lines[3] == "  winter             1 of 31,825 patches in 1 of 46 scenes, 31,824 missing; 0 to be converted"


def test_an_inventory_as_a_table(recipe: Recipe) -> None:
    inventory = pair(recipe, "s", entries(ONE, TWO)[1:])
    table = pq.read_table(pa.BufferReader(inventory.parquet()))
    assert table.column_names == [
        "patch", "season", "scene", "number", "s1_path", "s1_bytes", "s2_path", "s2_bytes", "lc_path", "lc_bytes"
    ]  # fmt: skip
    assert table["patch"].to_pylist() == inventory.patch.tolist()
    assert table["season"].to_pylist() == ["spring", "spring", "winter"]
    assert table["s1_bytes"].to_pylist() == [-1, 1000, 1000]
    assert table["s1_path"].to_pylist() == inventory.path[:, 0].tolist()


def test_a_token_within_another_is_told_apart() -> None:
    recipe = read_recipe("sen12ms-cr")
    names = [f"ROIs1158_spring_{name}_3_p1.tif" for name in ("s1", "s2", "s2_cloudy")]
    inventory = pair(recipe, "s", [Entry(name, 5) for name in names])
    assert inventory.modalities == ("s1", "s2", "s2_cloudy")
    assert inventory.path.tolist() == [names]


def test_a_source_without_any_such_file(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(RequestError, match="nowhere: no such folder"):
        scan(recipe, str(tmp_path / "nowhere"))
    with pytest.raises(RequestError, match="no file fits the pattern of recipe 'sen12ms'"):
        scan(recipe, str(tmp_path))
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(RequestError, match=r"1 have other names, 0 are ignored"):
        scan(recipe, str(tmp_path))


def test_scanning_lists_links_and_names_broken_ones(tmp_path: Path, made: Made, tiny_recipe: Path) -> None:
    folder = tmp_path / "files"
    for (name, modality), path in made.files.items():
        if made.scenes[name].number == 15:
            link = folder / path.relative_to(made.folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path if (modality, made.numbers[name]) != ("s2", 2) else tmp_path / "gone")
    inventory = scan(read_recipe(str(tiny_recipe)), str(folder))
    assert len(inventory) == 6
    assert [(os.path.basename(item.path), item.reason) for item in inventory.rejected] == [
        ("ROIs1158_spring_s2_15_p2.tif", "unreadable")
    ]
    assert inventory.complete.tolist() == [True, True, False, True, True, True]


def test_only_files_of_an_odd_size_are_read(tmp_path: Path) -> None:
    made = make_patches(tmp_path / "files", [Scene("fall", 3, rows=3, columns=4)])
    recipe = read_recipe(str(write_recipe(tmp_path / "tiny.yaml")))
    cut, other = made.files[made.ids[2], "s2"], made.files[made.ids[5], "s1"]
    cut.write_bytes(cut.read_bytes()[:-100])
    other.write_bytes(other.read_bytes() + b"more")
    hidden = made.files[made.ids[7], "lc"]
    hidden.write_bytes(bytes(hidden.stat().st_size))
    inventory = examine(recipe, scan(recipe, str(made.folder)))
    assert [(item.path, item.reason) for item in inventory.rejected] == [(str(cut.relative_to(made.folder)), "truncated")]
    assert (inventory.size[2] < 0).tolist() == [False, True, False]
    assert inventory.path[2, 1] == ""


@pytest.mark.parametrize("alive", [True, False])
def test_an_odd_file_of_a_source_that_is_gone_is_not_called_bad(tmp_path: Path, alive: bool) -> None:
    made = make_patches(tmp_path / "files", [Scene("fall", 3, rows=3, columns=4)])
    recipe = read_recipe(str(write_recipe(tmp_path / "tiny.yaml")))
    odd = made.files[made.ids[2], "s2"]
    odd.write_bytes(odd.read_bytes() + b"more")
    inventory = scan(recipe, str(made.folder))
    if alive:
        odd.unlink()
        assert [item.reason for item in examine(recipe, inventory).rejected] == ["unreadable"]
    else:
        made.folder.rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            examine(recipe, inventory)


def test_nothing_is_read_where_sizes_vary(tmp_path: Path) -> None:
    made = make_patches(tmp_path / "files", [Scene("fall", 3, rows=2, columns=2)])
    recipe = read_recipe(str(write_recipe(tmp_path / "tiny.yaml")))
    for number, path in enumerate(made.files.values()):
        path.write_bytes(b"x" * (number + 1))
    assert examine(recipe, scan(recipe, str(made.folder))).rejected == ()


def test_reasons_of_files_that_cannot_be_opened() -> None:
    assert rejection("a", RejectedFile("empty", "no bytes")) == Rejected("a", "empty", "no bytes")
    assert rejection("a", FileNotFoundError(2, "No such file")) == Rejected("a", "unreadable", "No such file")
    assert rejection("a", OSError("broken")).detail == "broken"
