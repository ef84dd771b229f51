"""Decoding: every kind of file gives the pixels and the place rasterio gives, and what differs is named."""

from __future__ import annotations

import dataclasses
import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from making import write_tif
from PIL import Image
from pyproj import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from cube.errors import RejectedFile
from cube.source.demo import tiff
from cube.source.expectations import Expectation
from cube.source.georeference import Georeference
from cube.source.rasters import Raster, read_raster

PLACE = Affine(10.0, 0.0, 600000.25, 0.0, -10.0, 5400000.5)
PLAIN: dict[str, dict[str, Any]] = {
    "uncompressed": {},
    "one strip": {"blockysize": 32},
    "row by row": {"blockysize": 1},
}
GENERAL: dict[str, dict[str, Any]] = {
    "deflate": {"compress": "deflate"},
    "lzw with predictor": {"compress": "lzw", "predictor": 2},
    "zstd": {"compress": "zstd"},
    "packbits": {"compress": "packbits"},
    "tiled": {"tiled": True, "blockxsize": 16, "blockysize": 16},
    "tiled deflate": {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
    "planar": {"interleave": "band"},
    "planar lzw": {"interleave": "band", "compress": "lzw"},
    "big-endian": {"ENDIANNESS": "BIG"},
    "big-endian deflate": {"ENDIANNESS": "BIG", "compress": "deflate"},
}
BIG = {"bigtiff": {"BIGTIFF": "YES"}}
EXPECTED = Expectation(dtype="uint16", size=32, bands=3, georeferenced=True)


def pixels_of(dtype: str, bands: int = 3) -> np.ndarray:
    rng = np.random.default_rng(5)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=(bands, 32, 32)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (bands, 32, 32)).astype(dtype)


def written(path: Path, pixels: np.ndarray, **profile: Any) -> bytes:
    write_tif(path, pixels, crs="EPSG:32632", transform=PLACE, **profile)
    return path.read_bytes()


def rejection(data: bytes, expectation: Expectation | None = None) -> RejectedFile:
    with pytest.raises(RejectedFile) as caught:
        (expectation or EXPECTED).check(read_raster(data))
    assert str(caught.value) == f"{caught.value.reason}: {caught.value.detail}"
    return caught.value


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("kind", [*PLAIN, *BIG, *GENERAL])
def test_every_kind_reads_as_rasterio_reads_it(tmp_path: Path, kind: str, dtype: str) -> None:
    path, pixels = tmp_path / "one.tif", pixels_of(dtype)
    profile = {**PLAIN, **BIG, **GENERAL}[kind]
    if profile.get("predictor") and dtype.startswith("float"):
        profile = {**profile, "predictor": 3}
    raster = read_raster(written(path, pixels, **profile))
    with rasterio.open(path) as image:
        np.testing.assert_array_equal(raster.pixels.transpose(2, 0, 1), image.read())
        assert raster.georeference == Georeference(image.crs.to_epsg(), tuple(image.transform)[:6])
    assert raster.pixels.dtype == np.dtype(dtype)
    assert raster.pixels.flags["C_CONTIGUOUS"]
    assert raster.file_size == path.stat().st_size


def rebuilt(raster: Raster) -> bytes:
    start = raster.pixel_start
    return raster.header[:start] + raster.pixels.tobytes() + raster.header[start:]


@pytest.mark.parametrize("kind", [*PLAIN, *BIG])
def test_header_and_pixels_rebuild_a_plain_file(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path / "one.tif", pixels_of("uint16"), **{**PLAIN, **BIG}[kind])
    raster = read_raster(data)
    assert raster.pixel_start > 0
    assert rebuilt(raster) == data
    tail = read_raster(data + b"what follows")
    assert rebuilt(tail) == data + b"what follows"


@pytest.mark.parametrize("kind", GENERAL)
def test_other_files_are_not_said_to_be_rebuilt(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path / "one.tif", pixels_of("uint16"), **GENERAL[kind])
    raster = read_raster(data)
    assert raster.pixel_start == -1
    assert 100 < len(raster.header) < 2000
    assert b"WGS 84 / UTM zone 32N" in raster.header


