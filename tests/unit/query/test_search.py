"""Searches in the table beside a cube: the same patches that the readers choose."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from making import Built, Made, survey

import cube.catalog.patch_table
import cube.store.parquet
from cube import Samples, open_cube
from cube.catalog.describe import describe
from cube.catalog.patch_items import items, rendered, rows_of
from cube.catalog.patch_table import parquet, patch_table
from cube.errors import CorruptError, FilterError, RequestError
from cube.format.target import Target, target_of
from cube.query.search import SUMMARY, box_of, cube_url, find_patch, search
from cube.recipes.recipe import read_recipe
from cube.survey.summary import PatchClasses

WORLD = (-180.0, -90.0, 180.0, 90.0)
FILTERS = [
    "season=spring",
    "season=spring,summer and split=train",
    "split!=train",
    "scene>1",
    "scene=15 and number<=32",
    "patch!=ROIs1158_spring_1_p30",
    "class:Urban>0.05",
    "class:igbp:urban>=0.1 and season=spring",
    "class:LCCS_LU:urban_and_built_up_lands<0.5",
    "class:Barren=0",
    "lat>0 and lon<=20",
    "epsg=32632",
    "epsg!=32632",
    "lat is null",
    "lat is not null and not class is null",
    "class=urban*",
    "class!=urban_and_built_up_lands",
    'class="Urban and Built-up Lands"',
    "nan_count:s1>0",
    "nan_count:s1=0 and saturated_count:s2 between 1 and 9",
    "present:lc=true and not zero_count:s1=0",
    "start_datetime>2017-05-01",
    "end_datetime between 2017-01-01 and 2017-07-01",
    "scene not between 2 and 14",
]


def found(target: Target, where: str | None = None, bbox: Any = None) -> list[str]:
    return list(search(target, where, bbox).table["id"].to_pylist())


@pytest.fixture
def in_small_groups(tiny_published: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """The same table in row groups of four, read from its end in small parts."""
    monkeypatch.setattr(cube.store.parquet, "_TAIL", 1024)
    monkeypatch.setattr(cube.store.parquet, "_GAP", 16)
    monkeypatch.setattr(cube.catalog.patch_table, "ROW_GROUP", 4)
    table = pq.read_table(io.BytesIO(tiny_published.stac.read("items.parquet")))
    (tmp_path / "tiny.stac").mkdir()
    (tmp_path / "tiny.stac" / "items.parquet").write_bytes(parquet(table))
    return target_of(str(tmp_path / "tiny.zarr"))


@pytest.mark.parametrize("where", FILTERS)
def test_a_search_finds_what_the_readers_choose(tiny_published: Target, in_small_groups: Target, where: str) -> None:
    chosen = open_cube(tiny_published.url, where=where)["patch"].values.tolist()
    assert found(tiny_published, where) == chosen
    assert found(in_small_groups, where) == chosen
    if chosen:
        assert Samples(tiny_published.url, where=where, incomplete="keep").ids.tolist() == chosen


def test_boxes_find_what_the_readers_choose(tiny_published: Target, in_small_groups: Target) -> None:
    lon, lat = (xr.open_zarr(tiny_published.url, chunks=None)[name].values for name in ("lon", "lat"))
    boxes = [WORLD, (lon[3] - 1e-3, lat[3] - 1e-3, lon[3] + 1e-3, lat[3] + 1e-3), (170.0, -90.0, -170.0, 90.0)]
    numbers = []
    for box in boxes:
        chosen = open_cube(tiny_published.url, bbox=box)["patch"].values.tolist()
        assert found(tiny_published, bbox=box) == found(in_small_groups, bbox=box) == chosen
        numbers.append(len(chosen))
    assert numbers[0] > numbers[1] > numbers[2] == 0


def test_row_groups_that_cannot_hold_a_match_are_not_read(in_small_groups: Target) -> None:
    everything = search(in_small_groups, "class:Urban>=0", columns=SUMMARY)
    one_scene = search(in_small_groups, "class:Urban>=0 and season=summer", columns=SUMMARY)
    assert one_scene.patches < everything.patches
    assert one_scene.bytes_read < everything.bytes_read
    assert one_scene.requests < everything.requests


def test_only_the_columns_asked_for_are_given(tiny_published: Target) -> None:
    got = search(tiny_published, "season=spring", columns=("id", "patchcube:scene", "no such column"), limit=2)
    assert got.table.column_names == ["id", "patchcube:scene"]
    assert len(got.table) == 2
    assert got.patches > 2


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("class:Evergreen>0.1", "may be class:IGBP:evergreen_needleleaf_forests, class:IGBP:evergreen_broadleaf_forests"),
        ("class:Urbane>0.1", "did you mean 'class:urban"),
        ("class:ESRI:Urban>0.1", "no class is 'class:ESRI:Urban'"),
        ("class:Urban>much", "is a number"),
        ("season=sprang", "did you mean 'spring'"),
        ("season<spring", "is a text"),
        ("sesaon=spring", "did you mean 'season'"),
        ("patch=ROIs1158_spring_1_p3000", "did you mean 'ROIs1158_spring_1_p3"),
        ("transform=1", "unknown field"),
    ],
)
def test_refusals_are_those_of_the_readers(tiny_published: Target, in_small_groups: Target, where: str, message: str) -> None:
    for target in (tiny_published, in_small_groups):
        with pytest.raises(FilterError) as caught:
            search(target, where)
        assert message in str(caught.value)
    if "transform" not in where:
        with pytest.raises(FilterError) as caught:
            open_cube(tiny_published.url, where=where)
        assert message in str(caught.value)


def test_a_cube_without_a_catalog_cannot_be_searched_by_class(tiny_cube: Built) -> None:
    with pytest.raises(RequestError, match="need the catalog beside the cube"):
        search(tiny_cube.target)
    with pytest.raises(RequestError, match="need the catalog beside the cube"):
        open_cube(tiny_cube.url, where="class:Urban>0.1")


def test_the_table_of_another_cube_is_not_believed(tiny_published: Target, tmp_path: Path) -> None:
    for store, name in ((tiny_published.cube, "tiny.zarr"), (tiny_published.stac, "tiny.stac")):
        for entry in store.list():
            (tmp_path / name / entry.key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / entry.key).write_bytes(store.read(entry.key))
    table = pq.read_table(tmp_path / "tiny.stac" / "items.parquet")
    facts = json.loads(table.schema.metadata[b"patchcube"]) | {"pixels_digest": "blake3:of another"}
    table = table.replace_schema_metadata({**table.schema.metadata, b"patchcube": json.dumps(facts)})
    (tmp_path / "tiny.stac" / "items.parquet").write_bytes(parquet(table))
    with pytest.raises(RequestError, match="is of another cube"):
        open_cube(str(tmp_path / "tiny.zarr"), where="class:Urban>0.1")


def test_some_other_table_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "x.stac").mkdir()
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "x.stac" / "items.parquet")
    with pytest.raises(CorruptError, match="no table of patches"):
        search(target_of(str(tmp_path / "x.zarr")))


def test_a_cube_and_its_catalog_are_the_same_place() -> None:
    for url in ("a/x.zarr", "a/x.stac", "a/x.stac/", "a/x.stac/collection.json"):
        assert cube_url(url).rstrip("/") == "a/x.zarr"
    assert box_of("5,45,15,55") == box_of(" 5 45  15, 55 ") == (5.0, 45.0, 15.0, 55.0)
    for wrong in ("", "1,2,3", "1,2,3,four"):
        with pytest.raises(RequestError, match="is no box"):
            box_of(wrong)


def test_the_table_says_what_the_cube_says(tiny_published: Target, made: Made) -> None:
    dataset = xr.open_zarr(tiny_published.url, chunks=None)
    table = search(tiny_published, columns=None).table
    assert table["id"].to_pylist() == dataset["patch"].values.tolist()
    assert table["patchcube:index"].to_pylist() == list(range(len(table)))
    for name in ("season", "scene", "number", "split"):
        assert table[f"patchcube:{name}"].to_pylist() == dataset[name].values.tolist()
    for place, name in enumerate(dataset["modality"].values):
        assert [row[name] for row in table["patchcube:present"].to_pylist()] == dataset["present"].values[:, place].tolist()
        assert [row[name] for row in table["patchcube:nan_count"].to_pylist()] == dataset["nan_count"].values[:, place].tolist()
    codes = dataset["IGBP_code"].values.tolist()
    words = dataset["IGBP_code"].attrs["flag_meanings"].split()
    for code, word in zip(codes, words, strict=True):
        shares = table[f"class:IGBP:{word}"].to_numpy()
        for row, patch in enumerate(made.ids):
            pixels = made.pixels.get((patch, "lc"))
            assert np.isnan(shares[row]) if pixels is None else np.isclose(shares[row], (pixels[0] == code).mean())
    most = [
        max(zip(row, words, strict=True))[0]
        for row in zip(*(table[f"class:IGBP:{w}"].to_pylist() for w in words), strict=True)
        if row[0] is not None
    ]
    known = [(row, word) for row, word in enumerate(table["patchcube:class"].to_pylist()) if word is not None]
    assert [table[f"class:IGBP:{word}"][row].as_py() for row, word in known] == most


def test_items_are_whole_and_their_hrefs_lead_from_anywhere(tiny_published: Target) -> None:
    found = search(tiny_published, "season=summer", columns=None)
    made = list(items(found.table, tiny_published))
    assert [item["id"] for item in made] == found.table["id"].to_pylist()
    for item in made:
        assert item["properties"]["datetime"] is None
        assert item["assets"]["zarr"]["href"] == tiny_published.url
        assert {link["rel"]: link["href"] for link in item["links"]} == {
            "collection": f"{tiny_published.stac.url}/collection.json",
            "store": tiny_published.url,
        }


def test_a_patch_is_found_by_its_id(tiny_published: Target, made: Made) -> None:
    got = find_patch(tiny_published, made.ids[5])
    assert got.table["id"].to_pylist() == [made.ids[5]]
    with pytest.raises(FilterError, match="did you mean"):
        find_patch(tiny_published, f"{made.ids[5]}0")


def test_forms_of_output(tiny_published: Target, tmp_path: Path) -> None:
    whole = search(tiny_published, "season=summer", columns=None).table
    ids = whole["id"].to_pylist()
    assert rendered(whole.select(["id"]), tiny_published, "ids").decode().split() == ids
    heading, *lines = (
        rendered(search(tiny_published, "season=summer", columns=SUMMARY).table, tiny_published, "table").decode().splitlines()
    )
    assert heading.split() == ["id", "season", "scene", "split", "class", "lat", "lon"]
    assert [line.split()[0] for line in lines] == ids
    features = json.loads(rendered(whole, tiny_published, "geojson"))
    assert features == rows_of(whole, tiny_published, "geojson")
    (tmp_path / "some.parquet").write_bytes(rendered(whole, tiny_published, "parquet"))
    again = pq.read_table(tmp_path / "some.parquet")
    assert again["id"].to_pylist() == ids
    assert again["assets"][0].as_py()["zarr"]["href"] == tiny_published.url
    assert json.loads(again.schema.metadata[b"geo"])["primary_column"] == "geometry"
    assert rendered(whole.slice(0, 0), tiny_published, "table").decode().count("\n") == 1
    pq.read_table(io.BytesIO(rendered(whole.slice(0, 0), tiny_published, "parquet")))


def test_equal_cubes_give_equal_tables_to_the_byte(tiny_published: Target, tiny_cube: Built) -> None:
    report, found = survey(tiny_cube)
    again = describe(tiny_cube.target, tiny_cube.plan.recipe, report, found)
    assert again.files["items.parquet"] == tiny_published.stac.read("items.parquet")


def test_patches_without_a_place_have_a_table_too(tmp_path: Path) -> None:
    recipe, rows = read_recipe("sen1-2"), 3
    counts = np.zeros((rows, len(recipe.modalities)), int)
    labels = {
        "patch": np.array(["a", "b", "c"]),
        "season": np.array(["spring", "spring", "fall"]),
        "scene": np.arange(rows),
        "number": np.arange(rows),
        "present": counts == 0,
        **dict.fromkeys(("nan_count", "zero_count", "saturated_count"), counts),
    }
    table = patch_table(recipe, labels, {}, href="../x.zarr", digest="blake3:0")
    (tmp_path / "x.stac").mkdir()
    (tmp_path / "x.stac" / "items.parquet").write_bytes(parquet(table))
    target = target_of(str(tmp_path / "x.zarr"))
    assert found(target, "season=spring") == ["a", "b"]
    with pytest.raises(RequestError, match="no place on Earth"):
        search(target, bbox=WORLD)
    with pytest.raises(FilterError, match="no class is 'class:Urban'"):
        search(target, "class:Urban>0.1")
    with pytest.raises(FilterError, match="unknown field 'lat'"):
        search(target, "lat>3")
    (first, *_) = items(search(target, columns=None).table, target)
    assert first["geometry"] is None
    assert "bbox" not in first


def test_gaps_have_no_classes() -> None:
    recipe = read_recipe("sen12ms")
    codes = tuple(item.value for item in recipe.legends["IGBP"])
    shares = np.zeros((3, len(codes)), np.float32)
    shares[0, 12], shares[0, 0], shares[2] = 0.75, 0.25, np.nan
    zone = {"epsg": np.array([32632] * 3), "transform": np.array([[10.0, 0, 6e5, 0, -10.0, 5.3e6]] * 3)}
    counts = np.zeros((3, 3), int)
    labels = {
        "patch": np.array(["a", "b", "c"]),
        "season": np.array(["spring"] * 3),
        "scene": np.arange(3),
        "number": np.arange(3),
        "split": np.array(["train"] * 3),
        "lon": np.array([10.0] * 3),
        "lat": np.array([47.0] * 3),
        "present": counts == 0,
        **dict.fromkeys(("nan_count", "zero_count", "saturated_count"), counts),
        **zone,
    }
    table = patch_table(recipe, labels, {"IGBP": PatchClasses(codes, shares)}, href="../x.zarr", digest="blake3:0")
    assert table["patchcube:class"].to_pylist() == ["urban_and_built_up_lands", None, None]
    assert table["class:IGBP:urban_and_built_up_lands"].to_pylist() == [0.75, 0.0, None]
