"""Whatever bytes are given to the decoder, it returns a raster or rejects the file. Nothing else ever comes out."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import write_tif
from PIL import Image
from rasterio.transform import Affine

from cube.errors import RejectedFile
from cube.source.expectations import Expectation
from cube.source.rasters import Raster, read_raster

PLACE = Affine(10.0, 0.0, 600000.25, 0.0, -10.0, 5400000.5)
REASONS = {"empty", "unknown format", "truncated", "unreadable", "unknown CRS"}
EXPECTED = Expectation(dtype="uint16", size=16, bands=3, georeferenced=True)
TYPES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 18, 255)
TAGS = (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339, 33550, 33922, 34264, 34735)
NUMBERS = st.one_of(st.integers(0, 70), st.integers(0, 2**32 - 1), st.sampled_from([2**31, 2**32 - 1, 32768, 65535]))
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "big-endian": {"ENDIANNESS": "BIG"},
    "bigtiff": {"BIGTIFF": "YES"},
    "deflate": {"compress": "deflate"},
    "tiled": {"tiled": True, "blockxsize": 16, "blockysize": 16},
    "planar": {"interleave": "band"},
}

_settings = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


class Samples(dict[str, bytes]):
    """Kind → file."""

    def __repr__(self) -> str:
        return f"one file each, {', '.join(self)}"


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("samples")
    pixels = np.arange(3 * 16 * 16, dtype="uint16").reshape(3, 16, 16)
    files = Samples()
    for name, profile in KINDS.items():
        path = folder / f"{name}.tif"
        write_tif(path, pixels, crs="EPSG:32632", transform=PLACE, **profile)
        files[name] = path.read_bytes()
        np.testing.assert_array_equal(read_raster(files[name]).pixels, pixels.transpose(1, 2, 0))
    image = io.BytesIO()
    Image.fromarray(np.arange(16 * 16 * 3, dtype="uint8").reshape(16, 16, 3)).save(image, "PNG")
    files["png"] = image.getvalue()
    return files


def decode(data: bytes) -> Raster | RejectedFile:
    """Decode and check; any error but ``RejectedFile`` fails the test."""
    seen = attempt(data)
    if isinstance(seen, RejectedFile):
        assert seen.reason in REASONS
        assert seen.detail
        return seen
    assert seen.pixels.ndim == 3
    assert seen.file_size == len(data)
    if seen.pixel_start >= 0:
        start = seen.pixel_start
        assert seen.header[:start] + seen.pixels.tobytes() + seen.header[start:] == data
    if seen.georeference is not None:
        assert np.isfinite(seen.georeference.transform).all()
        place = seen.georeference
        assert (rasterio.crs.CRS.from_epsg(place.epsg) if place.epsg else rasterio.crs.CRS.from_wkt(place.wkt)).to_wkt()
    with suppress(RejectedFile):
        EXPECTED.check(seen)
    return seen


def attempt(data: bytes) -> Raster | RejectedFile:
    try:
        return read_raster(data)
    except RejectedFile as error:
        return error


@_settings
@given(data=st.binary(max_size=400), start=st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG\r\n\x1a\n"]))
def test_random_bytes(data: bytes, start: bytes) -> None:
    decode(start + data)


@_settings
@given(
    kind=st.sampled_from([*KINDS, "png"]),
    changes=st.lists(st.tuples(st.integers(0, 511), st.integers(1, 255)), min_size=1, max_size=6),
)
def test_bits_changed_anywhere(samples: Samples, kind: str, changes: list[tuple[int, int]]) -> None:
    file = bytearray(samples[kind])
    for place, bits in changes:
        file[place % len(file)] ^= bits
    decode(bytes(file))


@_settings
@given(
    kind=st.sampled_from([name for name in KINDS if name not in ("big-endian", "bigtiff")]),
    changes=st.lists(
        st.one_of(
            st.tuples(st.integers(0, 15), st.just((0, "<H")), st.sampled_from(TAGS)),
            st.tuples(st.integers(0, 15), st.just((2, "<H")), st.sampled_from(TYPES)),
            st.tuples(st.integers(0, 15), st.sampled_from([(4, "<I"), (8, "<I")]), NUMBERS),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_directory_entries_changed(samples: Samples, kind: str, changes: list[tuple[int, Any, int]]) -> None:
    """Whole entries of the first directory get another tag, type, count or value."""
    file = bytearray(samples[kind])
    (at,) = struct.unpack_from("<I", file, 4)
    (count,) = struct.unpack_from("<H", file, at)
    for entry, (part, code), value in changes:
        struct.pack_into(code, file, at + 2 + 12 * (entry % count) + part, value)
    decode(bytes(file))


@_settings
@given(
    entry=st.integers(-2, 15),
    part=st.sampled_from([4, 12]),
    value=st.sampled_from([0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]),
)
def test_numbers_of_a_big_directory_changed(samples: Samples, entry: int, part: int, value: int) -> None:
    file = bytearray(samples["bigtiff"])
    (at,) = struct.unpack_from("<Q", file, 8)
    place = {-2: 8, -1: at}.get(entry, at + 8 + 20 * entry + part)
    struct.pack_into("<Q", file, place, value)
    decode(bytes(file))


@_settings
@given(kind=st.sampled_from([*KINDS, "png"]), share=st.floats(0, 1, exclude_max=True))
def test_cut_anywhere(samples: Samples, kind: str, share: float) -> None:
    """A file cut short is rejected, or has all its pixels."""
    whole = samples[kind]
    seen = decode(whole[: int(share * len(whole))])
    if kind != "png" and isinstance(seen, Raster):
        np.testing.assert_array_equal(seen.pixels, read_raster(whole).pixels)


def test_a_header_that_claims_an_enormous_image_takes_no_memory(samples: Samples) -> None:
    file = bytearray(samples["deflate"])
    (at,) = struct.unpack_from("<I", file, 4)
    for number in range(struct.unpack_from("<H", file, at)[0]):
        place = at + 2 + 12 * number
        (tag,) = struct.unpack_from("<H", file, place)
        if tag in (256, 257, 278):
            struct.pack_into("<HII", file, place + 2, 4, 1, 200_000)
    seen = decode(bytes(file))
    assert isinstance(seen, RejectedFile)
    assert seen.reason == "unreadable"
    assert "200000 × 200000" in seen.detail


@pytest.mark.parametrize("code", [1024, 20000, 29999, 32799])
def test_a_code_that_names_no_reference_system_is_rejected(tmp_path: Path, code: int) -> None:
    path = tmp_path / "one.tif"
    write_tif(path, np.zeros((1, 16, 16), "uint8"), crs="EPSG:32632", transform=PLACE)
    file = path.read_bytes()
    projected = struct.pack("<4H", 3072, 0, 1, 32632)
    assert file.count(projected) == 1
    seen = decode(file.replace(projected, struct.pack("<4H", 3072, 0, 1, code)))
    assert isinstance(seen, RejectedFile)
    assert seen.reason == "unknown CRS"
