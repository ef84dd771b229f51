from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from making import Built, Scene, build, make_patches, survey, write_recipe, write_tif
from PIL import Image
from rasterio.transform import Affine

from cube.read.scenes import open_scene
from cube.recipes.recipe import Recipe, read_recipe
from cube.survey.summary import BandStatistics, Survey

HOLED = Scene("spring", 1, rows=4, columns=5, gaps=((1, 2), (2, 2), (3, 4)))
SECOND = Scene("fall", 7, rows=2, columns=3, epsg=32737)


@pytest.fixture(scope="module")
def holed(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Scenes with holes and with missing images, in shards that end within scenes."""
    folder = tmp_path_factory.mktemp("holed")
    ids = [HOLED.id(number) for number, _, _ in HOLED.places()]
    made = make_patches(folder / "patches", [HOLED, SECOND], missing=[(ids[0], "s2"), (ids[3], "lc"), (ids[7], "s1")])
    return build(write_recipe(folder / "tiny.yaml", shard=5), made.folder, folder / "tiny.zarr", incomplete="keep")


@pytest.fixture(scope="module")
def seen(holed: Built) -> Survey:
    report, seen = survey(holed)
    assert report.passed
    return seen


def test_statistics_are_those_of_every_distinct_pixel(holed: Built, seen: Survey) -> None:
    pixels: dict[tuple[str, int], list[np.ndarray]] = {}
    for season, scene in seen.scenes:
        raster = open_scene(holed.url, season=season, scene=scene)
        assert seen.grounded[season, scene]
        for name, bands in seen.scenes[season, scene].bands.items():
            for place, found in enumerate(bands):
                values = raster[name].values[place][raster[f"{name}_covered"].values]
                equal_to(found, values)
                pixels.setdefault((name, place), []).append(values)
    for (name, place), parts in pixels.items():
        equal_to(seen.whole.bands[name][place], np.concatenate(parts))


def test_classes_are_shares_of_distinct_pixels(holed: Built, seen: Survey) -> None:
    raster = open_scene(holed.url, season="spring", scene=1)
    for place, legend in enumerate(raster["lc_band"].values):
        values = raster["lc"].values[place][raster["lc_covered"].values]
        names = dict(zip(raster[f"{legend}_code"].values.tolist(), raster[f"{legend}_name"].values.tolist(), strict=True))
        codes, counts = np.unique(values, return_counts=True)
        expected = {names[code]: round(n / values.size, 6) for code, n in zip(codes.tolist(), counts.tolist(), strict=True)}
        assert seen.scenes["spring", 1].classes[legend] == expected
        assert sum(expected.values()) == pytest.approx(1, abs=1e-5)


def test_patches_have_the_classes_of_all_their_pixels(holed: Built, seen: Survey) -> None:
    cube = xr.open_zarr(holed.url, chunks=None)
    present = cube["present"].sel(modality="lc").values
    for legend, (codes, shares) in seen.patch_classes.items():
        pixels = cube["lc"].sel(lc_band=legend).values
        assert shares.dtype == np.float32
        for place, code in enumerate(codes):
            np.testing.assert_array_equal(shares[present, place], (pixels[present] == code).mean((1, 2), dtype=np.float32))
        assert np.isnan(shares[~present]).all()
        assert (~present).sum() == 1


def test_overviews_are_the_reduced_scene(holed: Built, seen: Survey) -> None:
    raster = open_scene(holed.url, season="spring", scene=1)
    recipe = holed.plan.recipe
    pictures = {name: picture(data) for name, data in seen.overviews["spring", 1].items()}
    for name, drawn in (("s2", ["B04", "B03", "B02"]), ("s1", ["VV"])):
        blocks = raster[name].sel({f"{name}_band": drawn}).astype(float).coarsen(x=8, y=8).mean().values
        low, high = recipe.modalities[name].picture
        expected = np.clip(np.rint((blocks - low) * 254 / (high - low)), 0, 254) + 1
        covered = raster[f"{name}_covered"].values[::8, ::8]
        assert pictures[name].shape == (*covered.shape, 4 if name == "s2" else 2)
        np.testing.assert_array_equal(pictures[name][..., -1] > 0, covered)
        shown = pictures[name][..., :-1].transpose(2, 0, 1)[:, covered]
        assert np.abs(shown - expected[:, covered]).max() <= 1
    colors = {item.value: tuple(bytes.fromhex(item.color)) for item in recipe.legends["IGBP"]}
    nearest, covered = raster["lc"].values[0, 4::8, 4::8], raster["lc_covered"].values[4::8, 4::8]
    for y, x in np.ndindex(nearest.shape):
        *color, opacity = pictures["lc"][y, x]
        assert opacity == (255 if covered[y, x] else 0)
        assert not covered[y, x] or tuple(color) == colors[nearest[y, x]]


def test_histograms_count_sampled_pixels_and_the_outer_bins_what_lies_beyond(holed: Built, seen: Survey) -> None:
    raster = open_scene(holed.url, season="fall", scene=7)
    for name, bands in seen.scenes["fall", 7].bands.items():
        step = 1 if name == "lc" else 8
        for place, found in enumerate(bands):
            sampled = raster[name].values[place, ::step, ::step][raster[f"{name}_covered"].values[::step, ::step]]
            low, high = holed.plan.recipe.modalities[name].histogram_range
            inside = np.clip(sampled[np.isfinite(sampled)], low, np.nextafter(high, low))
            assert found.histogram == tuple(np.histogram(inside, 64, (low, high))[0].tolist())


def test_the_number_of_batches_and_their_order_do_not_matter(holed: Built, seen: Survey, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", shard=64)
    again = build(recipe, holed.plan.inventory.source, tmp_path / "tiny.zarr", incomplete="keep")
    _, other = survey(again)
    assert other.document() == seen.document()
    assert other.overviews == seen.overviews


def test_without_a_place_each_stored_tile_counts_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    recipe = write_recipe(tmp_path / "plain.yaml", base="sen1-2")
    image = rng.integers(0, 256, (32, 48), dtype=np.uint8)
    for sensor in ("s1", "s2"):
        for number, left in ((1, 0), (2, 16)):
            path = tmp_path / f"p/ROIs1868_summer/{sensor}_59/ROIs1868_summer_{sensor}_59_p{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = image[:, left : left + 32]
            Image.fromarray(pixels if sensor == "s1" else np.stack([pixels] * 3, -1)).save(path)
    report, seen = survey(build(recipe, tmp_path / "p", tmp_path / "plain.zarr"))
    assert report.passed
    assert (seen.grounded["summer", 59], seen.drawn["summer", 59]) == (False, False)
    equal_to(seen.whole.bands["s1"][0], image)
    assert seen.patch_classes == {}
    side_by_side = picture(seen.overviews["summer", 59]["s1"])[..., 0]
    assert side_by_side.shape == (4, 8)
    whole = np.hstack([image[:, :32], image[:, 16:]]).astype(float).reshape(4, 8, 8, 8).mean(axis=(1, 3))
    np.testing.assert_array_equal(side_by_side, np.rint(whole * 254 / 256) + 1)


@pytest.mark.parametrize("how", ["half a tile apart", "off the grid", "in two systems"])
def test_patches_off_one_grid_are_counted_by_what_is_stored(how: str, tmp_path: Path) -> None:
    scene = Scene("fall", 7, rows=1, columns=3)
    made = make_patches(tmp_path / "patches", [scene])
    first = made.ids[0]
    move = {"half a tile apart": (80.0, scene.epsg), "off the grid": (3.3, scene.epsg), "in two systems": (0.0, 32633)}[how]
    for name in ("s1", "s2", "lc"):
        corner = made.transforms[first]
        moved = Affine(10.0, 0.0, corner.c - 320.0 - move[0], 0.0, -10.0, corner.f)
        write_tif(made.files[first, name], made.pixels[first, name], crs=f"EPSG:{move[1]}", transform=moved)
    report, seen = survey(build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "tiny.zarr"))
    assert report.passed
    assert not seen.grounded["fall", 7]
    assert seen.drawn["fall", 7] == (how == "half a tile apart")
    # One image that is 4 tiles wide: each of its tiles is stored once.
    image = np.concatenate([made.pixels[first, "s2"], made.pixels[made.ids[2], "s2"]], axis=-1)
    equal_to(seen.whole.bands["s2"][3], image[3])


def test_values_beyond_the_legend_are_told(tmp_path: Path) -> None:
    made = make_patches(tmp_path / "patches", [Scene("fall", 7, rows=1, columns=1)])
    (name,) = made.ids
    pixels = made.pixels[name, "lc"].copy()
    pixels[0, :8] = 99
    write_tif(made.files[name, "lc"], pixels, crs="EPSG:32632", transform=made.transforms[name])
    _, seen = survey(build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "tiny.zarr"))
    assert seen.whole.classes["IGBP"]["not in the legend"] == 0.25
    assert seen.patch_classes["IGBP"].shares.sum() == pytest.approx(0.75)


def test_types_of_more_bits_are_counted_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    pixels = {"s1": rng.normal(0, 1, (2, 32, 32)), "s2": rng.integers(-(2**31), 2**31, (13, 32, 32))}
    data = read_recipe(str(write_recipe(tmp_path / "tiny.yaml"))).model_dump(mode="json")
    del data["modalities"]["lc"]
    data["modalities"]["s1"] |= {"dtype": "float64", "histogram": None}
    data["modalities"]["s2"] |= {"dtype": "int32", "histogram": None, "picture": None}
    for codecs in data["layout"]["profiles"].values():
        del codecs["lc"]
    recipe = tmp_path / "wide.yaml"
    recipe.write_text(json.dumps(data))
    for name, dtype in (("s1", "float64"), ("s2", "int32")):
        path = tmp_path / f"p/ROIs1970_fall/{name}_7/ROIs1970_fall_{name}_7_p1.tif"
        write_tif(path, pixels[name].astype(dtype), crs="EPSG:32632", transform=Affine(10, 0, 6e5, 0, -10, 5e6))
    _, seen = survey(build(recipe, tmp_path / "p", tmp_path / "tiny.zarr"))
    for name, bands in seen.whole.bands.items():
        for place, found in enumerate(bands):
            equal_to(found, pixels[name][place])


def test_a_range_must_rise() -> None:
    data = read_recipe("sen12ms").model_dump(mode="json")
    data["modalities"]["s1"]["picture"] = [0.0, -25.0]
    with pytest.raises(ValueError, match="expected a smaller and a larger value"):
        Recipe.model_validate_json(json.dumps(data))


def equal_to(found: BandStatistics, values: np.ndarray) -> None:
    """Compare with NumPy: exactly where pixels are integers."""
    numbers = values[np.isfinite(values)].astype(np.float64)
    expected = {"minimum": numbers.min(), "maximum": numbers.max(), "mean": numbers.mean(), "stddev": numbers.std()}
    assert (found.count, found.nan) == (numbers.size, values.size - numbers.size)
    assert (found.minimum, found.maximum) == (expected["minimum"], expected["maximum"])
    assert found.mean == pytest.approx(expected["mean"], rel=1e-8)
    assert found.stddev == pytest.approx(expected["stddev"], rel=1e-8)
    if values.dtype.kind in "u":
        whole = [int(value) for value in values.ravel()]
        assert found.mean == float(f"{sum(whole) / len(whole):.9g}")


def picture(data: bytes) -> np.ndarray[Any, Any]:
    """Decode a PNG, its transparent value as another channel."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("LA" if image.mode == "L" else "RGBA")).astype(int)
