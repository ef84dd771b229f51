"""Cubes of real files, built by the command: every pixel and every coordinate against rasterio, Pillow and PROJ.

Nothing here imports the package: what it gives is read by plain xarray, what it must be is worked out again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
import xarray as xr
from PIL import Image
from pyproj import Transformer

SEASONS = ("spring", "summer", "fall", "winter")
S1 = (("VV", None, None), ("VH", None, None))
S2 = (
    ("B01", "coastal", 0.443),
    ("B02", "blue", 0.490),
    ("B03", "green", 0.560),
    ("B04", "red", 0.665),
    ("B05", "rededge071", 0.704),
    ("B06", "rededge075", 0.740),
    ("B07", "rededge078", 0.783),
    ("B08", "nir", 0.842),
    ("B8A", "nir08", 0.865),
    ("B09", "nir09", 0.945),
    ("B10", "cirrus", 1.375),
    ("B11", "swir16", 1.610),
    ("B12", "swir22", 2.190),
)
LC = (("IGBP", None, None), ("LCCS_LC", None, None), ("LCCS_LU", None, None), ("LCCS_SH", None, None))
UNTOLD = {"digest", "kept"}
"""Coordinates that only the format's own description explains; looked at where the certificate is tested."""


@dataclass(frozen=True)
class Kind:
    """What the files of one modality are."""

    bands: tuple[tuple[str, str | None, float | None], ...]
    """Name, common name, wavelength in micrometres."""
    dtype: str
    fill: float
    saturated: float | None
    units: str


@dataclass(frozen=True)
class DataSet:
    """One folder of real files."""

    recipe: str
    folder: str
    suffix: str
    kinds: dict[str, Kind]
    splits: bool = False
    legends: bool = False


SAR = Kind(S1, "float32", np.nan, 0.0, "dB")
OPTICAL = Kind(S2, "uint16", 0, 65535, "1")
SEN12MS = DataSet("sen12ms", "sen12ms", "tif", {"s1": SAR, "s2": OPTICAL, "lc": Kind(LC, "uint8", 0, None, "1")}, True, True)
SEN12MS_CR = DataSet("sen12ms-cr", "sen12ms-cr", "tif", {"s1": SAR, "s2": OPTICAL, "s2_cloudy": OPTICAL})
SEN12 = DataSet(
    "sen1-2",
    "sen12",
    "png",
    {
        "s1": Kind((("VV", None, None),), "uint8", 0, 255, "1"),
        "s2": Kind((S2[3], S2[2], S2[1]), "uint8", 0, 255, "1"),
    },
)


@dataclass(frozen=True)
class Patch:
    """One patch, by its files' names."""

    id: str
    season: str
    scene: int
    number: int
    files: dict[str, Path]


def patches_of(data: DataSet, source: Path) -> list[Patch]:
    """Return the patches of a folder in the order of a cube."""
    found: dict[tuple[int, int, int], Patch] = {}
    for path in source.rglob(f"*.{data.suffix}"):
        roi, season, *kind, scene, patch = path.stem.split("_")
        place = SEASONS.index(season), int(scene), int(patch[1:])
        name = f"{roi}_{season}_{scene}_{patch}"
        found.setdefault(place, Patch(name, season, int(scene), int(patch[1:]), {})).files["_".join(kind)] = path
    return [found[place] for place in sorted(found)]


def pixels_of(path: Path) -> np.ndarray:
    """Return (band, y, x) of a file."""
    if path.suffix == ".tif":
        with rasterio.open(path) as image:
            return image.read()
    with Image.open(path) as picture:
        values = np.asarray(picture)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cube", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def build(data: DataSet, shared: Path, folder: Path, *more: str, code: int = 0) -> Path:
    target = folder / f"{data.recipe}.zarr"
    source = shared / "data" / data.folder
    done = run("build", data.recipe, "--source", source, "--to", target, "--workers", "1", *more)
    assert done.returncode == code, done.stdout + done.stderr
    return target