def test_pixels_of_a_plain_file_are_no_copy(tmp_path: Path) -> None:
    data = written(tmp_path / "one.tif", pixels_of("uint16"))
    assert np.shares_memory(read_raster(data).pixels, np.frombuffer(data, np.uint8))


def test_plain_files_need_no_gdal(tmp_path: Path) -> None:
    (tmp_path / "one.tif").write_bytes(tiff(pixels_of("uint16").transpose(1, 2, 0).copy(), 32632, (1.0, 2.0)))
    code = (
        "import sys, pathlib, cube.source.rasters as r; r.read_raster(pathlib.Path(sys.argv[1]).read_bytes()); "
        "assert 'rasterio' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "one.tif")], check=True)


@pytest.mark.parametrize("epsg", [32632, 32737, 4326, 3857])
def test_places(tmp_path: Path, epsg: int) -> None:
    path = tmp_path / "one.tif"
    transform = Affine(0.1, 0.0, 11.123456789, 0.0, -0.25, 48.0)
    write_tif(path, pixels_of("uint8", 1), crs=f"EPSG:{epsg}", transform=transform)
    assert read_raster(path.read_bytes()).georeference == Georeference(epsg, tuple(transform)[:6])


def test_a_rotated_image_keeps_its_whole_transform(tmp_path: Path) -> None:
    transform = Affine(8.0, 6.0, 600000.0, 6.0, -8.0, 5400000.0)
    write_tif(tmp_path / "one.tif", pixels_of("uint8", 1), crs="EPSG:32632", transform=transform)
    raster = read_raster((tmp_path / "one.tif").read_bytes())
    assert raster.georeference is not None
    assert raster.georeference.transform == pytest.approx(tuple(transform)[:6])


def test_a_negative_pixel_scale_is_read_as_gdal_reads_it() -> None:
    """GDAL takes the sign for a mistake and the image for one with north up; so do we, by asking it."""
    data = tiff(np.ones((32, 32, 1), "u1"), 32632, (600000.0, 5400000.0))
    size = read_raster(data).georeference.transform[0]  # type: ignore[union-attr]
    downwards, upwards = struct.pack("<2d", size, size), struct.pack("<2d", size, -size)
    assert data.count(downwards) == 1
    changed = data.replace(downwards, upwards)
    with rasterio.MemoryFile(changed) as file, file.open() as image:
        assert image.transform.e == -size
        assert read_raster(changed).georeference == Georeference(32632, tuple(image.transform)[:6])


def test_pixels_that_are_points(tmp_path: Path) -> None:
    """The tie point is then the centre of a pixel; the transform is that of the corner all the same."""
    path = tmp_path / "one.tif"
    write_tif(path, pixels_of("uint8", 1), crs="EPSG:32632", transform=PLACE)
    with rasterio.open(path, "r+") as image:
        image.update_tags(AREA_OR_POINT="Point")
    with rasterio.open(path) as image:
        assert image.tags()["AREA_OR_POINT"] == "Point"
        assert read_raster(path.read_bytes()).georeference == Georeference(32632, tuple(image.transform)[:6])


def test_alpha_is_a_band_like_any_other(tmp_path: Path) -> None:
    pixels = pixels_of("uint8", 4)
    pixels[3] = np.arange(32) % 2
    for number, profile in enumerate(({}, {"compress": "deflate"}, {"tiled": True, "blockxsize": 16, "blockysize": 16})):
        data = written(tmp_path / f"{number}.tif", pixels, **profile)
        with rasterio.open(tmp_path / f"{number}.tif") as image:
            assert image.colorinterp[3].name == "alpha"
        np.testing.assert_array_equal(read_raster(data).pixels.transpose(2, 0, 1), pixels)


def test_nodata_masks_nothing(tmp_path: Path) -> None:
    pixels = pixels_of("uint16")
    pixels[:, :5] = 7
    for number, profile in enumerate(({}, {"compress": "lzw"})):
        np.testing.assert_array_equal(
            read_raster(written(tmp_path / f"{number}.tif", pixels, nodata=7, **profile)).pixels.transpose(2, 0, 1), pixels
        )


@pytest.mark.parametrize("profile", [{}, {"compress": "deflate"}, {"interleave": "band"}, {"ENDIANNESS": "BIG"}])
def test_payloads_of_nan_are_kept(tmp_path: Path, profile: dict[str, Any]) -> None:
    words = np.full((1, 32, 32), 0x7FC00000, "<u4")
    words[0, 0, :6] = 0x7FC12345, 0xFFC00001, 0x7F800001, 0xFF800000, 0x80000000, 1
    data = written(tmp_path / "one.tif", words.view("<f4"), **profile)
    assert read_raster(data).pixels.tobytes() == words.tobytes()


@pytest.mark.parametrize("profile", [{}, {"compress": "deflate"}])
def test_files_that_say_no_place(tmp_path: Path, profile: dict[str, Any]) -> None:
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write_tif(tmp_path / "one.tif", pixels_of("uint16"), crs=None, transform=None, **profile)
    data = (tmp_path / "one.tif").read_bytes()
    assert read_raster(data).georeference is None
    assert rejection(data).reason == "no georeference"
    assert dataclasses.replace(EXPECTED, georeferenced=False).check(read_raster(data)).pixel_start in (-1, len(data) - 6144)


@pytest.mark.parametrize("profile", [{}, {"compress": "deflate"}])
def test_a_reference_system_without_a_code(tmp_path: Path, profile: dict[str, Any]) -> None:
    crs = "+proj=laea +lat_0=12.3 +lon_0=45.6 +x_0=7 +y_0=8 +ellps=bessel +units=m"
    write_tif(tmp_path / "one.tif", pixels_of("uint16"), crs=crs, transform=PLACE, **profile)
    data = (tmp_path / "one.tif").read_bytes()
    raster = EXPECTED.check(read_raster(data))
    assert raster.georeference is not None
    assert (raster.georeference.epsg, raster.georeference.transform) == (0, tuple(PLACE)[:6])
    assert CRS.from_wkt(raster.georeference.wkt).equals(CRS.from_user_input(crs))
    assert (raster.pixel_start >= 0) == (not profile)  # a plain file stays one whatever its CRS
    np.testing.assert_array_equal(raster.pixels, pixels_of("uint16").transpose(1, 2, 0))


NEARLY = CRS.from_epsg(32632).to_wkt().replace("0.9996", "0.9997").replace('"EPSG",32632', '"MINE",1')
LOCAL = 'LOCAL_CS["plan of a hall",UNIT["metre",1]]'


@pytest.mark.parametrize(("given", "code"), [("EPSG:3035", 3035), ("+proj=utm +zone=33 +datum=WGS84", 32633), (NEARLY, 0)])
def test_a_code_stands_for_what_it_means_and_nothing_else(tmp_path: Path, given: str, code: int) -> None:
    write_tif(tmp_path / "one.tif", pixels_of("uint16"), crs=given, transform=PLACE, compress="deflate")
    place = read_raster((tmp_path / "one.tif").read_bytes()).georeference
    assert place is not None
    assert (place.epsg, bool(place.wkt)) == (code, not code)


def test_what_is_no_place_on_earth_is_rejected(tmp_path: Path) -> None:
    write_tif(tmp_path / "one.tif", pixels_of("uint16"), crs=LOCAL, transform=PLACE)
    assert rejection((tmp_path / "one.tif").read_bytes()).reason == "unknown CRS"


def test_two_wordings_of_one_definition_agree() -> None:
    first, second = (CRS.from_user_input("+proj=sinu +R=6371007.181").to_wkt(version) for version in ("WKT2_2019", "WKT1_GDAL"))
    other = CRS.from_user_input("+proj=sinu +R=6371000").to_wkt()
    place, again, elsewhere = (Georeference(0, tuple(PLACE)[:6], wkt) for wkt in (first, second, other))
    assert first != second
    assert place.agrees(again)
    assert not place.agrees(elsewhere)
    assert not place.agrees(None)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_png(mode: str) -> None:
    values = pixels_of("uint16" if mode == "I;16" else "uint8", {"RGB": 3, "RGBA": 4}.get(mode, 1)).transpose(1, 2, 0)
    image, file = Image.fromarray(values.squeeze()), io.BytesIO()
    image.save(file, "PNG")
    raster = read_raster(file.getvalue())
    np.testing.assert_array_equal(raster.pixels, values)
    assert raster.georeference is None
    assert raster.header.startswith(b"\x89PNG\r\n\x1a\n")
    assert raster.header.endswith(b"IEND\xaeB`\x82")
    assert len(raster.header) < 200


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty", "no bytes"),
        (b"hello, I am no image", "unknown format", r"b'hello, I'; expected a TIFF, a PNG or a JPEG"),
        (b"\xff\xd8\xff\xe0 a JPEG", "unreadable", "a JPEG that does not say how large it is"),
        (b"GIF89a", "unknown format", "expected a TIFF, a PNG or a JPEG"),
        (b"II*\0", "unreadable", "directory is damaged"),
        (b"II*\0\xff\xff\xff\xff", "unreadable", "directory is damaged"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "unreadable", "0 offsets and 0 sizes"),
        (b"\x89PNG\r\n\x1a\n", "unreadable", ""),
        (bytes(500), "unknown format", ""),
    ],
)
def test_what_is_no_image(data: bytes, reason: str, detail: str) -> None:
    error = rejection(data)
    assert error.reason == reason
    assert detail in error.detail


