"""Scenes and patches as rasters: each pixel once, where it belongs, and nothing where there is no patch."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from making import BANDS, FILLS, MODALITIES, SCENES, Built, Made, Scene, build, make_patches, scene_image, write_recipe
from PIL import Image
from rasterio.enums import Resampling

from cube import open_cube
from cube.errors import RequestError
from cube.read.placements import placements
from cube.read.scenes import open_patch, open_scene

SIZE, TILE = 32, 16


def truth(scene: Scene, modality: str, lacking: tuple[str, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Return the raster a scene must give (band, y, x), and where it has pixels (y, x), worked out patch by patch."""
    image = scene_image(scene, modality, SIZE)
    covered = np.zeros(image.shape[1:], bool)
    for number, row, column in scene.places():
        if scene.id(number) not in lacking:
            covered[row * TILE : row * TILE + SIZE, column * TILE : column * TILE + SIZE] = True
    return np.where(covered, image, np.array(FILLS[modality], image.dtype)), covered


def reader_of(raster: xr.Dataset, name: str) -> Any:
    data: Any = raster[name].variable._data
    while not hasattr(data, "reader"):
        data = data.array
    return data.reader


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A cube that keeps a patch without s1; nobody else shows its upper left tile."""
    folder = tmp_path_factory.mktemp("gappy")
    scene = SCENES[1]
    made = make_patches(folder / "files", [scene], missing=[(scene.id(0), "s1")])
    return build(write_recipe(folder / "tiny.yaml"), made.folder, folder / "tiny.zarr", incomplete="keep")


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.season}-{scene.number}")
def test_a_scene_is_the_image_its_patches_were_cut_from(tiny_cube: Built, scene: Scene, modality: str) -> None:
    raster = open_scene(tiny_cube.url, season=scene.season, scene=scene.number)
    image, covered = truth(scene, modality)
    assert raster[modality].dtype == image.dtype
    assert raster[modality].dims == (f"{modality}_band", "y", "x")
    np.testing.assert_array_equal(raster[modality].values, image)
    np.testing.assert_array_equal(raster["covered"].values, covered)
    np.testing.assert_array_equal(raster[f"{modality}_covered"].values, covered)


def test_each_tile_of_ground_is_decoded_once(tiny_cube: Built) -> None:
    raster = open_scene(tiny_cube.url, season="spring", scene=1)
    reader = reader_of(raster, "s2")
    assert reader.traffic.requests == 0
    raster["s2"].load()
    assert reader.traffic.decoded == (3 + 1) * (4 + 1)


def test_statistics_count_no_pixel_twice(tiny_cube: Built) -> None:
    raster = open_scene(tiny_cube.url, season="summer", scene=1)
    image, covered = truth(SCENES[2], "s2")
    mean = raster["s2"].where(raster["s2_covered"]).mean(("y", "x")).values
    np.testing.assert_allclose(mean, image[:, covered].astype(float).mean(axis=1))
    total = raster["s2"].chunk(y=TILE, x=2 * TILE).astype("int64").sum().compute(scheduler="synchronous")
    assert int(total) == int(image.astype("int64").sum())


@pytest.mark.parametrize("seed", range(40))
def test_every_selection_is_that_of_the_whole_image(tiny_cube: Built, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raster = open_scene(tiny_cube.url, season="summer", scene=1)
    image, _ = truth(SCENES[2], "s2")
    chosen: list[Any] = []
    for length in image.shape:
        start, stop = sorted(rng.integers(0, length, 2).tolist())
        slices = [slice(None), slice(start, stop + 1), slice(stop, None, -1), slice(start, None, 3)]
        chosen.append([*slices, start, rng.integers(-length, length, 5)][rng.integers(6)])
    got = raster["s2"].isel(dict(zip(raster["s2"].dims, chosen, strict=True))).values
    expected = image
    for axis in (2, 1, 0):
        expected = expected[(slice(None),) * axis + (chosen[axis],)]
    np.testing.assert_array_equal(got, expected)


def test_a_window_decodes_only_the_tiles_it_touches(tiny_cube: Built) -> None:
    raster = open_scene(tiny_cube.url, season="spring", scene=1)
    raster["s2"].isel(y=slice(17, 31), x=slice(15, 17)).load()
    assert reader_of(raster, "s2").traffic.decoded == 2


def test_a_modality_that_a_patch_lacks_is_a_hole_of_that_modality_only(gappy: Built) -> None:
    scene = SCENES[1]
    raster = open_scene(gappy.url, season="spring", scene=15)
    radar, covered = truth(scene, "s1", lacking=(scene.id(0),))
    assert not covered.all()
    np.testing.assert_array_equal(raster["s1"].values, radar)
    np.testing.assert_array_equal(raster["s1_covered"].values, covered)
    np.testing.assert_array_equal(raster["covered"].values, covered)
    assert raster["s2_covered"].values.all()
    np.testing.assert_array_equal(raster["s2"].values, truth(scene, "s2")[0])


@pytest.mark.filterwarnings("default:Use `@` matmul:PendingDeprecationWarning")  # rioxarray, on every transform
def test_rioxarray_finds_place_and_crs_and_writes_the_image(tiny_cube: Built, tmp_path: Path) -> None:
    for scene in SCENES:
        raster = open_scene(tiny_cube.url, season=scene.season, scene=scene.number)
        array = raster["s2"]
        assert array.rio.grid_mapping == "spatial_ref"
        assert array.rio.crs.to_epsg() == scene.epsg
        path = tmp_path / f"{scene.season}-{scene.number}.tif"
        array.rio.to_raster(path)
        with rasterio.open(path) as image:
            assert image.crs.to_epsg() == scene.epsg
            got = image.transform
            np.testing.assert_array_equal(image.read(), truth(scene, "s2")[0])
        expected = (10.0, 0.0, scene.origin[0], 0.0, -10.0, scene.origin[1])
        np.testing.assert_allclose(got[:6], expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(array.rio.transform()[:6], expected, rtol=0, atol=1e-6)


def test_rioxarray_knows_what_stands_where_nothing_is(tiny_cube: Built) -> None:
    scene = SCENES[0]
    raster = open_scene(tiny_cube.url, season=scene.season, scene=scene.number)
    patch = open_patch(tiny_cube.url, str(open_cube(tiny_cube.url)["patch"].values[0]))
    for opened in (raster, patch):
        assert np.isnan(opened["s1"].rio.nodata)
        assert opened["s2"].rio.nodata == 0
        assert opened["lc"].rio.nodata == 0


@pytest.mark.filterwarnings("default:Use `@` matmul:PendingDeprecationWarning")  # rioxarray, on every transform
def test_reprojecting_invents_no_values_outside(tiny_cube: Built) -> None:
    scene = SCENES[0]
    raster = open_scene(tiny_cube.url, season=scene.season, scene=scene.number)["s2"]
    turned = raster.rio.reproject("EPSG:4326", resampling=Resampling.bilinear)
    known = raster.values[raster.values > 0]
    given = turned.values[turned.values > 0]
    assert known.min() <= given.min() <= given.max() <= known.max()
    assert (turned.values == 0).any()
    assert turned.rio.nodata == 0


def test_x_and_y_are_pixel_centres(tiny_cube: Built, made: Made) -> None:
    scene = SCENES[0]
    raster = open_scene(tiny_cube.url, season="spring", scene=1)
    height, width = truth(scene, "s2")[1].shape
    np.testing.assert_allclose(raster["x"], scene.origin[0] + 10 * (np.arange(width) + 0.5), rtol=0, atol=1e-6)
    np.testing.assert_allclose(raster["y"], scene.origin[1] - 10 * (np.arange(height) + 0.5), rtol=0, atol=1e-6)
    whole = raster["s2"].load()
    for name in made.ids[:11]:
        patch = open_patch(tiny_cube.url, name)
        there = whole.sel(x=patch.x, y=patch.y, method="nearest")
        np.testing.assert_array_equal(there.values, patch["s2"].values)


def test_a_scene_number_of_two_seasons_is_two_places(tiny_cube: Built) -> None:
    with pytest.raises(RequestError, match="which of spring, summer"):
        open_scene(tiny_cube.url, scene=1)
    only = open_scene(tiny_cube.url, scene=15)
    assert (str(only.season.values), int(only.scene)) == ("spring", 15)
    assert only.attrs["patches"] == only.attrs["patches_placed"] == 6
    assert only.attrs["parts"] == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"season": "sprong", "scene": 1}, "known are spring, summer"),
        ({"season": "spring", "scene": 14}, "spring has no scene 14; nearest are 1, 15"),
        ({"season": "summer", "scene": 15}, "nearest are 1; spring has one"),
        ({"scene": 99}, "no scene 99; nearest are 1, 15"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(tiny_cube: Built, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        open_scene(tiny_cube.url, **asked)


def test_a_patch_is_a_raster_with_its_labels(tiny_cube: Built, made: Made) -> None:
    name = made.ids[20]
    patch = open_patch(tiny_cube.url, name)
    assert str(patch["patch"].values) == name
    assert str(patch["season"].values) == "summer"
    assert patch["s2"].rio.crs.to_epsg() == made.scenes[name].epsg
    assert patch["x"].values[0] == pytest.approx(made.transforms[name].c + 5, abs=1e-6)
    assert patch["y"].values[-1] == pytest.approx(made.transforms[name].f - 10 * (SIZE - 0.5), abs=1e-6)
    for modality in MODALITIES:
        assert patch[modality].shape == (BANDS[modality], SIZE, SIZE)
        np.testing.assert_array_equal(patch[modality].values, made.pixels[name, modality])


def test_an_unknown_patch_is_answered_with_near_ones(tiny_cube: Built, made: Made) -> None:
    with pytest.raises(RequestError, match=made.ids[0]):
        open_patch(tiny_cube.url, made.ids[0] + "0")
    with pytest.raises(RequestError, match="nearest are ROIs"):
        open_patch(tiny_cube.url, "p30")


def test_several_crss_and_broken_grids_make_no_raster(tiny_cube: Built) -> None:
    cube = open_cube(tiny_cube.url)
    with pytest.raises(RequestError, match="more than one CRS"):
        placements(cube, range(25))
    transform = cube["transform"].values.copy()
    transform[3, 0] = 20.0
    with pytest.raises(RequestError, match=r"more than one pixel size.*_p33"):
        placements(cube.assign_coords(transform=(("patch", "affine"), transform)), range(11))
    transform = cube["transform"].values.copy()
    transform[4, 2] += 3.0
    with pytest.raises(RequestError, match=r"_p34 lies 0\.30 pixels off"):
        placements(cube.assign_coords(transform=(("patch", "affine"), transform)), range(11))


def test_a_patch_of_unknown_place_is_a_part_of_its_own(tiny_cube: Built) -> None:
    cube = open_cube(tiny_cube.url)
    transform = cube["transform"].values.copy()
    transform[2] = np.nan
    where = placements(cube.assign_coords(transform=(("patch", "affine"), transform)), range(11))
    assert where.part.tolist() == [0, 0, 1, *[0] * 8]
    assert where.parts == 2


def test_patches_that_lie_parts_of_a_tile_apart_are_pasted_whole(tmp_path: Path) -> None:
    """Two grids of one image, 5 and 3 pixels off each other."""
    scene = Scene("spring", 1, rows=2, columns=2)
    made = make_patches(tmp_path / "files", [scene])
    image = scene_image(scene, "s2", SIZE)
    transform = rasterio.Affine(10, 0, scene.origin[0] + 50, 0, -10, scene.origin[1] - 30)
    name = made.ids[3]
    for modality in MODALITIES:
        with rasterio.open(made.files[name, modality], "r+") as file:
            file.write(scene_image(scene, modality, SIZE)[:, 3 : 3 + SIZE, 5 : 5 + SIZE])
            file.transform = transform
    cube = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "tiny.zarr")
    raster = open_scene(cube.url, scene=1)
    covered = np.zeros(image.shape[1:], bool)
    for top, left in ((0, 0), (0, 16), (16, 0), (3, 5)):
        covered[top : top + SIZE, left : left + SIZE] = True
    np.testing.assert_array_equal(raster["covered"].values, covered)
    np.testing.assert_array_equal(raster["s2"].values, np.where(covered, image, 0))


def test_any_other_zarr_group_is_refused(tmp_path: Path) -> None:
    xr.Dataset({"a": ("patch", [1, 2])}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    for ask in (lambda url: open_scene(url, scene=1), lambda url: open_patch(url, "p1")):
        with pytest.raises(RequestError, match="no cube of this package"):
            ask(str(tmp_path / "other.zarr"))


# Without a georeference


def write_png(folder: Path, number: int, modality: str, pixels: np.ndarray) -> None:
    path = folder / f"ROIs1158_spring/{modality}_7/ROIs1158_spring_{modality}_7_p{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pictures(folder: Path, places: dict[int, tuple[int, int]], image: np.ndarray) -> None:
    """Write patches of one image (y, x, band) in the shape of SEN1-2; s1 is the first band."""
    for number, (top, left) in places.items():
        part = image[top : top + SIZE, left : left + SIZE]
        write_png(folder, number, "s2", part)
        write_png(folder, number, "s1", np.ascontiguousarray(part[..., 0]))


GRID = {number: (number // 3 * TILE, number % 3 * TILE) for number in range(9)}


def random_image(name: str, side: int = 6 * TILE) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, 255, (side, side, 3), np.uint8)


def build_pictures(folder: Path) -> str:
    return build(write_recipe(folder / "tiny.yaml", base="sen1-2"), folder / "files", folder / "tiny.zarr").url


def test_a_scene_without_georeference_is_rebuilt_from_equal_tiles(tmp_path: Path) -> None:
    image = random_image("rebuilt")
    image[:TILE, :TILE] = 9
    image[-TILE:, -TILE:] = 9
    pictures(tmp_path / "files", GRID, image)
    pictures(tmp_path / "files", {20: (0, 0)}, random_image("alone"))
    url = build_pictures(tmp_path)
    raster = open_scene(url, season="spring", scene=7)
    np.testing.assert_array_equal(raster["s2"].values, np.moveaxis(image[: 4 * TILE, : 4 * TILE], -1, 0))
    assert raster["covered"].values.all()
    assert "spatial_ref" not in raster.coords
    assert raster["x"].values.tolist() == [column + 0.5 for column in range(4 * TILE)]
    assert raster.attrs["patches"] == 10
    assert raster.attrs["patches_placed"] == 9
    assert raster.attrs["parts"] == 2
    assert raster.attrs["patches_not_placed"] == ["ROIs1158_spring_7_p20"]
    patch = open_patch(url, "ROIs1158_spring_7_p4")
    np.testing.assert_array_equal(patch["s1"].values[0], image[TILE : TILE + SIZE, TILE : TILE + SIZE, 0])
    assert patch["y"].values.tolist() == [row + 0.5 for row in range(SIZE)]


def test_constant_and_repeated_tiles_prove_nothing(tmp_path: Path) -> None:
    motif = random_image("motif", TILE)
    for number in range(4):
        image = random_image(f"lone {number}", SIZE)
        image[:TILE, :TILE], image[TILE:, TILE:] = 0, motif
        pictures(tmp_path / "files", {number: (0, 0)}, image)
    raster = open_scene(build_pictures(tmp_path), scene=7)
    assert raster.attrs["parts"] == 4
    assert raster.attrs["patches_placed"] == 1


def test_one_equal_tile_is_no_proof_where_the_others_differ(tmp_path: Path) -> None:
    first, second = random_image("first", SIZE), random_image("second", SIZE)
    second[:TILE, :TILE] = first[:TILE, TILE:]  # as if it lay one tile east; the tile below says no
    pictures(tmp_path / "files", {1: (0, 0)}, first)
    pictures(tmp_path / "files", {2: (0, 0)}, second)
    assert open_scene(build_pictures(tmp_path), scene=7).attrs["parts"] == 2


def test_tiles_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """East of one patch lies another; a third says by a corner that the two lie elsewhere."""
    image, other = random_image("contradiction"), random_image("liar", SIZE)
    pictures(tmp_path / "files", {0: (0, 0), 1: (0, TILE)}, image)
    other[TILE:, TILE:] = image[:TILE, :TILE]
    other[:TILE, :TILE] = image[TILE : 2 * TILE, 2 * TILE : 3 * TILE]
    pictures(tmp_path / "files", {2: (0, 0)}, other)
    with pytest.raises(RequestError, match="contradict"):
        open_scene(build_pictures(tmp_path), scene=7)


def test_a_pair_with_two_proven_offsets_is_refused(tmp_path: Path) -> None:
    first, second = random_image("one", SIZE), random_image("two", SIZE)
    second[:TILE, :TILE], second[TILE:, TILE:] = first[TILE:, TILE:], first[:TILE, :TILE]
    pictures(tmp_path / "files", {1: (0, 0)}, first)
    pictures(tmp_path / "files", {2: (0, 0)}, second)
    with pytest.raises(RequestError, match=r"contradict.*_7_p2 would lie"):
        open_scene(build_pictures(tmp_path), scene=7)


def test_parts_are_sorted_by_size_and_start_at_zero(tmp_path: Path) -> None:
    pictures(tmp_path / "files", {0: (0, TILE), 1: (0, 0)}, random_image("pair"))
    pictures(tmp_path / "files", {5: (0, 2 * TILE), 6: (TILE, TILE), 7: (2 * TILE, 0)}, random_image("diagonal"))
    where = placements(open_cube(build_pictures(tmp_path)), range(5))
    assert where.part.tolist() == [1, 1, 0, 0, 0]
    assert where.left.tolist() == [TILE, 0, 2 * TILE, TILE, 0]
    assert where.top.tolist() == [0, 0, 0, TILE, 2 * TILE]


def test_real_neighbours_are_found(shared: Path, tmp_path: Path) -> None:
    url = build("sen1-2", shared / "data/sen12", tmp_path / "real.zarr", incomplete="keep").url
    cube = open_cube(url)
    ids = cube["patch"].values.tolist()
    spring = open_scene(url, season="spring", scene=90)
    assert spring.attrs["patches_placed"] == 2
    assert spring.attrs["parts"] == 7
    neighbours = {f"ROIs1158_spring_90_p{number}" for number in (889, 919)}
    assert set(spring.attrs["patches_not_placed"]) == {name for name in ids if "_90_" in name} - neighbours
    west, east = (cube.sel(patch=f"ROIs1158_spring_90_p{number}") for number in (889, 919))
    assert spring["s2"].shape == (3, 256, 384)
    np.testing.assert_array_equal(spring["s2"].values[..., :256], west["s2"].values)
    np.testing.assert_array_equal(spring["s1"].values[..., 128:], east["s1"].values)
    summer = open_scene(url, season="summer", scene=59)
    assert summer["s1"].shape == (1, 384, 256)
    assert not summer["s2_covered"].values.any()
    upper = cube.sel(patch="ROIs1868_summer_59_p100")
    np.testing.assert_array_equal(summer["s1"].values[:, :256], upper["s1"].values)
