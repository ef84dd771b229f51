"""What is learnt from one header must never change how another file is read."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

import numpy as np
import pytest

from cube.errors import RejectedFile
from cube.source.demo import tiff
from cube.source.rasters import Raster, RasterReader, read_raster


def same(one: Raster, other: Raster) -> bool:
    facts = (one.georeference, one.header, one.pixel_start, one.file_size, one.pixels.dtype, one.pixels.shape)
    others = (other.georeference, other.header, other.pixel_start, other.file_size, other.pixels.dtype, other.pixels.shape)
    return facts == others and np.array_equal(one.pixels, other.pixels)


def outcome(read: Callable[[bytes], Raster], data: bytes) -> Raster | tuple[str, ...]:
    try:
        return read(data)
    except RejectedFile as error:
        return error.args


def files() -> list[bytes]:
    rng = np.random.default_rng(0)
    made = []
    for epsg, corner in itertools.product((32633, 32733), ((500000.0, 4e6), (501280.0, 4e6 - 1280), (1e5 + 1 / 3, 7e6))):
        for bands, dtype in ((2, "u2"), (1, "u4"), (4, "u1")):  # the first two have equally many bytes of pixels
            made.append(tiff(rng.integers(0, 200, (16, 16, bands)).astype(dtype), epsg, corner))
    return made


def test_files_in_any_order_are_read_as_each_alone() -> None:
    data = files()
    rng = np.random.default_rng(1)
    for _ in range(10):
        reader = RasterReader()
        for place in rng.permutation(np.repeat(np.arange(len(data)), 2)):
            assert same(reader.read(data[place]), read_raster(data[place]))


def test_every_changed_header_byte_is_read_as_alone() -> None:
    data = files()[0]
    reader = RasterReader()
    reader.read(data)
    start = read_raster(data).pixel_start
    for place in range(start):
        changed = bytearray(data)
        changed[place] ^= 0x11
        alone, learnt = outcome(read_raster, bytes(changed)), outcome(reader.read, bytes(changed))
        if isinstance(alone, Raster) and isinstance(learnt, Raster):
            assert same(alone, learnt), place
        else:
            assert alone == learnt, place
        reader.read(data)


TIE_POINT, STRIP_OFFSETS = 33922, 273
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 12: 8}


def behind(data: bytes, *, tie_point: bool) -> bytes:
    """Return the same file with its directory and the values of its tags behind the pixels, the tie point's if wanted too."""
    raster = read_raster(data)
    pixels, moved, front = data[raster.pixel_start :], bytearray(data[: raster.pixel_start]), b""
    directory = struct.unpack_from("<I", moved, 4)[0]
    (count,) = struct.unpack_from("<H", moved, directory)
    entries = {struct.unpack_from("<H", moved, at)[0]: at for at in range(directory + 2, directory + 2 + 12 * count, 12)}
    if not tie_point:
        (place,) = struct.unpack_from("<I", moved, entries[TIE_POINT] + 8)
        front = bytes(moved[place : place + 48])
    shift = len(front) + len(pixels)
    for tag, entry in entries.items():
        kind, number = struct.unpack_from("<HI", moved, entry + 2)
        if tag == STRIP_OFFSETS:
            struct.pack_into("<I", moved, entry + 8, 8 + len(front))
        elif tag == TIE_POINT and front:
            struct.pack_into("<I", moved, entry + 8, 8)
        elif SIZES[kind] * number > 4:
            struct.pack_into("<I", moved, entry + 8, struct.unpack_from("<I", moved, entry + 8)[0] + shift)
    struct.pack_into("<I", moved, 4, directory + shift)
    return bytes(moved[:8]) + front + pixels + bytes(moved[8:])


@pytest.mark.parametrize("tie_point", [True, False])
def test_tags_behind_the_pixels_are_read_again_in_every_file(tie_point: bool) -> None:
    data = behind(files()[0], tie_point=tie_point)
    raster, plain = read_raster(data), read_raster(files()[0])
    assert np.array_equal(raster.pixels, plain.pixels)
    assert (raster.pixel_start, raster.georeference) == (8 if tie_point else 56, plain.georeference)
    reader = RasterReader()
    reader.read(data)
    for place in range(raster.pixel_start + raster.pixels.nbytes, len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x11
        alone, learnt = outcome(read_raster, bytes(changed)), outcome(reader.read, bytes(changed))
        if isinstance(alone, Raster) and isinstance(learnt, Raster):
            assert same(alone, learnt), place
        else:
            assert alone == learnt, place
