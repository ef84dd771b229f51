from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import xarray as xr
from making import Built, Made, Scene, build, make_patches, survey, write_recipe
from PIL import Image
from pyproj import Transformer

import cube.catalog.collection
from cube.catalog.collection import KNOWN, read_template
from cube.catalog.describe import Catalog, describe
from cube.catalog.publish import publish, retract
from cube.errors import CorruptError, RecipeError, RequestError, UntrustedError
from cube.format.layout import class_word
from cube.format.target import target_of
from cube.geo.footprints import around, footprint
from cube.recipes.bundled import folder
from cube.recipes.recipe import Recipe, read_recipe
from cube.survey.summary import Survey
from cube.verify.report import Check, Finding, Report

DATELINE = Scene("winter", 5, rows=2, columns=4, epsg=32601, origin=(165621.0, 200000.0))
"""A scene across 180°."""
TEMPLATES = sorted(path.stem for path in (folder("catalog") / "templates").glob("*.json"))


@pytest.fixture(scope="module")
def surveyed(tiny_cube: Built) -> tuple[Report, Survey]:
    return survey(tiny_cube)


@pytest.fixture(scope="module")
def report(surveyed: tuple[Report, Survey]) -> Report:
    return surveyed[0]


@pytest.fixture(scope="module")
def catalog(tiny_cube: Built, surveyed: tuple[Report, Survey]) -> Catalog:
    return describe(tiny_cube.target, tiny_cube.plan.recipe, *surveyed)


@pytest.fixture(scope="module")
def dataset(tiny_cube: Built) -> xr.Dataset:
    return xr.open_zarr(tiny_cube.url, chunks=None)