JPEGS: dict[str, tuple[str, dict[str, Any]]] = {
    "colour": ("RGB", {"quality": 90}),
    "grey": ("L", {"quality": 75}),
    "progressive": ("RGB", {"quality": 80, "progressive": True}),
    "subsampled": ("RGB", {"quality": 60, "subsampling": "4:2:0"}),
    "restarts": ("RGB", {"restart_marker_blocks": 2}),
    "told much": ("RGB", {"exif": b"Exif\0\0" + bytes(3000), "comment": b"taken " * 100, "icc_profile": bytes(70_000)}),
}


def jpeg(kind: str) -> bytes:
    mode, options = JPEGS[kind]
    y, x = np.mgrid[:48, :40]
    values = np.stack([3 * x + y, 5 * y, x * y % 200], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_is_what_others_see(tmp_path: Path, kind: str) -> None:
    data = jpeg(kind)
    raster = read_raster(data)
    (tmp_path / "one.jpg").write_bytes(data)
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(tmp_path / "one.jpg") as image:
        np.testing.assert_array_equal(raster.pixels, image.read().transpose(1, 2, 0))
    assert raster.georeference is None
    assert raster.pixel_start == -1
    assert data.startswith(raster.header)


@pytest.mark.parametrize("kind", JPEGS)
def test_of_a_damaged_jpeg_nothing_is_invented(kind: str) -> None:
    data, random = jpeg(kind), np.random.default_rng(7)
    for length in (3, 20, len(data) // 2, len(data) - 2):
        assert rejection(data[:length]).reason in ("truncated", "unreadable")
    refused = 0
    for place in random.integers(2, len(data) - 2, 60):
        mutated = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        try:
            assert read_raster(mutated).pixels.dtype == np.uint8
        except RejectedFile as error:
            refused += error.reason in ("truncated", "unreadable", "too large")
    assert refused or kind == "told much"


def test_a_jpeg_of_printers_is_refused() -> None:
    file = io.BytesIO()
    Image.new("CMYK", (16, 16)).save(file, "JPEG")
    assert "a JPEG of 4 bands of 8 bits, expected 1 or 3 of 8" in rejection(file.getvalue()).detail


@pytest.mark.parametrize("kind", [*PLAIN, *BIG, *GENERAL])
def test_cut_off_files(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path / "one.tif", pixels_of("uint16"), **{**PLAIN, **BIG, **GENERAL}[kind])
    error = rejection(data[: len(data) // 2])
    assert error.reason in ("truncated", "unreadable")
    if error.reason == "truncated":
        assert f"the file has {len(data) // 2:,}" in error.detail


def test_compressed_pixels_that_cannot_be_decoded(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "one.tif", pixels_of("uint16"), compress="deflate"))
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    assert rejection(bytes(data)).reason == "unreadable"


@pytest.mark.parametrize(
    ("pixels", "reason", "detail"),
    [
        (pixels_of("int16"), "wrong dtype", "int16, expected uint16"),
        (pixels_of("float32"), "wrong dtype", "float32, expected uint16"),
        (pixels_of("uint8"), "wrong dtype", "uint8, expected uint16"),
        (pixels_of("uint16")[:, :16], "wrong size", "32 × 16 pixels, expected 32 × 32 pixels"),
        (pixels_of("uint16")[:, :, :31], "wrong size", "31 × 32 pixels, expected 32 × 32 pixels"),
        (pixels_of("uint16")[:2], "wrong bands", "2 bands, expected 3 bands"),
        (pixels_of("uint16", 13), "wrong bands", "13 bands, expected 3 bands"),
    ],
)
@pytest.mark.parametrize("profile", [{}, {"compress": "deflate"}])
def test_files_of_another_kind(tmp_path: Path, pixels: np.ndarray, reason: str, detail: str, profile: dict[str, Any]) -> None:
    error = rejection(written(tmp_path / "one.tif", pixels, **profile))
    assert (error.reason, error.detail) == (reason, detail)


@pytest.mark.parametrize("profile", [{}, {"compress": "deflate"}, {"ENDIANNESS": "BIG"}, {"BIGTIFF": "YES"}])
def test_tags_of_a_header_that_is_too_long(tmp_path: Path, profile: dict[str, Any]) -> None:
    data = written(tmp_path / "one.tif", pixels_of("uint16"), nodata=7, **profile)
    with rasterio.open(tmp_path / "one.tif", "r+") as image:
        image.update_tags(HISTORY="of a scene")
    data = (tmp_path / "one.tif").read_bytes()
    assert read_raster(data).tags is None
    raster = EXPECTED.check(read_raster(data + bytes(2**16)))
    np.testing.assert_array_equal(raster.pixels, pixels_of("uint16").transpose(1, 2, 0))
    assert raster.tags
    assert len(raster.tags) < 1500
    with (
        rasterio.MemoryFile(raster.tags) as file,
        file.open() as image,
        rasterio.open(tmp_path / "one.tif") as whole,
    ):
        for kept in ("tags", "crs", "transform", "nodata", "count", "dtypes", "shape"):
            known, seen = (getattr(each, kept) for each in (whole, image))
            assert (known() if callable(known) else known) == (seen() if callable(seen) else seen), kept


def test_tags_that_are_too_long_as_well(tmp_path: Path) -> None:
    written(tmp_path / "one.tif", pixels_of("uint16"))
    with rasterio.open(tmp_path / "one.tif", "r+") as image:
        image.update_tags(HISTORY="x" * 2**16)
    assert read_raster((tmp_path / "one.tif").read_bytes()).tags == b""


def test_only_the_first_image_of_a_file_counts(tmp_path: Path) -> None:
    pixels = pixels_of("uint8", 1)
    file = io.BytesIO()
    Image.fromarray(pixels[0]).save(file, "TIFF", save_all=True, append_images=[Image.fromarray(pixels[0] // 2)])
    np.testing.assert_array_equal(read_raster(file.getvalue()).pixels[..., 0], pixels[0])


@pytest.mark.parametrize(
    ("dtype", "bands", "size"), [("<u2", 13, 256), ("<f4", 2, 256), ("u1", 4, 256), ("<u2", 1, 40), ("<i4", 3, 30)]
)
def test_files_of_the_demo_are_read_alike_by_rasterio_and_here(dtype: str, bands: int, size: int) -> None:
    pixels = np.random.default_rng(2).integers(0, 100, (size, size, bands)).astype(dtype)
    data = tiff(pixels, 32737, (375412.3389928384, 8116742.836060452))
    raster = read_raster(data)
    with rasterio.io.MemoryFile(data) as file, file.open() as image:
        np.testing.assert_array_equal(image.read().transpose(1, 2, 0), pixels)
        assert raster.georeference == Georeference(image.crs.to_epsg(), tuple(image.transform)[:6])
    np.testing.assert_array_equal(raster.pixels, pixels)
    assert raster.pixel_start == len(data) - pixels.nbytes
    assert struct.unpack("<I", data[4:8]) == (8,)
