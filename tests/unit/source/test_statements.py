"""What files say about their pixels, beside them."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from making import write_tif
from PIL import Image
from rasterio.transform import Affine

from cube.source.rasters import RasterReader, read_raster
from cube.source.statements import statement_attributes, statement_text
from cube.source.tiff_header import later_subfiles

PLACE = Affine(10, 0, 6e5, 0, -10, 54e5)
PIXELS = np.arange(2 * 16 * 16, dtype="uint8").reshape(2, 16, 16)


def written(path: Path, **profile: Any) -> Path:
    write_tif(path / "one.tif", PIXELS, crs="EPSG:32632", transform=PLACE, **profile)
    return path / "one.tif"


@pytest.mark.parametrize("compress", [{}, {"compress": "deflate"}])
@pytest.mark.parametrize(("nodata", "told"), [(0, "0"), (255, "255")])
def test_nodata(tmp_path: Path, compress: dict[str, str], nodata: int, told: str) -> None:
    raster = read_raster(written(tmp_path, nodata=nodata, **compress).read_bytes())
    assert raster.statements == (("nodata", told),)
    np.testing.assert_array_equal(raster.pixels, PIXELS.transpose(1, 2, 0))


def test_scale_and_offset(tmp_path: Path) -> None:
    path = written(tmp_path)
    with rasterio.open(path, "r+") as image:
        image.scales, image.offsets = (0.5, 1.0), (0.0, -3.0)
    raster = read_raster(path.read_bytes())
    assert raster.statements == (("scale", (0.5, 1.0)), ("offset", (0.0, -3.0)))
    assert statement_text(raster.statements) == "scale 0.5, 1, offset 0, -3"
    assert statement_attributes(raster.statements) == {"file_scale": [0.5, 1.0], "file_offset": [0.0, -3.0]}
    np.testing.assert_array_equal(raster.pixels, PIXELS.transpose(1, 2, 0))


def test_a_colour_table(tmp_path: Path) -> None:
    write_tif(tmp_path / "one.tif", PIXELS[:1], crs="EPSG:32632", transform=PLACE, photometric="PALETTE")
    with rasterio.open(tmp_path / "one.tif", "r+") as image:
        image.write_colormap(1, {0: (28, 13, 255), 1: (255, 0, 1)})
    ((name, colors),) = read_raster((tmp_path / "one.tif").read_bytes()).statements
    assert (name, colors[:2], len(colors)) == ("color_table", ("#1c0dff", "#ff0001"), 256)


def test_a_mask(tmp_path: Path) -> None:
    path = written(tmp_path)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as image:
        image.write_mask(np.arange(256).reshape(16, 16) % 2 == 0)
    raster = read_raster(path.read_bytes())
    assert raster.statements == (("mask", True),)
    assert statement_text(raster.statements) == "mask"
    np.testing.assert_array_equal(raster.pixels, PIXELS.transpose(1, 2, 0))


def test_overviews_are_no_mask_and_plain_files_say_nothing(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert read_raster(path.read_bytes()).statements == ()
    with rasterio.open(path, "r+") as image:
        image.build_overviews([2, 4])
    assert read_raster(path.read_bytes()).statements == ()


def test_a_png_says_it_too() -> None:
    image, file = Image.fromarray(PIXELS[0]).convert("P"), io.BytesIO()
    image.putpalette([1, 2, 3] * 256)
    image.save(file, "PNG")
    ((name, colors),) = read_raster(file.getvalue()).statements
    assert (name, set(colors)) == ("color_table", {"#010203"})
    file = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(file, "PNG", transparency=7)
    assert read_raster(file.getvalue()).statements == (("nodata", "7"),)


def test_a_reader_that_has_learnt_a_header_repeats_what_it_says(tmp_path: Path) -> None:
    reader, data = RasterReader(), written(tmp_path, nodata=9).read_bytes()
    assert [reader.read(data).statements for _ in range(3)] == [(("nodata", "9"),)] * 3


@pytest.mark.parametrize("tag", [b"\x81\xa4", b"\x80\xa4", b"\x40\x01"])
def test_what_is_damaged_says_nothing(tmp_path: Path, tag: bytes) -> None:
    """Tags of nodata, of GDAL's metadata and of colours whose values lie far beyond the end."""
    data = bytearray(written(tmp_path).read_bytes())
    at = int.from_bytes(data[4:8], "little") + 2
    for entry in range(at, at + 12 * int.from_bytes(data[at - 2 : at], "little"), 12):
        if data[entry : entry + 2] == b"\x53\x01":  # the last tag but those of the place: the format of the samples
            data[entry : entry + 12] = tag + (b"\3\0" if tag == b"\x40\x01" else b"\2\0") + b"\x30\0\0\0" + b"\xff\xff\xff\x7f"
    assert read_raster(bytes(data)).statements == ()


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "many"])
def test_a_scale_that_is_no_number_says_nothing(tmp_path: Path, value: str) -> None:
    path = written(tmp_path)
    with rasterio.open(path, "r+") as image:
        image.scales = (0.5, 0.5)
    data = path.read_bytes()
    said = data.replace(b'role="scale">0.5<', b'role="scale">' + value.encode() + b"<")
    assert len(said) != len(data) or value.encode() in said
    pad = len(data) - len(said)
    raster = read_raster(said + bytes(max(pad, 0)))
    assert "nan" not in statement_text(raster.statements)
    assert all(name != "scale" or all(map(np.isfinite, numbers)) for name, numbers in raster.statements)


def test_many_directories_are_looked_at_in_a_moment(tmp_path: Path) -> None:
    """A thousand directories of thousands of tags each, all of them the same bytes, shifted by one."""
    data = bytearray(written(tmp_path).read_bytes())
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    behind = start + 2 + 12 * count
    data[behind : behind + 4] = len(data).to_bytes(4, "little")
    for _ in range(1000):
        at = len(data)
        data += b"\xff\x0f" + bytes(12) + (at + 18).to_bytes(4, "little")
    data += bytes(4096 * 12)
    begun = time.process_time()
    list(later_subfiles(bytes(data)))
    assert time.process_time() - begun < 0.5
