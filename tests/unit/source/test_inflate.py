"""Deflated streams entered in the middle, at any bit, and the index that says where."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from cube.source import gzip_index
from cube.source.inflate import START, Inflating, Point, lead_in
from cube.source.members import Listing
from cube.store.local import LocalStore

SEED = 1970


def pixels(size: int) -> bytes:
    """Bytes that deflate by a third, in blocks of several kinds."""
    rng = np.random.default_rng(SEED)
    smooth = np.cumsum(rng.integers(-3, 4, size // 2), dtype=np.int64).astype(np.uint16).tobytes()
    return smooth[: size // 2] + rng.bytes(size // 8) + bytes(size - size // 2 - size // 8)


@pytest.mark.parametrize("bit", range(1, 8))
def test_empty_blocks_lead_to_any_bit(bit: int) -> None:
    """What they end with are the upper bits of the byte; before those, a decoder has been given nothing to tell."""
    for first in (0, 0b10110101, 255):
        data = lead_in(bit, first)
        assert data[-1] >> bit == first >> bit
        decoder = zlib.decompressobj(-15)
        assert decoder.decompress(data[:-1]) == b""
        assert not decoder.eof


def test_a_stored_block_is_reached_from_every_bit() -> None:
    """A block of stored bytes begins at the next whole byte, so any bits of zeros before it lead there."""
    for bit in range(1, 6):  # its three bits of a head fit into the byte
        data = lead_in(bit, 0) + b"\5\0\xfa\xffhello" + b"\1\0\0\xff\xff"
        assert zlib.decompressobj(-15).decompress(data) == b"hello"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A tar.gz of 60 MB and what it inflates to."""
    folder, out = tmp_path_factory.mktemp("inflate"), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(30):
            data = pixels(2_000_000 + number)
            item = tarfile.TarInfo(f"p{number}.tif")
            item.size = len(data)
            tar.addfile(item, io.BytesIO(data))
    whole = out.getvalue()
    (folder / "a.tar.gz").write_bytes(gzip.compress(whole, 6))
    half = len(whole) // 2 + 77
    (folder / "two.tar.gz").write_bytes(gzip.compress(whole[:half], 1) + gzip.compress(whole[half:], 9))
    return folder, whole


@pytest.mark.parametrize("name", ["a.tar.gz", "two.tar.gz"])
def test_any_part_is_read_from_the_points_of_an_index(archive: tuple[Path, bytes], tmp_path: Path, name: str) -> None:
    folder, whole = archive
    store, indexes = LocalStore(str(folder)), LocalStore(str(tmp_path))
    entry = store.entry(name)
    listing = gzip_index.make_index(store, entry, indexes)
    assert not listing.refused
    assert gzip_index.read_index(indexes, entry) == listing
    points = sorted({member.point for member in listing.members.values()})
    assert len(points) >= 4
    assert {point.bit % 8 for point in points} != {0}

    read: list[int] = []

    def fetch(start: int, stop: int) -> bytes:
        data = store.read_range(name, start, stop)
        read.append(len(data))
        return data

    def window(point: Point) -> bytes:
        return gzip_index.read_window(indexes, gzip_index.index_key(entry), point)

    inflating, rng = Inflating(fetch, window), random.Random(SEED)
    for member in rng.sample(list(listing.members.values()), 30):
        assert inflating.take(member.point, member.start, member.size) == whole[member.start : member.stop]
    at_random = sum(read)
    read.clear()
    for member in listing.members.values():
        assert inflating.take(member.point, member.start, member.size) == whole[member.start : member.stop]
    assert sum(read) <= entry.size + 2**20 < at_random  # in order, every byte once


def test_what_is_not_there_is_an_error(archive: tuple[Path, bytes]) -> None:
    folder, whole = archive
    data = (folder / "a.tar.gz").read_bytes()

    def fetch(start: int, stop: int) -> bytes:
        return data[start : min(stop, len(data) // 2)]

    inflating = Inflating(fetch, lambda _: b"")
    assert inflating.take(START, 0, 1000) == whole[:1000]
    with pytest.raises(EOFError):
        inflating.take(START, len(whole) - 10, 10)
    assert inflating.take(START, 500, 1000) == whole[500:1500]
    with pytest.raises(zlib.error):
        Inflating(lambda start, stop: b"\x1f\x8b\x08\0\0\0\0\0\0\0" + b"\xff" * 100, lambda _: b"").take(START, 0, 1)


def whole_of(data: bytes, step: int = 1000) -> int:
    return sum(map(len, Inflating(lambda start, stop: data[start:stop], lambda _: b"").whole(step)))


def test_a_whole_file_is_inflated_with_every_checksum_compared() -> None:
    one, two = gzip.compress(pixels(50_000), 6), gzip.compress(pixels(7_000), 1)
    assert whole_of(one + two) == 57_000
    assert whole_of(one + two + bytes(700)) == 57_000
    for place in (len(one) - 6, len(one) + len(two) - 6, len(one) - 2, len(one) + len(two) - 2):
        damaged = bytearray(one + two)
        damaged[place] ^= 1
        with pytest.raises(zlib.error):
            whole_of(bytes(damaged))
    for cut in (1, 8, 9, 1000):
        with pytest.raises(EOFError, match="the compressed file ends"):
            whole_of((one + two)[:-cut])


def test_a_decoder_that_ends_early_is_not_believed(
    archive: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says it read may be sound as far as it goes, and still be less than the file holds."""
    store = LocalStore(str(archive[0]))
    plain, left = gzip_index._next_piece, [archive[1].index(b"p20.tif")]

    def short(inflating: object, file: gzip_index.ObjectFile) -> bytes:
        piece = plain(inflating, file)[: left[0]]
        left[0] -= len(piece)
        return piece

    monkeypatch.setattr(gzip_index, "_next_piece", short)
    monkeypatch.setattr(gzip_index, "tar_listing", lambda archive, kind, file: _drained(file))
    listing = gzip_index.make_index(store, store.entry("a.tar.gz"), LocalStore(str(tmp_path)))
    assert [(item.path, item.reason) for item in listing.refused] == [("a.tar.gz", "damaged archive")]
    assert "two decoders read " in listing.refused[0].detail


@pytest.mark.parametrize("cut", [1, 8, 9])
def test_an_archive_without_its_checksum_is_used_and_named(archive: tuple[Path, bytes], tmp_path: Path, cut: int) -> None:
    (tmp_path / "a.tar.gz").write_bytes((archive[0] / "a.tar.gz").read_bytes()[:-cut])
    store = LocalStore(str(tmp_path))
    listing = gzip_index.make_index(store, store.entry("a.tar.gz"), LocalStore(str(tmp_path / "indexes")))
    assert [(item.path, item.reason) for item in listing.refused] == [("a.tar.gz", "damaged archive")]
    assert "download the archive again" in listing.refused[0].detail
    assert len(listing.members) >= 20  # the last piece of 8 MB may be lost with the checksum


def _drained(file: io.BufferedReader) -> Listing:
    while file.read(2**20):
        pass
    return Listing()