def compare(cube: Path, data: DataSet, patches: list[Patch], shared: Path) -> None:
    with xr.open_zarr(cube) as opened:
        assert list(opened.data_vars) == list(data.kinds)
        expected = {**labels(data, patches), **georeference(data, patches), **bands(data), **legends(data, shared)}
        if data.splits:
            expected["split"] = splits(patches, shared)
        assert set(opened.coords) == set(expected) | UNTOLD
        for name, values in expected.items():
            check_label(name, opened[name], np.asarray(values))
        for name in data.kinds:
            check_pixels(opened[name], name, data.kinds[name], patches)
        assert opened["digest"].shape == (len(patches), len(data.kinds), 32)
        assert ((opened["digest"].values != 0).any(axis=-1) == expected["present"]).all()


def check_label(name: str, seen: xr.DataArray, expected: np.ndarray) -> None:
    if expected.dtype.kind == "f" and name in ("lon", "lat"):
        np.testing.assert_allclose(seen.values, expected, rtol=0, atol=1e-9, err_msg=name)
    else:
        assert seen.dtype.kind == expected.dtype.kind, name
        np.testing.assert_array_equal(seen.values, expected, err_msg=name)


def check_pixels(seen: xr.DataArray, name: str, kind: Kind, patches: list[Patch]) -> None:
    assert seen.dtype == kind.dtype
    assert seen.dims == ("patch", f"{name}_band", "y", "x")
    assert seen.shape == (len(patches), len(kind.bands), 256, 256)
    assert seen.attrs["units"] == kind.units
    for row, patch in enumerate(patches):
        values = seen[row].values
        if name in patch.files:
            assert values.tobytes() == pixels_of(patch.files[name]).tobytes(), patch.files[name].name
        else:
            np.testing.assert_array_equal(values, np.full(values.shape, kind.fill, kind.dtype))


def labels(data: DataSet, patches: list[Patch]) -> dict[str, Any]:
    kinds = list(data.kinds)
    shape = len(patches), len(kinds)
    counts = {name: np.zeros(shape, np.int32) for name in ("nan_count", "zero_count", "saturated_count")}
    for row, patch in enumerate(patches):
        for name, path in patch.files.items():
            pixels, place = pixels_of(path), (row, kinds.index(name))
            counts["nan_count"][place] = np.isnan(pixels).sum()
            counts["zero_count"][place] = (pixels == 0).sum()
            counts["saturated_count"][place] = (pixels == data.kinds[name].saturated).sum()
    return {
        "patch": [patch.id for patch in patches],
        "season": [patch.season for patch in patches],
        "scene": [patch.scene for patch in patches],
        "number": [patch.number for patch in patches],
        "modality": kinds,
        "present": [[name in patch.files for name in kinds] for patch in patches],
        **counts,
        "nan": counts["nan_count"].sum(axis=1),
        "saturated": counts["saturated_count"].sum(axis=1),
        **defects(patches),
    }


def defects(patches: list[Patch]) -> dict[str, Any]:
    counts = {name: np.zeros(len(patches), np.int32) for name in ("constant", "empty", "masked", "known_defect")}
    for row, patch in enumerate(patches):
        for name, path in patch.files.items():
            pixels = pixels_of(path)
            counts["empty"][row] += not np.nan_to_num(pixels).any()
            if name != "lc":
                counts["constant"][row] += sum(len(np.unique(band)) == 1 for band in pixels)
            if path.suffix == ".png":
                continue
            with rasterio.open(path) as image:
                counts["masked"][row] += image.nodata is not None and bool((pixels == image.nodata).any())
    return counts


def georeference(data: DataSet, patches: list[Patch]) -> dict[str, Any]:
    if data.suffix == "png":
        return {}
    rows = []
    for patch in patches:
        places = set()
        for path in patch.files.values():
            with rasterio.open(path) as image:
                places.add((image.crs.to_epsg(), tuple(image.transform)[:6], image.transform @ (128.0, 128.0)))
        assert len(places) == 1, patch.id
        rows.append(places.pop())
    lon, lat = [], []
    for epsg, _, (x, y) in rows:
        by_gdal = [values[0] for values in rasterio.warp.transform(f"EPSG:{epsg}", "EPSG:4326", [x], [y])]
        by_proj = Transformer.from_crs(epsg, 4326, always_xy=True).transform(x, y)
        np.testing.assert_allclose(by_gdal, by_proj, rtol=0, atol=1e-9)
        lon.append(by_gdal[0])
        lat.append(by_gdal[1])
    return {"epsg": [row[0] for row in rows], "transform": [row[1] for row in rows], "lon": lon, "lat": lat}