@pytest.fixture(scope="module")
def moved(tiny_cube: Built, catalog: Catalog, report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder into which cube and catalog were moved after the catalog was published."""
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    shutil.copytree(tiny_cube.url, here / "tiny.zarr")
    target = target_of(str(here / "tiny.zarr"))
    url = publish(catalog, target, Report(target.url, report.checks))
    assert url == str(here / "tiny.stac" / "collection.json")
    for name in ("tiny.zarr", "tiny.stac"):
        (here / name).rename(there / name)
    return there


def test_there_is_one_item_per_scene_in_the_order_of_the_cube(catalog: Catalog) -> None:
    assert list(catalog.items) == ["items/spring-1.json", "items/spring-15.json", "items/summer-1.json"]
    assert list(catalog.documents)[-2:] == ["collection.json", "catalog.json"]
    assert [item["id"] for item in catalog.items.values()] == ["spring-1", "spring-15", "summer-1"]
    assert {item["collection"] for item in catalog.items.values()} == {catalog.collection["id"]} == {"tiny"}


def test_every_link_leads_somewhere_after_the_folders_are_moved(moved: Path, catalog: Catalog) -> None:
    for path in catalog.documents:
        document = json.loads((moved / "tiny.stac" / path).read_text())
        hrefs = [link["href"] for link in document["links"]] + [asset["href"] for asset in document.get("assets", {}).values()]
        for href in hrefs:
            if not href.startswith(("https://doi.org/", "https://spdx.org/licenses/")):
                assert href.startswith(".")
                assert (moved / "tiny.stac" / path).parent.joinpath(href).exists(), href


def test_pystac_walks_from_the_collection_to_items_and_back(moved: Path) -> None:
    root = pystac.Catalog.from_file(str(moved / "tiny.stac" / "catalog.json"))
    (collection,) = root.get_collections()
    items = list(collection.get_items())
    assert [item.id for item in items] == ["spring-1", "spring-15", "summer-1"]
    for item in items:
        assert item.get_collection() is collection
        assert item.get_root() is root


def test_xarray_opens_the_cube_with_the_keywords_of_the_asset(moved: Path) -> None:
    collection = pystac.Collection.from_file(str(moved / "tiny.stac" / "collection.json"))
    asset = collection.assets["zarr-xarray"]
    opened = xr.open_dataset(asset.get_absolute_href(), **asset.extra_fields["xarray:open_kwargs"])
    assert opened.sizes["patch"] == collection.extra_fields["patchcube:patches"]
    assert asset.href == collection.assets["zarr"].href


def test_band_names_select_what_they_name(catalog: Catalog, dataset: xr.Dataset) -> None:
    bands = catalog.collection["assets"]["zarr"]["bands"]
    assert len(bands) == 2 + 13 + 4
    for band in bands:
        variable, dimension, label = re.fullmatch(r"(\w+)\[(\w+)=(\w+)\]", band["name"]).groups()
        selected = dataset[variable].sel({dimension: label})
        assert selected.dtype == band["data_type"]
        assert selected.attrs["units"] == band["unit"]
        assert selected.attrs.get("raster_scale") == band.get("raster:scale")
    assert [band["eo:common_name"] for band in bands if "B05" in band["name"]] == ["rededge071"]


def test_classes_are_named_as_in_the_cube(catalog: Catalog, dataset: xr.Dataset) -> None:
    bands = {band["name"]: band for band in catalog.collection["assets"]["zarr"]["bands"]}
    for label, legend in dataset["lc"].attrs["band_legends"].items():
        classes = bands[f"lc[lc_band={label}]"]["classification:classes"]
        assert [item["value"] for item in classes] == dataset[legend].values.tolist()
        assert [item["name"] for item in classes] == dataset[legend].attrs["flag_meanings"].split()
    assert class_word("Cropland/Natural Vegetation Mosaics (30 %)") == "cropland_natural_vegetation_mosaics_30"


def test_dimensions_and_variables_are_those_of_the_cube(catalog: Catalog, dataset: xr.Dataset) -> None:
    dimensions, variables = catalog.collection["cube:dimensions"], catalog.collection["cube:variables"]
    assert dimensions.keys() == dataset.sizes.keys()
    assert variables.keys() == dataset.variables.keys()
    for name, variable in variables.items():
        assert tuple(variable["dimensions"]) == dataset[name].dims
        assert variable["type"] == ("data" if name in ("s1", "s2", "lc") else "auxiliary")
    assert dimensions["s2_band"]["values"] == dataset["s2_band"].values.tolist()
    assert dimensions["x"]["extent"] == [0, 31]
    assert dimensions["patch"]["bbox"] == catalog.collection["extent"]["spatial"]["bbox"][0]


def test_counts_splits_and_times_are_those_of_the_scene(catalog: Catalog, dataset: xr.Dataset) -> None:
    total = 0
    for item in catalog.items.values():
        told = item["properties"]
        rows = (dataset["season"] == told["patchcube:season"]) & (dataset["scene"] == told["patchcube:scene"])
        scene = dataset.isel(patch=np.flatnonzero(rows))
        total += told["patchcube:patches"]
        assert told["patchcube:patches"] == scene.sizes["patch"]
        for name, label in {"images": "present", "nan_count": "nan_count", "zero_count": "zero_count"}.items():
            assert list(told[f"patchcube:{name}"].values()) == scene[label].sum("patch").values.tolist()
        assert {told["patchcube:split"]} == set(scene["split"].values)
        assert told["datetime"] is None
    assert total == dataset.sizes["patch"] == catalog.collection["patchcube:patches"]
    spring = catalog.items["items/spring-15.json"]["properties"]
    assert spring["patchcube:split"] == "test"
    assert (spring["start_datetime"], spring["end_datetime"]) == ("2017-03-01T00:00:00Z", "2017-05-30T23:59:59Z")
    assert catalog.collection["extent"]["temporal"]["interval"] == [["2017-03-01T00:00:00Z", "2017-08-31T23:59:59Z"]]
    assert catalog.collection["summaries"]["patchcube:split"] == ["test", "train"]


def test_footprints_are_where_proj_says(catalog: Catalog, made: Made) -> None:
    boxes = []
    for item in catalog.items.values():
        season, number = item["id"].split("-")
        ids = [name for name, scene in made.scenes.items() if (scene.season, scene.number) == (season, int(number))]
        epsg, bounds = made.scenes[ids[0]].epsg, scene_bounds(made, ids)
        assert item["properties"]["proj:code"] == f"EPSG:{epsg}"
        assert item["properties"]["proj:bbox"] == pytest.approx(bounds, abs=1e-6)
        each = np.array([degrees(epsg, scene_bounds(made, [name])) for name in ids])
        assert item["bbox"] == pytest.approx([*each[:, :2].min(axis=0), *each[:, 2:].max(axis=0)], abs=1e-6)
        (ring,) = item["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert area(ring) > 0
        corner = item["id"] == "summer-1"  # its first patch is not there: one tile of ground is missing
        assert metres_outside(epsg, ring, bounds) < (161 if corner else 0.05)
        boxes.append(item["bbox"])
    west, south, east, north = np.array(boxes).T
    whole = [west.min(), south.min(), east.max(), north.max()]
    assert catalog.collection["extent"]["spatial"]["bbox"] == [whole]
    assert catalog.collection["summaries"]["proj:code"] == ["EPSG:32632", "EPSG:32633", "EPSG:32737"]


def test_a_scene_across_180_degrees_is_cut_there(tmp_path: Path) -> None:
    made = make_patches(tmp_path / "patches", [DATELINE])
    built = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "tiny.zarr")
    catalog = describe(built.target, built.plan.recipe, *survey(built))
    (item,) = catalog.items.values()
    expected = degrees(DATELINE.epsg, scene_bounds(made, made.ids))
    assert expected[0] > 179 > -179 > expected[2]
    assert item["bbox"] == pytest.approx(expected, abs=1e-6)
    assert catalog.collection["extent"]["spatial"]["bbox"] == [item["bbox"]]
    assert item["geometry"]["type"] == "MultiPolygon"
    east, west = sorted(item["geometry"]["coordinates"], key=lambda part: -part[0][0][0])
    for part, limit in ((east[0], 180.0), (west[0], -180.0)):
        assert area(part) > 0
        assert part[0] == part[-1]
        assert all(abs(lon - limit) < 0.01 for lon, _ in part)


def test_a_rectangle_around_a_pole_holds_the_pole() -> None:
    bounds = (-200_000.0, -100_000.0, 100_000.0, 150_000.0)
    for code, pole in ((3413, 90.0), (3031, -90.0)):
        place = footprint({code: bounds})
        assert place is not None
        assert place.bbox == pytest.approx(degrees(code, bounds), abs=1e-6)
        assert pole in place.bbox
        assert (place.bbox[0], place.bbox[2]) == (-180.0, 180.0)


def test_a_scene_in_two_systems_has_two_parts() -> None:
    place = footprint({32632: (700000, 5400000, 702000, 5401000), 32633: (300000, 5400000, 301000, 5402000)})
    assert place is not None
    assert place.geometry["type"] == "MultiPolygon"
    assert len(place.geometry["coordinates"]) == 2


def test_a_place_that_proj_cannot_reach_is_no_place() -> None:
    assert footprint({32632: (1e30, 1e30, 2e30, 2e30)}) is None
    assert footprint({}) is None


def test_boxes_are_joined_across_180_degrees_or_all_around() -> None:
    fiji, crossing, hawaii, brazil = (177, -19, 179, -17), (179, -17, -179, -16), (-160, 18, -154, 23), (-60, -9, -58, -7)
    kenya = (36, -2, 38, 1)
    assert around([kenya, hawaii]) == (-160, -2, 38, 23)
    assert around([fiji, crossing, hawaii]) == (177, -19, -154, 23)
    assert around([kenya, crossing, hawaii]) == (36, -17, -154, 23)
    assert around([kenya, crossing, brazil]) == (-180, -17, 180, 1)
    assert around([crossing]) == crossing


def test_equal_cubes_give_equal_catalogs(tiny_cube: Built, catalog: Catalog, made: Made, tmp_path: Path) -> None:
    again = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "tiny.zarr")
    other = describe(again.target, again.plan.recipe, *survey(again))
    assert list(other.contents()) == list(catalog.contents())
    assert b'"datetime": null' in dict(other.contents())["items/spring-1.json"]


def test_the_collection_carries_the_certificate_and_what_was_checked(catalog: Catalog, dataset: xr.Dataset) -> None:
    certified = dataset.attrs["cube"]["certificate"]
    assert catalog.collection["patchcube:pixels_digest"] == f"blake3:{certified['pixels']}"
    assert {"root", "labels", "pixels", "sharing"} <= set(catalog.collection["patchcube:checks"])


def test_the_collection_says_what_was_saved_and_what_was_left_out(
    tiny_cube: Built, surveyed: tuple[Report, Survey], dataset: xr.Dataset
) -> None:
    told = describe(tiny_cube.target, tiny_cube.plan.recipe, *surveyed, rejected=["empty", "size", "empty"]).collection
    assert told["patchcube:raw_bytes"] == tiny_cube.plan.raw_bytes == sum(dataset[name].nbytes for name in ("s1", "s2", "lc"))
    objects = [path for path in Path(tiny_cube.url).rglob("*") if path.is_file()]
    assert told["patchcube:stored_bytes"] == sum(path.stat().st_size for path in objects)
    written = {name: {"used": used, "stored": stored} for name, (used, stored) in tiny_cube.written.tiles().items()}
    assert told["patchcube:tiles"] == written
    assert told["patchcube:rejected"] == {"empty": 2, "size": 1}
    assert dataset.attrs["cube"]["certificate"]["pixels"].startswith(told["version"])


def test_checksums_are_those_of_the_files(tiny_cube: Built, catalog: Catalog) -> None:
    root = catalog.collection["assets"]["zarr-root"]
    checked = [(root, Path(tiny_cube.url, "zarr.json").read_bytes())]
    for item in catalog.items.values():
        pictures = {name: asset for name, asset in item["assets"].items() if asset["type"] == "image/png"}
        assert pictures.keys() == {"overview-s1", "overview-s2", "overview-lc", "thumbnail"}
        assert pictures["thumbnail"]["href"] == pictures["overview-s2"]["href"]
        checked += [(asset, catalog.files[asset["href"].removeprefix("../")]) for asset in pictures.values()]
    for asset, data in checked:
        assert asset["file:size"] == len(data)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()


def test_an_overview_fills_the_box_of_its_scene(catalog: Catalog) -> None:
    for item in catalog.items.values():
        west, south, east, north = item["properties"]["proj:bbox"]
        for name in ("s1", "s2", "lc"):
            height, width = item["assets"][f"overview-{name}"]["proj:shape"]
            assert (width * 80, height * 80) == pytest.approx((east - west, north - south))


def test_statistics_stand_with_the_bands(catalog: Catalog, surveyed: tuple[Report, Survey]) -> None:
    whole = surveyed[1].whole.bands
    bands = {band["name"]: band for band in catalog.collection["assets"]["zarr"]["bands"]}
    first = whole["s2"][0]
    assert bands["s2[s2_band=B01]"]["statistics"] == {
        "minimum": first.minimum,
        "maximum": first.maximum,
        "mean": first.mean,
        "stddev": first.stddev,
        "count": first.count,
    }
    assert bands["s1[s1_band=VV]"]["patchcube:histogram"] == {
        "lower": -50.0,
        "upper": 14.0,
        "counts": list(whole["s1"][0].histogram),
    }
    assert "patchcube:histogram" not in bands["lc[lc_band=IGBP]"]
    for item in catalog.items.values():
        assert [band["name"] for band in item["assets"]["zarr"]["bands"]] == list(bands)


def test_patches_are_counted_by_their_most_frequent_class(catalog: Catalog, dataset: xr.Dataset) -> None:
    names = dict(zip(dataset["IGBP_code"].values.tolist(), dataset["IGBP_name"].values.tolist(), strict=True))
    for item in catalog.items.values():
        told = item["properties"]
        rows = (dataset["season"] == told["patchcube:season"]) & (dataset["scene"] == told["patchcube:scene"])
        pixels = dataset["lc"].sel(lc_band="IGBP").values[rows.values].reshape(rows.values.sum(), -1)
        most = [np.bincount(row, minlength=18).argmax() for row in pixels]
        expected = {names[int(code)]: most.count(code) for code in sorted(set(most))}
        assert told["patchcube:patches_by_class"] == expected
        groups = dict(zip(dataset["IGBP_code"].values.tolist(), dataset["IGBP_group"].values.tolist(), strict=True))
        wider = list(dict.fromkeys(groups.values()))
        labels = []
        for row in pixels:
            shares = {name: sum(int((row == code).sum()) for code, group in groups.items() if group == name) for name in wider}
            labels.append(max(wider, key=lambda name: shares[name]))
        assert told["patchcube:patches_by_label"] == {"label10": {name: labels.count(name) for name in wider if name in labels}}


def test_without_georeference_an_item_has_no_place(tmp_path: Path) -> None:
    recipe, built = plain_cube(tmp_path)
    catalog = describe(built.target, recipe, *survey(built))
    (item,) = catalog.items.values()
    assert item["geometry"] is None
    assert "bbox" not in item
    assert not [name for name in item["properties"] if name.startswith("proj:") or name == "patchcube:split"]
    assert catalog.collection["extent"]["spatial"]["bbox"] == [[-180, -90, 180, 90]]
    assert catalog.collection["cube:dimensions"]["patch"] == {"type": "index", "extent": [0, 1], "step": 1}
    assert not [url for url in catalog.collection["stac_extensions"] if "projection" in url or "raster" in url]


def test_a_gap_counts_as_no_image_and_has_no_place(tmp_path: Path) -> None:
    scene = Scene("fall", 7, rows=1, columns=3)
    ids = [scene.id(number) for number, _, _ in scene.places()]
    made = make_patches(tmp_path / "patches", [scene], missing=[(ids[0], "s2")])
    broken = made.files[ids[2], "s1"]
    os.truncate(broken, broken.stat().st_size - 64)
    recipe = read_recipe(str(write_recipe(tmp_path / "tiny.yaml")))
    built = build(tmp_path / "tiny.yaml", made.folder, tmp_path / "tiny.zarr", incomplete="keep")
    (item,) = describe(built.target, recipe, *survey(built)).items.values()
    assert item["properties"]["patchcube:images"] == {"s1": 2, "s2": 2, "lc": 3}
    assert item["properties"]["patchcube:patches"] == 3


def test_only_a_cube_that_passed_is_published(tiny_cube: Built, catalog: Catalog, report: Report, tmp_path: Path) -> None:
    target = target_of(str(tmp_path / "tiny.zarr"))
    finding = Finding("pixels", "ROIs1158_spring_1_p30", "its s2 pixels are not those certified")
    failed = Report(target.url, (Check("pixels", "25 patches", (finding,)),))
    with pytest.raises(UntrustedError, match=r"did not pass .*pixels: ROIs1158_spring_1_p30"):
        publish(catalog, target, failed)
    with pytest.raises(UntrustedError, match="the report is about"):
        publish(catalog, target, report)
    assert not (tmp_path / "tiny.stac").exists()


def test_publishing_again_removes_items_of_scenes_that_are_gone(catalog: Catalog, report: Report, tmp_path: Path) -> None:
    target = target_of(str(tmp_path / "tiny.zarr"))
    target.stac.write("items/winter-9.json", b"{}")
    target.stac.write("overviews/winter-9-s2.png", b"")
    target.stac.write("page.html", b"kept")
    publish(catalog, target, Report(target.url, report.checks))
    assert sorted(entry.key for entry in target.stac.list()) == sorted([*catalog.documents, *catalog.files, "page.html"])


def test_a_catalog_is_retracted_and_published_again(catalog: Catalog, report: Report, tmp_path: Path) -> None:
    target = target_of(str(tmp_path / "tiny.zarr"))
    retract(target)
    publish(catalog, target, Report(target.url, report.checks))
    retract(target)
    for path in ("catalog.json", "collection.json", "index.html"):
        assert not target.stac.exists(path)
    retract(target)
    publish(catalog, target, Report(target.url, report.checks))
    assert sorted(entry.key for entry in target.stac.list()) == sorted([*catalog.documents, *catalog.files])


def test_the_recipe_must_be_the_one_of_the_cube(tiny_cube: Built, surveyed: tuple[Report, Survey], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has recipe tiny, not sen12ms"):
        describe(tiny_cube.target, read_recipe("sen12ms"), *surveyed)
    later = "seasons: {fall: {start: 2019-09-01, end: 2019-11-30}}\n"
    with pytest.raises(RequestError, match="has seasons"):
        describe(tiny_cube.target, read_recipe(str(write_recipe(tmp_path / "tiny.yaml", more=later))), *surveyed)


def test_damaged_labels_are_named(tiny_cube: Built, surveyed: tuple[Report, Survey], tmp_path: Path) -> None:
    shutil.copytree(tiny_cube.url, tmp_path / "tiny.zarr")
    chunk = tmp_path / "tiny.zarr" / "scene" / "c" / "0"
    chunk.write_bytes(b"\0" + chunk.read_bytes()[1:])
    target = target_of(str(tmp_path / "tiny.zarr"))
    with pytest.raises(CorruptError, match="scene/c/0: its checksum is wrong"):
        describe(target, tiny_cube.plan.recipe, *surveyed)
    chunk.unlink()
    with pytest.raises(CorruptError, match="scene/c/0: cannot be read"):
        describe(target, tiny_cube.plan.recipe, *surveyed)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_say_only_what_cannot_be_derived(name: str, catalog: Catalog) -> None:
    derived = catalog.collection.keys() - read_template("sen12ms").keys()
    assert {"extent", "links", "assets", "summaries", "cube:dimensions", "patchcube:pixels_digest"} <= derived
    assert not derived & KNOWN
    assert not derived & read_template(name).keys()


def test_every_bundled_recipe_has_its_template() -> None:
    recipes = [path.stem for path in folder("recipes").glob("*.yaml")]
    assert sorted({read_recipe(name).catalog for name in recipes} | {"own"}) == TEMPLATES


@pytest.mark.parametrize(
    ("change", "message"),
    [({"extent": {}}, "extent: expected only"), ({"license": None}, "lacks license")],
)
def test_a_template_that_says_too_much_or_too_little_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = {key: value for key, value in (read_template("demo") | change).items() if value is not None}
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "demo.json").write_text(json.dumps(template))
    monkeypatch.setattr(cube.catalog.collection, "folder", lambda name: tmp_path)
    with pytest.raises(RequestError, match=message):
        read_template("demo")


def test_an_unknown_template_is_named_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="no template is called 'sen12mss'; did you mean 'sen12ms'"):
        read_template("sen12mss")


def plain_cube(folder: Path) -> tuple[Recipe, Built]:
    """Build a cube of two patches without any georeference."""
    rng = np.random.default_rng(3)
    for sensor, shape in (("s1", (32, 32)), ("s2", (32, 32, 3))):
        for number in (1, 2):
            path = folder / "patches" / f"ROIs1868_summer/{sensor}_59/ROIs1868_summer_{sensor}_59_p{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    recipe = write_recipe(folder / "plain.yaml", base="sen1-2")
    return read_recipe(str(recipe)), build(recipe, folder / "patches", folder / "plain.zarr")


def scene_bounds(made: Made, ids: list[str]) -> tuple[float, float, float, float]:
    """Return the rectangle around patches in metres."""
    left, top = np.array([(made.transforms[name].c, made.transforms[name].f) for name in ids]).T
    return left.min(), top.min() - 10.0 * made.size, left.max() + 10.0 * made.size, top.max()


def degrees(epsg: int, bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Return bounds in degrees, as PROJ itself transforms them."""
    return Transformer.from_crs(epsg, 4326, always_xy=True).transform_bounds(*bounds, densify_pts=21)


def area(ring: list[list[float]]) -> float:
    lon, lat = (np.array(ring) - ring[0]).T
    return float(np.sum(lon[:-1] * lat[1:] - lon[1:] * lat[:-1])) / 2


def metres_outside(epsg: int, ring: list[list[float]], bounds: tuple[float, float, float, float]) -> float:
    """Return how far the points of a ring lie from the outline of a rectangle."""
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(*np.array(ring).T)
    west, south, east, north = bounds
    return float(np.min(np.abs([x - west, x - east, y - south, y - north]), axis=0).max())
