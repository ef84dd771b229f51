"""Shared tiles: what is stored once, what its digests are, and which stored bytes are refused."""

from __future__ import annotations

import dataclasses
import io
import struct
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
from blake3 import blake3

from cube.errors import CorruptError
from cube.format.tiles import ABSENT, Counts, ShardWriter, TileLayout, count_pixels, decode_tile, read_index

LAYOUT = TileLayout(size=16, tile=8, bands=3, dtype="<u2", slots=4, codec="zstd", level=3, shuffle="shuffle")


def write(layout: TileLayout, patches: dict[int, np.ndarray]) -> tuple[bytes, dict[int, tuple[bytes, Counts]], ShardWriter]:
    sink = io.BytesIO()
    writer = ShardWriter(layout, sink.write)
    seen = {slot: writer.add(slot, pixels) for slot, pixels in patches.items()}
    writer.finish()
    assert writer.stored == len(sink.getvalue())
    return sink.getvalue(), seen, writer


def index_of(layout: TileLayout, shard: bytes) -> np.ndarray:
    return read_index(layout, shard[-layout.index_bytes :], len(shard))


def tile_of(layout: TileLayout, shard: bytes, offset: int, length: int) -> np.ndarray:
    out = np.empty((layout.bands, layout.tile, layout.tile), layout.dtype)
    decode_tile(layout, layout.compressor(), shard[offset : offset + length], out)
    return out


def patch(seed: int, layout: TileLayout = LAYOUT) -> np.ndarray:
    """One patch (y, x, band)."""
    shape = layout.size, layout.size, layout.bands
    return np.random.default_rng(seed).integers(0, 50, shape).astype(layout.dtype)


def test_sizes() -> None:
    assert (LAYOUT.across, LAYOUT.tile_bytes, LAYOUT.patch_bytes) == (2, 8 * 8 * 3 * 2, 16 * 16 * 3 * 2)
    assert LAYOUT.index_bytes == 4 * 4 * 16 + 4


def test_neighbours_share_their_overlap() -> None:
    image = np.random.default_rng(0).integers(0, 999, (16, 24, 3)).astype("<u2")
    shard, _, writer = write(LAYOUT, {0: image[:, :16], 1: image[:, 8:]})
    index = index_of(LAYOUT, shard)
    assert len(writer.seen) == 6
    for left, right in ((1, 0), (3, 2)):
        assert index[0, left].tolist() == index[1, right].tolist()
    assert (index[2:] == ABSENT).all()


def test_one_bit_makes_another_tile() -> None:
    pixels = patch(1)
    other = pixels.copy()
    other[0, 0, 2] ^= 1
    shard, _, _ = write(LAYOUT, {0: pixels, 1: other})
    index = index_of(LAYOUT, shard)
    assert index[0, 0].tolist() != index[1, 0].tolist()
    np.testing.assert_array_equal(index[0, 1:], index[1, 1:])
    np.testing.assert_array_equal(tile_of(LAYOUT, shard, *index[0, 0].tolist()), pixels[:8, :8].transpose(2, 0, 1))
    np.testing.assert_array_equal(tile_of(LAYOUT, shard, *index[1, 0].tolist()), other[:8, :8].transpose(2, 0, 1))


def test_zero_and_minus_zero_and_two_nans_are_four_tiles() -> None:
    layout = dataclasses.replace(LAYOUT, bands=1, dtype="<f4")
    words = np.array([0, 0x80000000, 0x7FC00000, 0x7FC00001], "<u4")
    patches = {slot: np.full((16, 16, 1), word, "<u4").view("<f4") for slot, word in enumerate(words)}
    shard, digests, writer = write(layout, patches)
    assert len(writer.seen) == 4
    assert len({digest for digest, _ in digests.values()}) == 4
    index = index_of(layout, shard)
    for slot, word in enumerate(words):
        assert set(tile_of(layout, shard, *index[slot, 3].tolist()).view("<u4").ravel().tolist()) == {int(word)}


