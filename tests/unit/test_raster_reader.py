"""What is learnt from one header must never change how another file is read."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from cube.demo import tiff
from cube.errors import RejectedFile
from cube.rasters import Raster, RasterReader, read_raster


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
