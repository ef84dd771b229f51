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
from cube.format.target import target_of
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


def with_more_tags_than_are_kept(path: Path) -> None:
    with rasterio.open(path, "r+") as image:
        image.update_tags(HISTORY="x" * 70_000)


BYTES, TAGS, PIXELS = (
    "9 files come back byte for byte",
    "1 with equal pixels, place and tags",
    "1 with equal pixels and place only",
)


@pytest.mark.parametrize(
    ("change", "kind", "comes"),
    [
        (with_tags, "bytes", BYTES),
        (with_overviews, "tags", TAGS),
        (with_mask, "bytes", BYTES),
        (as_cog, "header", TAGS),
        (with_more_tags_than_are_kept, "pixels", PIXELS),
    ],
)
def test_a_patch_with_many_other_bytes_is_kept(tmp_path: Path, change: Callable[[Path], None], kind: str, comes: str) -> None:
    made = make_patches(tmp_path / "files", [SCENE])
    (chosen,) = made.folder.rglob("*_s2_7_p31.tif")
    with rasterio.open(chosen) as image:
        pixels = image.read()
    change(chosen)
    built = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "x.zarr")
    assert built.written.rejected == []
    cube = xr.open_zarr(built.url, chunks=None)
    row = cube["patch"].values.tolist().index(made.ids[1])
    assert cube["present"].values.all()
    np.testing.assert_array_equal(cube["s2"][row].values, pixels)

    report = verify_cube(built.target, source=str(made.folder))
    assert report.passed, report.document()
    said = next(check.seen for check in report.checks if check.name == "originals")
    assert said.endswith(comes)
    assert cube["kept"].attrs["flag_meanings"].split()[cube["kept"].values[row, 1]] == kind
    facts = json.loads(CliRunner().invoke(main, ["info", built.url, "--json"]).output)
    assert facts["files"] == {"byte_for_byte": 8 + (comes == BYTES), "tags": int(comes == TAGS), "pixels": int(comes == PIXELS)}
    if kind == "bytes":
        originals = xr.open_zarr(f"{built.url}/originals", chunks=None, consolidated=False)
        size, start = int(originals["header_size"][row, 1]), int(originals["pixel_start"][row, 1])
        header = originals["header"][row, 1].values.tobytes()[:size]
        body = pixels.transpose(1, 2, 0).tobytes()
        assert header[:start] + body + header[start:] == chosen.read_bytes()


def test_long_headers_go_along_with_copies_and_subsets(tmp_path: Path) -> None:
    made = make_patches(tmp_path / "files", [Scene("spring", 7, rows=3, columns=8, first=0)])
    for number in (3, 20):
        with_tags(made.files[made.ids[number], "s2"])
    built = build(write_recipe(tmp_path / "tiny.yaml", shard=8), made.folder, tmp_path / "x.zarr")
    keys = {
        str(path.relative_to(tmp_path / "x.zarr/originals/header/c"))
        for path in (tmp_path / "x.zarr/originals/header/c").rglob("*")
    }
    assert {key.rpartition("/")[2] for key in keys if key.startswith("1/0/")} == {"0"}  # nothing long in the second batch
    assert len([key for key in keys if key.startswith("0/0/")]) == len([key for key in keys if key.startswith("2/0/")]) == 3
    for words in ((), ("--where", "number>=15")):
        to = tmp_path / f"copy{len(words)}.zarr"
        copied = CliRunner().invoke(main, ["copy", built.url, str(to), "--workers", "0", *words])
        assert copied.exit_code == 0, copied.output
        assert CliRunner().invoke(main, ["verify", str(to), "--source", str(made.folder), "--workers", "0"]).exit_code == 0
    part, whole = (
        xr.open_zarr(f"{url}/originals", chunks=None, consolidated=False) for url in (tmp_path / "copy2.zarr", built.url)
    )
    np.testing.assert_array_equal(part["header"].values, whole["header"].values[15:])

    damaged = next((tmp_path / "copy0.zarr/originals/header/c/2/0").glob("2"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    report = verify_cube(target_of(str(tmp_path / "copy0.zarr")))
    assert [finding.where for finding in report.findings] == ["originals/header/c/2/0/2"]
    damaged.unlink()
    assert not verify_cube(target_of(str(tmp_path / "copy0.zarr"))).passed


@pytest.mark.parametrize("before", [with_tags, with_overviews, with_more_tags_than_are_kept])
@pytest.mark.parametrize("change", [lambda data: data + b"more", lambda data: data[:-9] + b"?" + data[-8:]])
def test_a_changed_file_is_still_noticed(
    tmp_path: Path, before: Callable[[Path], None], change: Callable[[bytes], bytes]
) -> None:
    made = make_patches(tmp_path / "files", [SCENE])
    (chosen,) = made.folder.rglob("*_s2_7_p31.tif")
    before(chosen)
    built = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "x.zarr")
    chosen.write_bytes(change(chosen.read_bytes()))
    report = verify_cube(built.target, source=str(made.folder))
    assert not report.passed
