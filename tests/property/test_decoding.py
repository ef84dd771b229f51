"""Some bands of a tile are those of the whole tile, whatever the codec, the blocks and the bands."""

from __future__ import annotations

import google_crc32c
import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.errors import CorruptError
from cube.format.blocks import block_size, blocks_of, pick
from cube.format.decoding import TileDecoder
from cube.format.tiles import TileLayout

CODECS = ("lz4", "zstd", "lz4hc", "zlib", "blosclz")


def layout(tile: int, bands: int, dtype: str) -> TileLayout:
    return TileLayout(size=tile, tile=tile, bands=bands, dtype=dtype, slots=1, codec="zstd", level=2, shuffle="shuffle")


def stored(pixels: np.ndarray, codec: str, level: int, shuffle: int, block: int) -> bytes:
    numcodecs.blosc.use_threads = False
    body = numcodecs.Blosc(codec, level, shuffle, block).encode(pixels)
    return bytes(body) + google_crc32c.value(body).to_bytes(4, "little")


CODEC = st.tuples(
    st.sampled_from(CODECS), st.integers(0, 9), st.sampled_from([0, 1, 2]), st.sampled_from([0, 512, 4096, 5000, 65536])
)
"""Codec, level, shuffle and bytes of a block."""


@settings(max_examples=200, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 14), st.sampled_from([16, 24, 64])),
    dtype=st.sampled_from(["|u1", "<u2", "<f4"]),
    codec=CODEC,
    noise=st.sampled_from([0, 3, 65536]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_some_bands_are_those_of_the_whole(
    shape: tuple[int, int], dtype: str, codec: tuple[str, int, int, int], noise: int, seed: int, data: st.DataObject
) -> None:
    bands, tile = shape
    rng = np.random.default_rng(seed)
    pixels = (np.arange(bands * tile * tile) // 7 + rng.integers(0, noise + 1, bands * tile * tile)).astype(dtype)
    pixels = pixels.reshape(bands, tile, tile)
    encoded = stored(pixels, *codec)
    chosen = data.draw(st.lists(st.integers(0, bands - 1), min_size=1, max_size=bands))
    out = np.empty((len(chosen), tile, tile), data.draw(st.sampled_from([dtype, "f8", "i8"])))
    TileDecoder(layout(tile, bands, dtype), chosen).decode(encoded, out)
    assert np.array_equal(out, pixels[chosen].astype(out.dtype))


def test_fewer_blocks_are_decoded_for_fewer_bands() -> None:
    """What is decoded is what is picked: blocks that are not must not matter."""
    pixels = np.random.default_rng(0).integers(0, 4000, (13, 128, 128)).astype("<u2")
    body = memoryview(bytearray(stored(pixels, "zstd", 2, 1, 65536)[:-4]))
    assert block_size(body) == 65536
    blocks = blocks_of([3, 2], 32768, 65536, pixels.nbytes)
    assert blocks == [1]
    part = pick(body, blocks, pixels.nbytes)
    assert part is not None
    assert len(part) < len(body) / 6
    assert np.array_equal(np.frombuffer(numcodecs.Blosc().decode(part), "<u2").reshape(2, 128, 128), pixels[2:4])
    body[-100:] = bytes(100)
    assert pick(body, blocks, pixels.nbytes) == part


@pytest.mark.parametrize("at", [16, 20, 40])
def test_a_table_of_blocks_that_cannot_be_is_left_to_the_decoder(at: int) -> None:
    """It is the whole that is decoded then, and that says what is wrong."""
    pixels = np.random.default_rng(0).integers(0, 4000, (13, 128, 128)).astype("<u2")
    body = np.frombuffer(stored(pixels, "zstd", 2, 1, 65536)[:-4], np.uint8).copy()
    body[at : at + 4] = np.array([2**31 - 1], "<u4").view("u1")
    assert pick(body.data, [0, 1], pixels.nbytes) is None
    sealed = body.tobytes() + google_crc32c.value(body.tobytes()).to_bytes(4, "little")
    with pytest.raises(CorruptError, match="cannot be decoded"):
        TileDecoder(layout(128, 13, "<u2"), [0, 1]).decode(sealed, np.empty((2, 128, 128), "<u2"))