def bands(data: DataSet) -> dict[str, Any]:
    expected: dict[str, Any] = {}
    for name, kind in data.kinds.items():
        expected[f"{name}_band"] = [band[0] for band in kind.bands]
        if kind.bands[0][1]:
            expected[f"{name}_common_name"] = [band[1] for band in kind.bands]
            expected[f"{name}_wavelength"] = [band[2] for band in kind.bands]
    return expected


def legends(data: DataSet, shared: Path) -> dict[str, Any]:
    if not data.legends:
        return {}
    published = json.loads((shared / "data" / "index" / "modis_legends.json").read_text())
    expected: dict[str, Any] = {}
    for place, (scheme, _, _) in enumerate(LC, start=1):
        classes = published[f"lc_band_{place}_{scheme}"]
        expected[f"{scheme}_code"] = [item["value"] for item in classes]
        expected[f"{scheme}_name"] = [item["name"] for item in classes]
        expected[f"{scheme}_color"] = [f"#{item['color']}" for item in classes]
    wider = {item["value"]: item["name"] for item in published["DFC2020_simplified_IGBP"]}
    table = published["igbp_to_dfc2020_lut_index_0_17"]
    expected["IGBP_group"] = [wider[table[code]] for code in expected["IGBP_code"]]
    return expected


def splits(patches: list[Patch], shared: Path) -> list[str]:
    held_out = (shared / "data" / "index" / "SEN12MS_holdOutScenes.txt").read_text().split()
    assert len(held_out) == 26
    tests = {(line.partition("/")[0].partition("_")[2], int(line.rpartition("_")[2])) for line in held_out}
    return ["test" if (patch.season, patch.scene) in tests else "train" for patch in patches]


@pytest.mark.parametrize("data", [SEN12MS, SEN12MS_CR, SEN12], ids=lambda data: data.recipe)
def test_keep_marks_the_gaps(data: DataSet, shared: Path, tmp_path: Path) -> None:
    patches = patches_of(data, shared / "data" / data.folder)
    assert any(len(patch.files) < len(data.kinds) for patch in patches)
    compare(build(data, shared, tmp_path, "--incomplete", "keep"), data, patches, shared)


@pytest.mark.parametrize("data", [SEN12MS_CR, SEN12], ids=lambda data: data.recipe)
def test_reject_leaves_incomplete_patches_out(data: DataSet, shared: Path, tmp_path: Path) -> None:
    patches = patches_of(data, shared / "data" / data.folder)
    complete = [patch for patch in patches if len(patch.files) == len(data.kinds)]
    assert 0 < len(complete) < len(patches)
    compare(build(data, shared, tmp_path, "--incomplete", "reject", code=3), data, complete, shared)


@pytest.mark.parametrize("data", [SEN12MS, SEN12MS_CR, SEN12], ids=lambda data: data.recipe)
def test_fail_writes_nothing(data: DataSet, shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / data.folder
    patches = patches_of(data, source)
    incomplete = [patch.id for patch in patches if len(patch.files) < len(data.kinds)]
    done = run("build", data.recipe, "--source", source, "--to", tmp_path / "x.zarr", "--workers", "1", "--incomplete", "fail")
    assert done.returncode == 1, done.stderr
    assert any(name in done.stderr for name in incomplete)
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_reject_with_nothing_left_writes_nothing(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "sen12ms"
    done = run("build", "sen12ms", "--source", source, "--to", tmp_path / "x.zarr", "--workers", "1", "--incomplete", "reject")
    assert done.returncode == 1, done.stderr
    assert "incomplete" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []
