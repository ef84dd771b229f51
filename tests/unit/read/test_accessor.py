"""Pictures: the right bands in the right colours, and nothing where there is no pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import SCENES, Built, Made, build, make_patches, write_recipe
from PIL import Image

from cube import open_cube
from cube.errors import RequestError
from cube.read.scenes import open_patch, open_scene

SIZE = 32
RED, GREEN, BLUE = 3, 2, 1
"""Positions of bands in s2."""


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cube of one SEN1-2 pair."""
    folder = tmp_path_factory.mktemp("grey")
    ramp = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE)
    for modality, pixels in (("s1", ramp), ("s2", np.stack([ramp, ramp // 2, 255 - ramp], axis=-1))):
        path = folder / f"files/ROIs1158_spring/{modality}_7/ROIs1158_spring_{modality}_7_p1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(path)
    return build(write_recipe(folder / "tiny.yaml", base="sen1-2"), folder / "files", folder / "tiny.zarr").url


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cube of two patches; the first lacks s1 and the second s2."""
    folder = tmp_path_factory.mktemp("gappy")
    scene = SCENES[1]
    wanted = [scene.id(number) for number in (0, 1)]
    missing = [(wanted[0], "s1"), (wanted[1], "s2")]
    others = [(scene.id(number), kind) for number in range(2, 6) for kind in ("s1", "s2", "lc")]
    made = make_patches(folder / "files", [scene], missing=[*missing, *others])
    return build(write_recipe(folder / "tiny.yaml"), made.folder, folder / "tiny.zarr", incomplete="keep").url


def test_true_color_takes_bands_by_their_common_names(tiny_cube: Built, made: Made) -> None:
    name = made.ids[4]
    picture = open_patch(tiny_cube.url, name).cube.rgb()
    pixels = made.pixels[name, "s2"][[RED, GREEN, BLUE]].astype(float)
    low, high = np.percentile(pixels, [2, 98])
    expected = np.clip((pixels - low) / (high - low), 0, 1)
    assert picture.dims == ("y", "x", "rgb")
    assert picture["rgb"].values.tolist() == ["red", "green", "blue"]
    assert picture.dtype == np.float32
    np.testing.assert_allclose(picture.values, np.moveaxis(expected, 0, -1), atol=1e-4)
    assert float(picture.x[0]) == pytest.approx(made.transforms[name].c + 5, abs=1e-6)


def test_percentiles_can_be_given(tiny_cube: Built, made: Made) -> None:
    pixels = made.pixels[made.ids[4], "s2"][[RED, GREEN, BLUE]].astype(float)
    picture = open_patch(tiny_cube.url, made.ids[4]).cube.rgb(percentiles=(0, 100))
    expected = (pixels - pixels.min()) / np.ptp(pixels)
    np.testing.assert_allclose(picture.values, np.moveaxis(expected, 0, -1), atol=1e-4)


def test_a_cube_gives_one_picture_a_patch_all_stretched_alike(tiny_cube: Built, made: Made) -> None:
    picture = open_cube(tiny_cube.url).isel(patch=[2, 0]).cube.rgb()
    pixels = np.stack([made.pixels[made.ids[row], "s2"][[RED, GREEN, BLUE]] for row in (2, 0)]).astype(float)
    low, high = np.percentile(pixels, [2, 98])
    assert picture.dims == ("patch", "y", "x", "rgb")
    np.testing.assert_allclose(picture.values, np.moveaxis(np.clip((pixels - low) / (high - low), 0, 1), 1, -1), atol=1e-4)


def test_a_hole_of_a_scene_is_nan_and_does_not_stretch(tiny_cube: Built) -> None:
    scene = open_scene(tiny_cube.url, season="summer", scene=1)
    picture, covered = scene.cube.rgb(), scene["covered"].values
    assert np.isnan(picture.values[~covered]).all()
    assert np.isfinite(picture.values[covered]).all()
    pixels = scene["s2"].values[[RED, GREEN, BLUE]][:, covered]
    low, high = np.percentile(pixels, [2, 98])
    np.testing.assert_allclose(picture.values[covered], np.clip((pixels.T - low) / (high - low), 0, 1), atol=1e-4)


def test_radar_is_vv_vh_and_their_difference_in_decibels(tiny_cube: Built, made: Made) -> None:
    vv, vh = made.pixels[made.ids[3], "s1"].astype(float)
    picture = open_patch(tiny_cube.url, made.ids[3]).cube.sar()
    expected = np.clip(np.stack([(vv + 25) / 25, (vh + 25) / 25, (vv - vh) / 25], axis=-1), 0, 1)
    np.testing.assert_allclose(picture.values, expected, atol=1e-5)
    assert picture.dims == ("y", "x", "rgb")


def test_radar_of_several_patches_keeps_their_dimension(tiny_cube: Built) -> None:
    cube = open_cube(tiny_cube.url)
    both = cube.isel(patch=slice(3, 5)).cube.sar()
    assert both.dims == ("patch", "y", "x", "rgb")
    np.testing.assert_array_equal(both.values[1], cube.isel(patch=4).cube.sar().values)


def test_radar_of_one_8_bit_band_is_grey(grey: str) -> None:
    picture = open_cube(grey).isel(patch=0).cube.sar()
    expected = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE) / 255
    for color in range(3):
        np.testing.assert_allclose(picture.values[..., color], expected, atol=1e-6)


def test_classes_are_coloured_as_the_legend_says(tiny_cube: Built, made: Made) -> None:
    cube = open_cube(tiny_cube.url)
    for place, band in enumerate(("IGBP", "LCCS_LC", "LCCS_LU", "LCCS_SH")):
        picture = open_patch(tiny_cube.url, made.ids[7]).cube.classes(band)
        codes = made.pixels[made.ids[7], "lc"][place]
        colors = dict(zip(cube[f"{band}_code"].values.tolist(), cube[f"{band}_color"].values.tolist(), strict=True))
        assert set(np.unique(codes).tolist()) <= colors.keys()
        for code in np.unique(codes).tolist():
            rgb = [part / 255 for part in bytes.fromhex(colors[code][1:])]
            np.testing.assert_allclose(picture.values[codes == code], [rgb] * int((codes == code).sum()), atol=1e-6)


def test_a_code_without_a_class_is_nan(tiny_cube: Built) -> None:
    cube = open_cube(tiny_cube.url).isel(patch=[0]).load()
    cube["lc"][0, 0, 0, :3] = np.array([0, 99, 255], np.uint8)
    picture = cube.cube.classes("IGBP")
    assert np.isnan(picture.values[0, 0, :3]).all()
    assert np.isfinite(picture.values[0, 1:]).all()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda view: view.rgb("s1"), "s1 has no band with the common name red, green, blue"),
        (lambda view: view.rgb("s9"), "no modality 's9'; there are s1, s2, lc"),
        (lambda view: view.sar("s2"), "s2 has no band VV"),
        (lambda view: view.classes("B04"), "no modality has band 'B04' with a legend"),
        (lambda view: view.classes("B04", modality="lc"), "it has IGBP, LCCS_LC, LCCS_LU, LCCS_SH"),
        (lambda view: view.plot(), "25 patches: name one"),
        (lambda view: view.plot("p1"), "no patch 'p1' among these 25"),
    ],
)
def test_what_cannot_be_drawn_is_said(tiny_cube: Built, asked: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        asked(open_cube(tiny_cube.url).cube)


def test_radar_in_other_units_is_refused(tiny_cube: Built) -> None:
    cube = open_cube(tiny_cube.url).isel(patch=[0])
    cube["s1"].attrs["units"] = "1"
    with pytest.raises(RequestError, match="expected dB"):
        cube.cube.sar()


def panels(figure: Any) -> list[tuple[str, np.ndarray]]:
    return [(axes.get_title(), axes.images[0].get_array().data) for axes in figure.axes]


def test_a_plot_shows_every_modality_and_names_the_classes_that_are_there(tiny_cube: Built, made: Made, tmp_path: Path) -> None:
    name = made.ids[7]
    cube = open_cube(tiny_cube.url)
    figure = cube.cube.plot(patch=name)
    figure.savefig(tmp_path / "patch.png")
    (_, radar), (_, optical), (title, cover) = panels(figure)
    patch = open_patch(tiny_cube.url, name)
    np.testing.assert_allclose(radar, np.nan_to_num(patch.cube.sar().values, nan=1.0))
    np.testing.assert_allclose(optical, patch.cube.rgb().values)
    np.testing.assert_allclose(cover, patch.cube.classes("IGBP").values)
    assert title.endswith(": IGBP")
    codes = np.unique(made.pixels[name, "lc"][0])
    named = dict(zip(cube["IGBP_code"].values.tolist(), cube["IGBP_name"].values.tolist(), strict=True))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [named[code] for code in codes.tolist()]
    assert figure.get_suptitle() == name


def test_a_plot_of_a_scene_lies_where_the_scene_does(tiny_cube: Built) -> None:
    scene = SCENES[2]
    figure = open_scene(tiny_cube.url, season="summer", scene=1).cube.plot()
    west, east, south, north = figure.axes[1].images[0].get_extent()
    assert (west, north) == pytest.approx(scene.origin)
    assert (east - west, north - south) == pytest.approx((640, 640))
    assert figure.axes[1].get_xlabel() == "x (metre)"
    assert (panels(figure)[1][1][0, 0] == 1).all()
    assert figure.get_suptitle() == "summer 1"


def test_a_modality_that_is_absent_is_not_drawn(gappy: str) -> None:
    cube = open_cube(gappy)
    assert [len(cube.cube.plot(patch=str(name)).axes) for name in cube["patch"].values] == [2, 2]
    first = cube.isel(patch=0)
    assert np.isnan(first.cube.sar().values).all()
    assert np.isnan(cube.isel(patch=1).cube.rgb().values).all()
    empty = open_patch(gappy, str(first["patch"].values)).drop_vars(["s2", "lc"])
    with pytest.raises(RequestError, match="no modality has pixels"):
        empty.cube.plot()


def test_a_pair_of_pictures_is_drawn_in_pixels(grey: str) -> None:
    figure = open_scene(grey, scene=7).cube.plot()
    assert len(figure.axes) == 2
    assert figure.axes[0].images[0].get_extent() == [0, SIZE, SIZE, 0]
    assert figure.axes[0].get_xlabel() == "x (pixels)"
    assert not figure.legends