def test_tiles_lie_one_after_the_other_and_the_index_at_the_end() -> None:
    shard, _, _ = write(LAYOUT, {0: patch(1), 2: patch(2)})
    used = np.unique(index_of(LAYOUT, shard)[[0, 2]].reshape(-1, 2), axis=0)
    assert used[0, 0] == 0
    np.testing.assert_array_equal(used[1:, 0], used.sum(axis=1)[:-1])
    assert used[-1].sum() == len(shard) - LAYOUT.index_bytes


def test_a_stored_tile_is_blosc_of_band_y_x_and_a_checksum() -> None:
    pixels = patch(5)
    shard, _, _ = write(LAYOUT, {3: pixels})
    offset, length = index_of(LAYOUT, shard)[3, 1].tolist()
    body, checksum = shard[offset : offset + length - 4], shard[offset + length - 4 : offset + length]
    assert struct.unpack("<I", checksum)[0] == google_crc32c.value(body)
    decoded = np.frombuffer(numcodecs.Blosc().decode(body), "<u2").reshape(3, 8, 8)
    np.testing.assert_array_equal(decoded, pixels[:8, 8:].transpose(2, 0, 1))


@pytest.mark.parametrize(("tile", "bands", "dtype"), [(128, 13, "<u2"), (8, 2, "<f4"), (16, 4, "<u1"), (8, 1, "<f8")])
def test_digests_are_what_the_format_says(tile: int, bands: int, dtype: str) -> None:
    layout = dataclasses.replace(LAYOUT, size=2 * tile, tile=tile, bands=bands, dtype=dtype)
    pixels = patch(7, layout)
    tile_key = blake3(f"cube tile 1 {dtype} {tile},{tile},{bands}".encode()).digest()
    patch_key = blake3(f"cube patch 1 {dtype} {2 * tile},{2 * tile},{bands}".encode()).digest()
    joined = b""
    for top in (0, tile):
        for left in (0, tile):
            values = pixels[top : top + tile, left : left + tile]  # (y, x, band)
            joined += blake3(np.ascontiguousarray(values).tobytes(), key=tile_key).digest()
    _, seen, _ = write(layout, {0: pixels})
    assert seen[0][0] == blake3(joined, key=patch_key).digest()


def test_digests_do_not_depend_on_how_or_with_what_a_patch_is_stored() -> None:
    other = dataclasses.replace(LAYOUT, codec="lz4", level=5, shuffle="bitshuffle", slots=9)
    _, alone, _ = write(LAYOUT, {0: patch(1)})
    _, among, _ = write(other, {0: patch(2), 5: patch(1), 6: patch(1)})
    assert alone[0] == among[5] == among[6]
    assert among[0] != among[5]


def test_equal_bytes_of_another_type_hash_differently() -> None:
    signed = dataclasses.replace(LAYOUT, dtype="<i2")
    _, first, _ = write(LAYOUT, {0: patch(1)})
    _, second, _ = write(signed, {0: patch(1).view("<i2")})
    assert first[0][0] != second[0][0]


def test_counts_are_of_the_whole_patch_even_where_tiles_are_shared() -> None:
    layout = dataclasses.replace(LAYOUT, bands=2, dtype="<f4", saturated=5.0)
    pixels = np.ones((16, 16, 2), "<f4")
    pixels[0, 0], pixels[0, 1, 0], pixels[15, 15, 1], pixels[8, 0, 0] = np.nan, 0.0, -0.0, 5.0
    _, seen, writer = write(layout, {0: pixels, 1: pixels})
    assert seen[0][1] == seen[1][1] == Counts(nan=2, zero=2, saturated=1, flat={})
    assert len(writer.seen) == 4  # the tile in the upper right is the only plain one


@pytest.mark.parametrize(
    ("dtype", "saturated", "expected"),
    [
        ("<u2", 65535, Counts(0, 1, 2)),
        ("<u2", None, Counts(0, 1, 0)),
        ("<f4", 0.0, Counts(0, 1, 1)),
        ("<u2", 0, Counts(0, 1, 1)),
        ("<u2", 65534, Counts(0, 1, 0)),
        ("<u2", 1, Counts(0, 1, 1)),
        ("|u1", 255, Counts(0, 1, 2)),
    ],
)
def test_counting(dtype: str, saturated: float | None, expected: Counts) -> None:
    top = {"<u2": 65535, "|u1": 255}.get(dtype, 7.0)
    assert count_pixels(np.array([[[0, 1, top, top]]], dtype), saturated) == dataclasses.replace(expected, flat={})


