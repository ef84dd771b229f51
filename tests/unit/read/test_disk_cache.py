"""Tiles that are kept on this machine's disk: what was fetched once is not fetched again, and never a wrong byte for it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import Built, Made

from cube.errors import RequestError
from cube.read import disk_cache, opened
from cube.read.disk_cache import DiskCache
from cube.store.local import LocalStore
from cube.store.protocol import Range
from cube.train.batches import Batches
from cube.train.samples import Samples


@dataclass(frozen=True)
class FarStore(LocalStore):
    """A folder that is read as an object store is, with its requests counted."""

    asked: list[Range] = field(default_factory=list)

    @property
    def near(self) -> bool:
        return False

    def read_ranges(self, ranges: list[Range]) -> list[bytes]:
        self.asked.extend(ranges)
        return super().read_ranges(ranges)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        self.asked.append(Range(key, start, stop))
        return super().read_range(key, start, stop)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Range]:
    """Have cubes read as from far; give what is asked for."""
    asked: list[Range] = []

    def far(url: str, *, options: Any = None) -> FarStore:
        return FarStore(str(Path(url).absolute()), asked=asked)

    monkeypatch.setattr(opened, "open_store", far)
    return asked


def pixels_asked(asked: list[Range]) -> list[Range]:
    return [item for item in asked if item.key.split("/")[0] in ("s1", "s2", "lc")]


def check(batches: Batches, made: Made) -> int:
    seen = 0
    for batch in batches:
        for row, name in enumerate(batch["patch"].tolist()):
            seen += 1
            for modality in ("s1", "s2", "lc"):
                assert np.array_equal(batch[modality][row], made.pixels[name, modality], equal_nan=modality == "s1")
    return seen


def test_a_second_epoch_asks_for_nothing(tiny_cube: Built, made: Made, asked: list[Range], tmp_path: Path) -> None:
    batches = Batches(Samples(tiny_cube.url, cache=tmp_path / "kept"), batch_size=4)
    assert check(batches, made) == 25
    first = len(pixels_asked(asked))
    assert first > 0
    assert check(batches, made) == 25
    assert len(pixels_asked(asked)) == first
    assert batches.counters.requests == 0
    asked.clear()
    again = pickle.loads(pickle.dumps(Samples(tiny_cube.url, cache=tmp_path / "kept")))
    assert check(Batches(again, batch_size=5, seed=7), made) == 25
    assert pixels_asked(asked) == []  # nor for the indexes of shards
    assert np.array_equal(again.read([3])["s2"][0], made.pixels[made.ids[3], "s2"])
    assert pixels_asked(asked) == []


def test_without_it_everything_is_asked_for_again(tiny_cube: Built, made: Made, asked: list[Range]) -> None:
    batches = Batches(Samples(tiny_cube.url), batch_size=4)
    check(batches, made)
    first = len(pixels_asked(asked))
    check(batches, made)
    assert len(pixels_asked(asked)) > first


def test_damage_on_the_disk_is_noticed_and_mended(tiny_cube: Built, made: Made, asked: list[Range], tmp_path: Path) -> None:
    check(Batches(Samples(tiny_cube.url, cache=tmp_path)), made)
    kept = [path for path in tmp_path.rglob("s2_*") if path.suffix != ".have" and not path.name.endswith(".index")]
    assert kept
    for path in kept:
        data = bytearray(path.read_bytes())
        data[20] ^= 1
        path.write_bytes(data)
    asked.clear()
    check(Batches(Samples(tiny_cube.url, cache=tmp_path)), made)
    assert len(pixels_asked(asked)) == len(kept)
    asked.clear()
    check(Batches(Samples(tiny_cube.url, cache=tmp_path)), made)
    assert pixels_asked(asked) == []


@pytest.mark.parametrize("damage", ["journal cut", "journal empty", "file cut", "file gone", "index cut", "all gone"])
def test_what_is_not_there_is_asked_for(tiny_cube: Built, made: Made, asked: list[Range], tmp_path: Path, damage: str) -> None:
    check(Batches(Samples(tiny_cube.url, cache=tmp_path)), made)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        what = "journal" if path.suffix == ".have" else "index" if path.suffix == ".index" else "file"
        if damage in (f"{what} gone", "all gone"):
            path.unlink()
        elif damage.startswith(what):
            os.truncate(path, 0 if "empty" in damage else max(0, path.stat().st_size - 5))
    asked.clear()
    check(Batches(Samples(tiny_cube.url, cache=tmp_path)), made)
    assert pixels_asked(asked)
    asked.clear()
    check(Batches(Samples(tiny_cube.url, cache=tmp_path)), made)
    assert pixels_asked(asked) == []


def test_a_cube_that_was_built_anew_is_another_one(tiny_cube: Built, tmp_path: Path) -> None:
    one = DiskCache(tmp_path, "s3://a/b.zarr 1")
    one.keep("s2/c/0", [(0, b"old")])
    assert one.tile("s2/c/0", 0, 3) == b"old"
    assert DiskCache(tmp_path, "s3://a/b.zarr 2").tile("s2/c/0", 0, 3) is None
    assert DiskCache(tmp_path, "s3://a/b.zarr 1").tile("s2/c/0", 0, 3) == b"old"
    assert one.tile("s2/c/0", 0, 4) is None
    assert one.tile("s2/c/0", 1, 3) is None


def test_what_was_used_least_recently_leaves_first(tmp_path: Path) -> None:
    kept = DiskCache(tmp_path, "cube", limit=300_000)
    for number in range(6):
        kept.keep(f"s2/c/{number}", [(0, os.urandom(80_000))])
        journal = next(tmp_path.rglob(f"s2_c_{number}.have"))
        os.utime(journal, (1000 + number, 1000 + number))
    held = {path.name for path in tmp_path.rglob("*.have")}
    assert 2 <= len(held) <= 4
    assert "s2_c_5.have" in held
    assert sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("*") if path.is_file()) <= 400_000
    smaller = DiskCache(tmp_path, "other", limit=100_000)
    assert len(list(tmp_path.rglob("*.have"))) <= 1
    assert smaller.tile("s2/c/5", 0, 80_000) is None


def test_what_another_process_removed_is_kept_anew(tmp_path: Path) -> None:
    kept = DiskCache(tmp_path, "cube")
    kept.keep("lc/c/0", [(8, b"tile")])
    for path in tmp_path.rglob("lc_*"):
        path.unlink()
    assert kept.tile("lc/c/0", 8, 4) == b"tile"  # it is open here
    fresh = DiskCache(tmp_path, "cube")
    assert fresh.tile("lc/c/0", 8, 4) is None
    fresh.keep("lc/c/0", [(8, b"tile")])
    assert DiskCache(tmp_path, "cube").tile("lc/c/0", 8, 4) == b"tile"


def _fill(folder: str, seed: int) -> None:
    kept = DiskCache(folder, "cube", limit=3_000_000)
    rng = np.random.default_rng(seed)
    for _ in range(300):
        shard, place = int(rng.integers(8)), int(rng.integers(40))
        data = bytes([shard, place]) * 10_000
        found = kept.tile(f"s2/c/{shard}", place * 20_000, 20_000)
        assert found in (None, data, bytes(20_000))  # a hole is no tile: its checksum is wrong
        kept.keep(f"s2/c/{shard}", [(place * 20_000, data)])


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_several_processes_share_a_folder(tmp_path: Path, start: str) -> None:
    context = multiprocessing.get_context(start)
    running = [context.Process(target=_fill, args=(str(tmp_path), seed)) for seed in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0, 0, 0]


def test_a_full_disk_is_told_of_once_and_reading_goes_on(
    tiny_cube: Built, made: Made, asked: list[Range], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk_cache.os, "pwrite", full)
    with pytest.warns(UserWarning, match="nothing more is kept in cache=.*: No space left") as said:
        check(Batches(Samples(tiny_cube.url, cache=tmp_path)), made)
    assert len(said) == 1
    assert pixels_asked(asked)


def test_a_folder_that_cannot_be_written_is_refused(tiny_cube: Built, asked: list[Range], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match="name a folder that can be written"):
        Samples(tiny_cube.url, cache=tmp_path / "file/kept")
    with pytest.raises(RequestError, match="cache_limit is 0"):
        Samples(tiny_cube.url, cache=tmp_path, cache_limit=0)


def test_a_cube_on_a_disk_needs_no_other(tiny_cube: Built, made: Made, tmp_path: Path) -> None:
    samples = Samples(tiny_cube.url, cache=tmp_path / "kept")
    check(Batches(samples), made)
    assert samples.disk is None
    assert not (tmp_path / "kept").exists()


def test_a_mistyped_option_is_named_with_the_one_that_was_meant(tiny_cube: Built) -> None:
    with pytest.raises(TypeError, match="did you mean 'cache'"):
        Samples(tiny_cube.url, cach="kept")
