"""Data sets that are none of the first three, by recipe alone: in true names and shapes, built, verified, opened, fed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner
from making import write_tif
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

import cube
from cube.cli.main import main
from cube.convert.deciding import make_plan
from cube.errors import RecipeError, RequestError
from cube.format.target import target_of
from cube.query.search import search
from cube.recipes.recipe import Recipe, read_recipe
from cube.source.inventory import Inventory
from cube.source.names import recognised
from cube.source.pairing import pair
from cube.source.scan import scan
from cube.source.stacks import parted
from cube.store.protocol import Entry

SEED = 1970
LAND_USES = ("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial")
LAND_USES += ("Pasture", "PermanentCrop", "Residential", "River", "SeaLake")
TERRAINS = ("agri", "barrenland", "grassland", "urban")
MADE = {
    "eurosat": [(f"EuroSATallBands/{use}/{use}_{number}.tif", "s2") for use in LAND_USES[:3] for number in (1, 2, 10)],
    "eurosat-rgb": [(f"EuroSAT_RGB/{use}/{use}_{number}.jpg", "rgb") for use in LAND_USES[:3] for number in (1, 2, 10)],
    "sen1-2-terrain": [
        (f"v_2/{terrain}/{name}/ROIs1868_summer_{name}_59_p{number}.png", name)
        for terrain, number in (("agri", 10), ("agri", 9), ("urban", 11))
        for name in ("s1", "s2")
    ],
    "dfc2020": [
        (f"ROIs0000_{part}/{name}_{folder}/ROIs0000_{part}_{name}_0_p{number}.tif", name)
        for part, folder in (("validation", "validation"), ("test", "0"))
        for number in (0, 1)
        for name in ("s1", "s2", "dfc", "lc")
    ],
    "sen12ms-cr-ts": [
        (
            f"ROIs1970/20/{name.upper()}/{image}/{name}_ROIs1970_20_ImgNo_{image}_2018-0{image + 1}-{day}_patch_{number}.tif",
            name,
        )
        for number in (3, 12)
        for image in (0, 1)
        for name, day in (("s1", "04"), ("s2", "11"))
    ],
}
"""Recipe → paths as published, below a folder, and their modality."""
MADE["38-cloud"] = [
    (f"38-Cloud_{part}/{split}_{band}/{band}_patch_{number}_1_by_{number}_LC08_L1TP_002053_20160520_20170324_01_T1.TIF", kind)
    for part, split in (("training", "train"), ("test", "test"))
    for number in (1, 10)
    for band, kind in (("red", "l8"), ("green", "l8"), ("blue", "l8"), ("nir", "l8"), ("gt", "clouds"))
]
PUBLISHED = {"eurosat": 27_000, "sen1-2-terrain": 16_000, "dfc2020": 6_114, "38-cloud": 17_601}


def write(recipe: Recipe, folder: Path, path: str, name: str, rng: np.random.Generator) -> np.ndarray:
    """Write one file of a data set as its recipe says, and return its pixels (band, y, x)."""
    known = recipe.modalities.get(name)
    size, bands, dtype = recipe.patch.size, len(known.bands) if known else 4, known.dtype if known else "uint8"
    bands = 1 if known and known.one_file_per_band else bands
    most = 10 if name == "dfc" else 255 if dtype == "uint8" else 4000
    pixels = rng.integers(1, most + 1, (bands, size, size)).astype(dtype)
    to = folder / path
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.endswith((".png", ".jpg")):
        Image.fromarray(pixels[0] if bands == 1 else pixels.transpose(1, 2, 0)).save(to)
        if path.endswith(".jpg"):
            with pytest.warns(NotGeoreferencedWarning), rasterio.open(to) as image:
                pixels = image.read()
    elif recipe.source.georeference == "none":
        with pytest.warns(NotGeoreferencedWarning):
            write_tif(to, pixels, crs=None, transform=None)
    else:
        number = int(path.rpartition("_")[2].removesuffix(".tif").lstrip("p"))
        write_tif(to, pixels, crs="EPSG:32632", transform=Affine(10, 0, 600000 + number * size * 10, 0, -10, 5400000))
    return pixels


@pytest.mark.parametrize("name", MADE)
def test_a_data_set_is_built_verified_opened_and_fed(tmp_path: Path, name: str) -> None:
    recipe, rng = read_recipe(name), np.random.default_rng(SEED)
    pixels = {path: write(recipe, tmp_path / "files", path, kind, rng) for path, kind in MADE[name]}
    kept = {path: kind for path, kind in MADE[name] if kind in recipe.modalities}
    assert recognised("x", kept) == name
    built = cube.build(name, tmp_path / "files", tmp_path / "x.zarr")
    assert built.report.passed
    assert built.rejected == []
    opened = xr.open_zarr(tmp_path / "x.zarr", chunks=None)
    images = len(kept) // len(recipe.files)
    assert opened.sizes["patch"] == images
    originals = xr.open_zarr(tmp_path / "x.zarr", group="originals", chunks=None)["path"].to_numpy()
    for patch in range(images):
        for place, kind in enumerate(recipe.modalities):
            path = bytes(originals[patch, place]).rstrip(b"\0").decode()
            image = np.concatenate([pixels[part] for part in parted(path)])
            np.testing.assert_array_equal(opened[kind][patch].to_numpy(), image)
    samples = cube.Samples(tmp_path / "x.zarr")
    batch = next(iter(cube.Batches(samples, batch_size=2)))
    for kind, modality in recipe.modalities.items():
        assert batch[kind].shape == (2, len(modality.bands), recipe.patch.size, recipe.patch.size)


def names_at_full_count(name: str) -> Iterator[Entry]:
    """Yield the files of a data set as published, with sizes such as they may have."""
    if name == "eurosat":
        paths = (f"{use}/{use}_{number}.tif" for use in LAND_USES for number in range(1, 2701))
    elif name == "sen1-2-terrain":
        paths = (
            f"v_2/{terrain}/{kind}/ROIs1970_fall_{kind}_{place}_p{number}.png"
            for place, terrain in enumerate(TERRAINS)
            for number in range(4000)
            for kind in ("s1", "s2")
        )
    elif name == "38-cloud":
        paths = (
            f"38-Cloud_{part}/{part}_{band}/{band}_patch_{number}_1_by_1_LC08_L1TP_002053_20160520_20170324_01_T1.TIF"
            for part, count in (("train", 8_400), ("test", 9_201))
            for number in range(count)
            for band in (["red", "green", "blue", "nir"] + ["gt"] * (part == "train"))
        )
    elif name == "dfc2020":
        paths = (
            f"ROIs0000_{part}/{kind}_0/ROIs0000_{part}_{kind}_0_p{number}.tif"
            for part, count in (("validation", 986), ("test", 5128))
            for number in range(count)
            for kind in ("s1", "s2", "dfc")
        )
    else:
        paths = (
            f"{place}/{kind}_ROIs1970_{place}_ImgNo_{image}_2018-01-{image % 28 + 1:02}_patch_{number}.tif"
            for place in range(53)
            for number in range(302)
            for image in range(30)
            for kind in ("s1", "s2")
        )
    return (Entry(path, 60_000) for path in paths)


def plan_of(name: str) -> tuple[Inventory, int]:
    recipe = read_recipe(name)
    inventory = pair(recipe, "x", names_at_full_count(name))
    return inventory, make_plan(recipe, inventory, incomplete=recipe.source.incomplete, software={}).patches


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers_are_planned(name: str) -> None:
    inventory, patches = plan_of(name)
    assert patches == PUBLISHED[name]
    assert inventory.rejected == ()


@pytest.mark.judges
def test_a_long_series_is_planned() -> None:
    _, patches = plan_of("sen12ms-cr-ts")
    assert patches == 53 * 302 * 30


def test_labels_choose_and_group(tmp_path: Path) -> None:
    recipe, rng = read_recipe("sen12ms-cr-ts"), np.random.default_rng(SEED)
    for path, kind in MADE["sen12ms-cr-ts"]:
        write(recipe, tmp_path / "files", path, kind, rng)
    cube.build("sen12ms-cr-ts", tmp_path / "files", tmp_path / "x.zarr", where="s2_day<2018-03-01")
    lazy = xr.open_zarr(tmp_path / "x.zarr", chunks=None)
    assert lazy.s1_day.dtype == lazy.s2_day.dtype == "datetime64[ns]"
    days = np.array(["2018-01-11", "2018-02-11"] * 2, "datetime64[ns]")
    np.testing.assert_array_equal(lazy.s2_day, days)
    assert lazy.image.groupby("number").count().to_dict()["data"] == [2, 2]
    chosen = cube.open_cube(tmp_path / "x.zarr", where="s2_day>=2018-02-01 and number=3")
    assert chosen.patch.values.tolist() == ["ROIs1970_20_p3_t1"]
    np.testing.assert_array_equal(chosen.s2_day, days[1:2])
    assert len(cube.Samples(tmp_path / "x.zarr", where="image=0")) == 2
    assert search(target_of(str(tmp_path / "x.zarr")), "s1_day=2018-02-04").table["id"].to_pylist() == [
        "ROIs1970_20_p3_t1",
        "ROIs1970_20_p12_t1",
    ]
    facts = json.loads(CliRunner().invoke(main, ["info", str(tmp_path / "x.zarr"), "--json"]).output)["labels"]
    assert facts["s2_day"] == {"first": "2018-01-11", "last": "2018-02-11"}
    assert facts["image"] == {"first": 0, "last": 1}
    with pytest.raises(RequestError, match="s2_day is a date"):
        cube.open_cube(tmp_path / "x.zarr", where="s2_day=soon")


# What names tell

LABELLED = """
format: 2
name: labelled
title: Labelled
catalog: own
source:
  match: path
  pattern: '(?P<kind>[a-z]+)/(?P<modality>a|b)_(?P<name>[a-z0-9]+)(?:_(?P<day>[0-9-]+))?(?:_w(?P<weight>[a-z0-9.]+))?\\.png'
  georeference: none
  incomplete: keep
