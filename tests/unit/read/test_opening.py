"""Plain ``xr.open_zarr``: what a reader sees who knows nothing of this package. Warnings are errors here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from making import BANDS, DTYPES, LAND_COVER, SEEDS, Built, Made, Scene, build, make_patches

from cube.format.defects import DEFECTS

PER_PATCH = {
    "patch", "season", "scene", "number", "split", "epsg", "transform", "lon", "lat", "present",
    "nan_count", "zero_count", "saturated_count", "digest", "kept", *DEFECTS,
}  # fmt: skip
SCHEMES = ("IGBP", "LCCS_LC", "LCCS_LU", "LCCS_SH")
PER_SCHEME = {f"{scheme}_{kind}" for scheme in SCHEMES for kind in ("code", "name", "color")}
CONSTANT = {"modality", "IGBP_group", "s1_band", "s2_band", "lc_band", "s2_common_name", "s2_wavelength", *PER_SCHEME}


@pytest.fixture
def opened(tiny_cube: Built) -> xr.Dataset:
    return xr.open_zarr(tiny_cube.url)


def test_only_modalities_are_variables_and_every_label_is_a_coordinate(opened: xr.Dataset) -> None:
    assert list(opened.data_vars) == list(BANDS)
    assert set(opened.coords) == PER_PATCH | CONSTANT
    assert {name for name, values in opened.coords.items() if "patch" in values.dims} == PER_PATCH
    assert set(opened.indexes) == {"patch", "s1_band", "s2_band", "lc_band", "modality"}


def test_variables_keep_the_types_of_the_files(opened: xr.Dataset, made: Made) -> None:
    for name, bands in BANDS.items():
        assert opened[name].dtype == DTYPES[name]
        assert opened[name].dims == ("patch", f"{name}_band", "y", "x")
        assert opened[name].shape == (len(made.ids), bands, made.size, made.size)
        assert "_FillValue" not in opened[name].attrs


def test_whole_arrays(opened: xr.Dataset, made: Made) -> None:
    assert opened["patch"].values.tolist() == made.ids
    for name in BANDS:
        np.testing.assert_array_equal(opened[name].values, made.array(name))


@pytest.mark.parametrize("chunks", [{}, None])
def test_by_season_and_bands(tiny_cube: Built, made: Made, chunks: Any) -> None:
    part = xr.open_zarr(tiny_cube.url, chunks=chunks).sel(season="summer", s2_band=["B04", "B03", "B02"])
    rows = [row for row, name in enumerate(made.ids) if made.scenes[name].season == "summer"]
    assert 0 < len(rows) < len(made.ids)
    assert part["patch"].values.tolist() == [made.ids[row] for row in rows]
    assert set(part["season"].values.tolist()) == {"summer"}
    assert part["s2_band"].values.tolist() == ["B04", "B03", "B02"]
    np.testing.assert_array_equal(part["s2"].values, made.array("s2")[rows][:, [3, 2, 1]])
    np.testing.assert_array_equal(part["s1"].values, made.array("s1")[rows])


def test_by_id_and_by_split(opened: xr.Dataset, made: Made) -> None:
    name = made.ids[12]
    np.testing.assert_array_equal(opened["lc"].sel(patch=name).values, made.pixels[name, "lc"])
    part = opened.sel(split="test")
    expected = [item for item in made.ids if (made.scenes[item].season, made.scenes[item].number) == ("spring", 15)]
    assert part["patch"].values.tolist() == expected != []


def test_labels_say_where_each_patch_is_from(opened: xr.Dataset, made: Made) -> None:
    scenes = [made.scenes[name] for name in made.ids]
    assert opened["season"].values.tolist() == [scene.season for scene in scenes]
    assert opened["scene"].values.tolist() == [scene.number for scene in scenes]
    assert opened["number"].values.tolist() == [made.numbers[name] for name in made.ids]
    assert opened["epsg"].values.tolist() == [scene.epsg for scene in scenes]
    np.testing.assert_array_equal(opened["transform"].values, [tuple(made.transforms[name])[:6] for name in made.ids])
    assert opened["present"].values.all()
    order = [(list(SEEDS).index(scene.season), scene.number) for scene in scenes]
    assert order == sorted(order)


def test_counts(opened: xr.Dataset, made: Made) -> None:
    saturated = {"s1": 0.0, "s2": 65535}
    for place, name in enumerate(BANDS):
        pixels, per_patch = made.array(name), (1, 2, 3)
        expected = {
            "nan_count": np.isnan(pixels).sum(axis=per_patch),
            "zero_count": (pixels == 0).sum(axis=per_patch),
            "saturated_count": (pixels == saturated.get(name, np.inf)).sum(axis=per_patch),
        }
        for label, values in expected.items():
            np.testing.assert_array_equal(opened[label].values[:, place], values, err_msg=f"{label} of {name}")
    assert opened["nan_count"].sum() > 0
    assert opened["saturated_count"].sum() > 0


CLASSES = {
    ("IGBP", 1): "Evergreen Needleleaf Forests",
    ("IGBP", 12): "Croplands",
    ("IGBP", 17): "Water Bodies",
    ("LCCS_LC", 3): "Water Bodies",
    ("LCCS_LC", 11): "Evergreen Needleleaf Forests",
    ("LCCS_LC", 43): "Sparse Shrublands",
    ("LCCS_LU", 9): "Urban and Built-up Lands",
    ("LCCS_LU", 36): "Herbaceous Croplands",
    ("LCCS_SH", 27): "Woody Wetlands",
    ("LCCS_SH", 51): "Tundra",
}
NUMBERS = {"IGBP": 17, "LCCS_LC": 16, "LCCS_LU": 11, "LCCS_SH": 10}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_has_its_own_legend(opened: xr.Dataset, scheme: str) -> None:
    codes, names = opened[f"{scheme}_code"].values.tolist(), opened[f"{scheme}_name"].values.tolist()
    assert len(codes) == NUMBERS[scheme] == len(set(codes))
    legend = dict(zip(codes, names, strict=True))
    known = {code: name for (item, code), name in CLASSES.items() if item == scheme}
    assert known.items() <= legend.items()
    assert set(LAND_COVER[SCHEMES.index(scheme)]) <= legend.keys()
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in opened[f"{scheme}_color"].values.tolist())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_legends_are_cf_flags(opened: xr.Dataset, scheme: str) -> None:
    coded = opened[f"{scheme}_code"]
    assert coded.attrs["flag_values"] == coded.values.tolist()
    words = coded.attrs["flag_meanings"].split(" ")
    assert len(words) == len(set(words)) == coded.size
    assert all(re.fullmatch("[a-z0-9_]+", word) for word in words)
    initials = [re.sub("[^a-z0-9]", "", name.lower()) for name in opened[f"{scheme}_name"].values.tolist()]
    assert [word.replace("_", "") for word in words] == initials


def test_every_band_of_classes_names_its_legend(opened: xr.Dataset) -> None:
    named = opened["lc"].attrs["band_legends"]
    assert named == {scheme: f"{scheme}_code" for scheme in SCHEMES}
    assert opened["lc_band"].values.tolist() == list(SCHEMES)
    for place, scheme in enumerate(SCHEMES):
        seen = np.unique(opened["lc"].isel(lc_band=place).values)
        assert set(seen.tolist()) <= set(opened[named[scheme]].values.tolist())


def test_opening_undivided_and_dividing_after_the_choice(tiny_cube: Built, made: Made) -> None:
    part = xr.open_zarr(tiny_cube.url, chunks=None).sel(scene=1).chunk(patch=4)
    rows = [row for row, name in enumerate(made.ids) if made.scenes[name].number == 1]
    assert part["s2"].chunksizes["patch"] == (4, 4, 4, 4, 3)
    assert part["s2"].chunksizes["y"] == (made.size,)
    np.testing.assert_array_equal(part["s2"].mean("patch").values, made.array("s2")[rows].mean(axis=0))


def test_the_line_that_the_root_gives_runs(tiny_cube: Built, opened: xr.Dataset, made: Made) -> None:
    line = opened.attrs["open_with"]
    assert line.count("URL") == 1
    part = eval(line.replace("URL", repr(tiny_cube.url)), {"xr": xr})
    season = next(iter(part["season"].values.tolist()))
    rows = [row for row, name in enumerate(made.ids) if made.scenes[name].season == season]
    assert part.chunks
    np.testing.assert_array_equal(part["s1"].values, made.array("s1")[rows])


def test_the_line_names_a_season_that_is_there(tmp_path: Path, tiny_recipe: Path) -> None:
    made = make_patches(tmp_path / "patches", [Scene("winter", 4, rows=1, columns=2)])
    url = build(tiny_recipe, made.folder, tmp_path / "x.zarr").url
    part = eval(xr.open_zarr(url).attrs["open_with"].replace("URL", repr(url)), {"xr": xr})
    assert part["patch"].values.tolist() == made.ids


def test_consolidated_metadata_is_not_required(tiny_cube: Built, opened: xr.Dataset) -> None:
    alone = xr.open_zarr(tiny_cube.url, consolidated=False)
    xr.testing.assert_identical(alone, opened)