def test_bands_of_one_value_are_found() -> None:
    planes = np.zeros((4, 3, 3), "<f4")
    planes[0], planes[1], planes[2], planes[3, 1, 0] = np.nan, -0.0, 7.5, 1.0
    one = count_pixels(planes, None)
    assert one.constant == 3
    planes[1], planes[3] = 0.0, 2.0
    other = count_pixels(planes, None)
    assert other.constant == 4
    assert (Counts() + one + other).flat == {band: planes[band, 0, 0].tobytes() for band in (0, 2)}
    assert (Counts() + one).constant == 3
    assert Counts().constant == 0
    for place in np.ndindex(3, 3):
        planes[2], planes[2][place] = 7.5, 8
        assert 2 not in (count_pixels(planes, None).flat or {})


def test_stored_bytes_are_the_same_every_time() -> None:
    first, _, _ = write(LAYOUT, {0: patch(1), 1: patch(2)})
    again, _, _ = write(LAYOUT, {0: patch(1), 1: patch(2)})
    assert first == again
    assert numcodecs.blosc.use_threads is False


def test_an_index_of_the_wrong_length() -> None:
    with pytest.raises(CorruptError, match="10 bytes, its index alone needs 260"):
        read_index(LAYOUT, bytes(10), 10)
    with pytest.raises(CorruptError, match="its index alone needs"):
        read_index(LAYOUT, bytes(LAYOUT.index_bytes), LAYOUT.index_bytes - 1)


@pytest.mark.parametrize("place", [0, 100, 255, 256, 259])
def test_an_index_with_a_flipped_bit(place: int) -> None:
    shard, _, _ = write(LAYOUT, {0: patch(1)})
    tail = bytearray(shard[-LAYOUT.index_bytes :])
    tail[place] ^= 1
    with pytest.raises(CorruptError, match="checksum of the shard's index"):
        read_index(LAYOUT, bytes(tail), len(shard))


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 500), (500, 1), (2**63, 2**63), (2**64 - 2, 4), (5, 2**64 - 1), (5, 2**64 - 4)]
)
def test_an_entry_that_points_outside(offset: int, length: int) -> None:
    entries = np.full((4, 4, 2), ABSENT, "<u8")
    entries[1, 2] = offset, length
    data = entries.tobytes()
    tail = data + google_crc32c.value(data).to_bytes(4, "little")
    with pytest.raises(CorruptError, match=r"points outside|of more bytes than"):
        read_index(LAYOUT, tail, LAYOUT.index_bytes + 400)


def checked(body: bytes) -> bytes:
    return body + google_crc32c.value(body).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"", "claims 0 bytes of 0, expected 0 of 384"),
        (b"\0\0", "claims 0 bytes of 0"),
        (b"\1\0", "checksum"),
        (checked(b""), "claims 0 bytes of 0"),
        (checked(b"no blosc"), "expected 8 of 384"),
        (checked(b"\x02\x01\x01\x02" + b"\xff" * 12), "claims 4,294,967,295 bytes of 4,294,967,295, expected 16 of 384"),
        (checked(b"\x02\x01\x21\x02" + struct.pack("<III", 384, 384, 400)), "claims 400 bytes of 384, expected 16 of 384"),
        (checked(b"\x02\x01\x81\x02" + struct.pack("<III", 384, 384, 20) + b"\xff" * 4), "cannot be decoded"),
        (checked(numcodecs.Blosc("zstd").encode(bytes(100))), "of 100, expected .* of 384"),
        (checked(numcodecs.Blosc("zstd").encode(bytes(384)))[:-5] + b"12345", "checksum"),
        (checked(numcodecs.Blosc("zstd").encode(bytes(384))[:-1]), "expected .* of 384"),
    ],
)
def test_damaged_tiles(stored: bytes, message: str) -> None:
    out: Any = np.empty((3, 8, 8), "<u2")
    with pytest.raises(CorruptError, match=message):
        decode_tile(LAYOUT, LAYOUT.compressor(), stored, out)