patch: {id: "{name}", id_length: 16, size: 16}
period: {start: 2020-01-01, end: 2020-12-31}
labels:
  kind: {type: class, values: [north, south]}
  day: {type: date}
  weight: {type: number, units: kg}
modalities:
  a: {token: a, title: A, dtype: uint8, fill: 0, units: "1", typical_ratio: 2, bands: [{name: grey}]}
  b: {token: b, title: B, dtype: uint8, fill: 0, units: "1", typical_ratio: 2, bands: [{name: grey}]}
layout:
  tile: 16
  shard: 4
  labels: 64
  header_bytes: 512
  path_bytes: 64
  memory_limit_mb: 400
  profile: plain
  profiles: {plain: {a: zstd-1, b: zstd-1}}
"""


def labelled(tmp_path: Path, *paths: str) -> Inventory:
    (tmp_path / "labelled.yaml").write_text(LABELLED)
    return pair(read_recipe(str(tmp_path / "labelled.yaml")), "x", [Entry(path, 100) for path in paths])


def test_what_one_file_tells_holds_for_its_patch(tmp_path: Path) -> None:
    found = labelled(
        tmp_path, "north/a_x1_2020-05-01_w2.5.png", "north/b_x1.png", "south/a_x10_2020-06-01.png", "south/b_x9_2020-06-02.png"
    )
    assert found.patch.tolist() == ["x1", "x9", "x10"]
    assert found.number.tolist() == [0, 1, 2]
    assert found.labels["kind"].tolist() == ["north", "south", "south"]
    np.testing.assert_array_equal(found.labels["weight"], [2.5, np.nan, np.nan])
    assert found.labels["day"].tolist() == [7426, 7458, 7457]  # days since 2000


@pytest.mark.parametrize(
    ("paths", "reason", "said"),
    [
        (["east/a_x1_2020-05-01.png"], "unknown label", "kind 'east' is none of north, south"),
        (["north/a_x1_2020-13-01.png"], "unknown label", "day '2020-13-01' is no date such as 2000-01-01"),
        (["north/a_x1_2020-05-01_wheavy.png"], "unknown label", "weight 'heavy' is no number"),
        (["north/a_x1_2020-05-01.png", "south/b_x1.png"], "different labels", "south/b_x1.png tells kind south, others north"),
    ],
)
def test_what_is_no_label_is_rejected(tmp_path: Path, paths: list[str], reason: str, said: str) -> None:
    found = labelled(tmp_path, *paths)
    assert len(found) == 0
    assert [(item.reason, item.detail) for item in found.rejected] == [(reason, said)]


def test_a_patch_may_have_no_day(tmp_path: Path) -> None:
    recipe = LABELLED.replace("incomplete: keep", "incomplete: keep")
    (tmp_path / "labelled.yaml").write_text(recipe)
    for name in ("a_x1_2020-05-01", "a_x2"):
        path = tmp_path / "files" / "north" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), 7).save(path)
    built = cube.build(tmp_path / "labelled.yaml", tmp_path / "files", tmp_path / "x.zarr")
    assert built.report.passed
    days = np.array(["2020-05-01", "NaT"], "datetime64[ns]")
    for opened in (xr.open_zarr(tmp_path / "x.zarr", chunks=None), cube.open_cube(tmp_path / "x.zarr")):
        np.testing.assert_array_equal(opened.day, days)
    assert cube.open_cube(tmp_path / "x.zarr", where="day<2021-01-01").patch.values.tolist() == ["x1"]
    assert cube.open_cube(tmp_path / "x.zarr", where="day is null").patch.values.tolist() == ["x2"]
    table = pq.read_table(tmp_path / "x.stac" / "items.parquet")
    assert table["patchcube:day"].to_pylist() == [days[0].astype("datetime64[D]").item(), None]


# What tables tell

TOLD = """
  height: {type: number, table: facts.csv, key: name, units: m}
  owner: {table: facts.csv, key: name, column: who}
  split: {type: class, values: [train, test], lists: {train: lists/train.txt, test: lists/test.txt}}
