"""Patches whose CRS has no EPSG code are kept, and found: by scenes, the catalog, footprints, search and copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rioxarray
import xarray as xr
from click.testing import CliRunner
from making import MODALITIES, Made, Scene, make_patches, write_recipe, write_tif
from pyproj import CRS, Transformer
from rasterio.transform import Affine

from cube import open_cube, open_scene
from cube.cli.main import main
from cube.geo.projection import numbered, system

assert rioxarray
AZIMUTHAL, SINUSOIDAL = "+proj=laea +lat_0=10 +lon_0=20 +ellps=GRS80 +units=m", "+proj=sinu +R=6371007.181 +units=m"
SCENES = (
    Scene("spring", 1, rows=2, columns=3),
    Scene("spring", 2, rows=1, columns=2, epsg=32737),
    Scene("summer", 1, rows=2, columns=2),
)
MEANT = {("spring", 1): AZIMUTHAL, ("spring", 2): "EPSG:32737", ("summer", 1): SINUSOIDAL}


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, str]:
    folder = tmp_path_factory.mktemp("placed")
    made = make_patches(folder / "files", SCENES)
    for name in made.ids:
        crs, place = MEANT[made.scenes[name].season, made.scenes[name].number], made.transforms[name]
        if "+" in crs:
            made.transforms[name] = place = Affine(10, 0, place.c - 6e5, 0, -10, place.f - 54e5)
        for modality in MODALITIES:
            compress = {"compress": "deflate"} if modality == "lc" else {}
            write_tif(made.files[name, modality], made.pixels[name, modality], crs=crs, transform=place, **compress)
    url = str(folder / "x.zarr")
    said("build", str(write_recipe(folder / "tiny.yaml", shard=8)), "--source", str(made.folder), "--to", url)
    return made, url


def said(*words: str) -> str:
    result = CliRunner().invoke(main, [*words, "--workers", "0"] if words[0] != "search" else list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_labels_point_at_definitions(placed: tuple[Made, str]) -> None:
    made, url = placed
    cube = xr.open_zarr(url, chunks=None)
    assert cube["present"].values.all()
    assert cube["crs_wkt"].size == 2
    for row, name in enumerate(made.ids):
        scene, index, code = made.scenes[name], int(cube["crs_index"][row]), int(cube["epsg"][row])
        crs = CRS.from_epsg(code) if code else CRS.from_wkt(str(cube["crs_wkt"][index].values))
        assert (index < 0) == bool(code)
        assert crs.equals(CRS.from_user_input(MEANT[scene.season, scene.number]), ignore_axis_order=True)
        centre = made.transforms[name] @ (16, 16)
        lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(*centre)
        np.testing.assert_allclose([cube["lon"][row], cube["lat"][row]], [lon, lat], atol=1e-9)


def test_everything_is_sound_and_the_same_as_the_files(placed: tuple[Made, str]) -> None:
    made, url = placed
    text = said("verify", url, "--source", str(made.folder), "--catalog")
    assert "36 files of" in text
    facts = json.loads(said_info(url))
    assert len(facts["crs"]) == 3
    assert facts["files"] == {"byte_for_byte": 24, "tags": 12, "pixels": 0}


def said_info(url: str) -> str:
    result = CliRunner().invoke(main, ["info", url, "--json"])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_scene_has_its_crs(placed: tuple[Made, str]) -> None:
    made, url = placed
    scene = open_scene(url, season="summer", scene=1)
    assert CRS.from_user_input(scene.rio.crs.to_wkt()).equals(CRS.from_user_input(SINUSOIDAL))
    first = next(name for name in made.ids if made.scenes[name].season == "summer")
    x, y = made.transforms[first] @ (0.5, 0.5)
    np.testing.assert_allclose([scene["x"][0], scene["y"][0]], [x, y])


def test_the_catalog_tells_it(placed: tuple[Made, str]) -> None:
    _, url = placed
    folder = Path(url.removesuffix(".zarr") + ".stac")
    items: dict[str, Any] = {path.stem: json.loads(path.read_text()) for path in (folder / "items").glob("*.json")}
    for name, meant in (("spring-1", AZIMUTHAL), ("summer-1", SINUSOIDAL)):
        properties = items[name]["properties"]
        assert properties["proj:code"] is None
        assert CRS.from_wkt(properties["proj:wkt2"]).equals(CRS.from_user_input(meant))
        assert items[name]["geometry"]["type"] == "Polygon"
        pystac.Item.from_dict(items[name])
    assert items["spring-2"]["properties"]["proj:code"] == "EPSG:32737"
    assert "proj:wkt2" not in items["spring-2"]["properties"]


def test_they_are_found_by_a_box(placed: tuple[Made, str]) -> None:
    made, url = placed
    wanted = [name for name in made.ids if made.scenes[name].number == 1 and made.scenes[name].season == "spring"]
    cube = xr.open_zarr(url, chunks=None)
    rows = [made.ids.index(name) for name in wanted]
    lon, lat = cube["lon"].values[rows], cube["lat"].values[rows]
    box = (lon.min() - 1e-4, lat.min() - 1e-4, lon.max() + 1e-4, lat.max() + 1e-4)
    assert said("search", url, "--bbox", ",".join(map(str, box))).split()[-len(wanted) :] == wanted
    assert open_cube(url, bbox=box)["patch"].values.tolist() == wanted
    assert said("search", url, "--where", "epsg=32737").split()[-2:] == [made.ids[6], made.ids[7]]


def test_they_go_along_with_copies(placed: tuple[Made, str], tmp_path: Path) -> None:
    _, url = placed
    to = str(tmp_path / "y.zarr")
    said("copy", url, to, "--where", "season=summer")
    assert "sound" in said("verify", to)
    cube = xr.open_zarr(to, chunks=None)
    assert CRS.from_wkt(str(cube["crs_wkt"].values[cube["crs_index"].values[0]])).equals(CRS.from_user_input(SINUSOIDAL))


def test_numbers_of_reference_systems() -> None:
    crs = numbered(np.array([0, 32632]), np.array([1, -1]))
    assert crs.tolist() == [-2, 32632]
    assert (system(-2, ["a", "b"]), system(32632, ())) == ("b", 32632)
