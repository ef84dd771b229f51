"""Bytes beside the pixels never decide whether a patch is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner
from making import Scene, build, make_patches, write_recipe

from cube.cli.main import main
from cube.verify.verification import verify_cube

SCENE = Scene("spring", 7, rows=1, columns=3, first=30)


def with_tags(path: Path) -> None:
    with rasterio.open(path, "r+") as image:
        image.update_tags(HISTORY="x" * 20_000)


def with_overviews(path: Path) -> None:
    with rasterio.open(path, "r+") as image:
        image.build_overviews([2, 4, 8])
    path.write_bytes(path.read_bytes() + bytes(10_000))


def with_mask(path: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as image:
        image.write_mask(np.arange(32 * 32).reshape(32, 32) % 2 == 0)
        image.update_tags(MORE="y" * 10_000)


def as_cog(path: Path) -> None:
    copy = path.with_suffix(".cog")
    with rasterio.open(path) as image:
        profile, pixels = image.profile, image.read()
    keys = ("crs", "transform", "count", "dtype", "width", "height")
    with rasterio.open(copy, "w", driver="COG", blocksize=128, **{key: profile[key] for key in keys}) as image:
        image.write(pixels)
        image.update_tags(MORE="z" * 10_000)
    shutil.move(copy, path)


@pytest.mark.parametrize("change", [with_tags, with_overviews, with_mask, as_cog])
def test_a_patch_with_many_other_bytes_is_kept(tmp_path: Path, change: object) -> None:
    made = make_patches(tmp_path / "files", [SCENE])
    (chosen,) = made.folder.rglob("*_s2_7_p31.tif")
    with rasterio.open(chosen) as image:
        pixels = image.read()
    change(chosen)  # type: ignore[operator]
    built = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "x.zarr")
    assert built.written.rejected == []
    cube = xr.open_zarr(built.url, chunks=None)
    row = cube["patch"].values.tolist().index(made.ids[1])
    assert cube["present"].values.all()
    np.testing.assert_array_equal(cube["s2"][row].values, pixels)

    report = verify_cube(built.target, source=str(made.folder))
    assert report.passed, report.document()
    said = next(check.seen for check in report.checks if check.name == "originals")
    assert said == "9 headers: 8 files come back byte for byte, 1 with equal pixels and place only"
    facts = json.loads(CliRunner().invoke(main, ["info", built.url, "--json"]).output)
    assert facts["files"] == {"byte_for_byte": 8, "equal_pixels": 1}


@pytest.mark.parametrize("change", [lambda data: data + b"more", lambda data: data.replace(b"xxxxx", b"yyyyy")])
def test_a_changed_file_is_still_noticed(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    made = make_patches(tmp_path / "files", [SCENE])
    (chosen,) = made.folder.rglob("*_s2_7_p31.tif")
    with_tags(chosen)
    built = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "x.zarr")
    chosen.write_bytes(change(chosen.read_bytes()))
    report = verify_cube(built.target, source=str(made.folder))
    assert not report.passed