"""


def told(folder: Path, facts: str, train: str = "x1\nx2", recipe: str = TOLD) -> Inventory:
    """Pair four patches, x1 to x4, of which a table and two lists tell more."""
    (folder / "labelled.yaml").write_text(LABELLED.replace("  weight: {type: number, units: kg}\n", recipe.lstrip("\n")))
    files = folder / "files"
    for number in (1, 2, 3, 4):
        path = files / "north" / f"a_x{number}_2020-05-0{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), number).save(path)
    (files / "lists").mkdir()
    (files / "lists" / "train.txt").write_text(train)
    (files / "lists" / "test.txt").write_bytes(b"\xef\xbb\xbfa_x3_2020-05-03.png\r\nx4\r\n")
    if facts:
        (files / "facts.csv").write_text(facts)
    return scan(read_recipe(str(folder / "labelled.yaml")), str(files))


def test_labels_come_from_tables_and_lists(tmp_path: Path) -> None:
    found = told(tmp_path, "name,who,height,more\na_x1_2020-05-01,Ann,12.5,\nx2,,,7\nx3,Bob,-1,\nx9,Eve,3,\n")
    assert found.rejected == ()
    assert list(found.labels) == ["kind", "day", "height", "owner", "split"]
    np.testing.assert_array_equal(found.labels["height"], [12.5, np.nan, -1.0, np.nan])
    assert found.labels["owner"].tolist() == ["Ann", "", "Bob", ""]
    assert found.labels["split"].tolist() == ["train", "train", "test", "test"]
    built = cube.build(tmp_path / "labelled.yaml", tmp_path / "files", tmp_path / "x.zarr", where="owner=Ann or split=test")
    assert built.report.passed
    assert cube.open_cube(tmp_path / "x.zarr", where="height<0").patch.values.tolist() == ["x3"]


def test_a_table_may_be_parquet(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    pq.write_table(
        pa.table({"name": ["x1", "x2"], "height": [1, 2], "who": ["Ann", None]}), tmp_path / "files" / "facts.parquet"
    )
    found = told(tmp_path, "", recipe=TOLD.replace("facts.csv", "facts.parquet"))
    np.testing.assert_array_equal(found.labels["height"], [1, 2, np.nan, np.nan])
    assert found.labels["owner"].tolist() == ["Ann", "", "", ""]


def test_what_is_no_value_in_a_table_is_one_rejection(tmp_path: Path) -> None:
    found = told(tmp_path, "name,who,height\nx1,Ann,tall\n")
    assert found.patch.tolist() == ["x2", "x3", "x4"]
    assert [(item.path, item.reason, item.detail) for item in found.rejected] == [
        ("x1", "unknown label", "height 'tall' is no number")
    ]


def test_a_table_may_be_geojson(tmp_path: Path) -> None:
    features = [
        {"type": "Feature", "geometry": None, "properties": {"name": "x1", "height": 12.5, "who": None}},
        {"type": "Feature", "geometry": None, "properties": {"name": "x2", "height": None, "who": ["Ann", "Bob"]}},
        {"type": "Feature", "geometry": None, "properties": {"name": "x3"}},
    ]
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "facts.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = told(tmp_path, "", recipe=TOLD.replace("facts.csv", "facts.geojson"))
    np.testing.assert_array_equal(found.labels["height"], [12.5, np.nan, np.nan, np.nan])
    assert found.labels["owner"].tolist() == ["", "Ann;Bob", "", ""]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"features": [1]}', '{"features": [{}]}', '{"features": [{"properties": 7}]}', "[" * 10**5]
)
def test_what_is_no_geojson_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "facts.geojson").write_text(text)
    with pytest.raises(RequestError, match=r"facts.geojson: cannot be read: it is no GeoJSON of features"):
        told(tmp_path, "", recipe=TOLD.replace("facts.csv", "facts.geojson"))


def test_a_label_may_be_made_of_several_groups(tmp_path: Path) -> None:
    recipe = LABELLED.replace(
        "  weight: {type: number, units: kg}", '  place: {template: "{kind}-{name}"}\n  when: {template: "{day}!"}'
    )
    (tmp_path / "labelled.yaml").write_text(recipe)
    found = pair(
        read_recipe(str(tmp_path / "labelled.yaml")), "x", [Entry("north/a_x1_2020-05-01.png", 9), Entry("south/b_x2.png", 9)]
    )
    assert found.labels["place"].tolist() == ["north-x1", "south-x2"]
    assert found.labels["when"].tolist() == ["2020-05-01!", ""]
    (tmp_path / "labelled.yaml").write_text(recipe.replace("{day}!", "{month}"))
    with pytest.raises(RecipeError, match=r"labels.when.template: uses \['month'\]"):
        read_recipe(str(tmp_path / "labelled.yaml"))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ("", "facts.csv: cannot be read, and labels come from it"),
        ("name,height\nx1,2\n", "facts.csv: cannot be read: .*who"),
        ("name,who,height\nx1,2\n", "facts.csv: cannot be read: .*Expected 3 columns"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(tmp_path: Path, facts: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        told(tmp_path, facts)
