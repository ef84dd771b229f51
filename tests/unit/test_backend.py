"""The engine gives what plain xarray gives, and reads no more than it must."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from making import MODALITIES, Built, Made

from cube import open_cube
from cube.arrays import metadata_bytes
from cube.certificate import seal
from cube.errors import CorruptError, RequestError
from cube.pixels import PixelReader, TileCache, Window
from cube.store import LocalStore, Range

SIZE = 32


def reader_of(cube: xr.Dataset, name: str) -> PixelReader:
    data: Any = cube[name].variable._data
    while not hasattr(data, "reader"):
        data = data.array
    return data.reader


def test_the_engine_is_registered_and_gives_what_plain_xarray_gives(tiny_cube: Built) -> None:
    cube = xr.open_dataset(tiny_cube.url, engine="cube")
    xr.testing.assert_identical(cube.load(), xr.open_zarr(tiny_cube.url, chunks=None).load())


def _some(rng: np.random.Generator, length: int) -> Any:
    """Return a slice, an integer or integers, as a user may select them."""
    kind = rng.integers(4)
    if kind == 0:
        return int(rng.integers(-length, length))
    if kind == 1:
        return rng.integers(-length, length, rng.integers(0, 2 * length)).tolist()
    start, stop = rng.integers(-length, length + 1, 2).tolist()
    step = int(rng.choice([1, 1, 2, 3, -1, -2]))
    if step < 0 and not range(length)[start:stop:step]:
        return slice(None, None, step)  # xarray itself cannot read an empty slice that runs backwards
    return slice(start, stop, step)


@pytest.mark.parametrize("seed", range(60))
def test_every_selection_is_that_of_plain_xarray(tiny_cube: Built, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = {"patch": 25, "s2_band": 13, "y": SIZE, "x": SIZE}
    chosen = {name: _some(rng, length) for name, length in lengths.items() if rng.integers(4)}
    seen = open_cube(tiny_cube.url).s2.isel(chosen)
    expected = xr.open_zarr(tiny_cube.url, chunks=None).s2.load().isel(chosen)
    xr.testing.assert_identical(seen.load(), expected)


def test_opening_and_selecting_read_no_tile(tiny_cube: Built) -> None:
    cube = open_cube(tiny_cube.url)
    chosen = cube.sel(season="summer", s2_band=["B04", "B03"]).isel(y=slice(0, 16))
    assert [reader_of(cube, name).traffic.requests for name in MODALITIES] == [0, 0, 0]
    chosen.s2.load()
    assert reader_of(cube, "s2").traffic.decoded > 0
    assert reader_of(cube, "s1").traffic.requests == 0


def test_opening_asks_for_the_root_and_the_ids_only(tiny_cube: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read = LocalStore.read
    monkeypatch.setattr(LocalStore, "read", lambda self, key: asked.append(key) or read(self, key))
    open_cube(tiny_cube.url)
    assert asked == ["zarr.json", "patch/c/0"]


def test_each_tile_is_decoded_once_a_request(tiny_cube: Built) -> None:
    reader = reader_of(open_cube(tiny_cube.url), "s2")
    rows = np.tile(np.arange(16), 3)
    reader.read(rows)
    _, stored = tiny_cube.written.receipts[0]["tiles"]["s2"]
    assert reader.traffic.decoded == stored < 64
    assert reader.traffic.requests == 2  # the index, and all tiles in one range


def test_a_window_reads_the_tiles_it_touches(tiny_cube: Built, made: Made) -> None:
    reader = reader_of(open_cube(tiny_cube.url), "s2")
    seen = reader.read(np.array([3]), Window(bands=slice(2, 4), y=slice(0, 10), x=slice(20, 32)))
    assert np.array_equal(seen[0], made.pixels[made.ids[3], "s2"][2:4, 0:10, 20:32])
    assert reader.traffic.decoded == 1


def test_a_cache_is_bounded_and_spares_decoding(tiny_cube: Built) -> None:
    tile = 13 * 16 * 16 * 2
    cube = open_cube(tiny_cube.url, cache_bytes=10 * tile)
    reader = reader_of(cube, "s2")
    first = reader.read(np.array([0, 1]))
    before = reader.traffic.decoded
    assert np.array_equal(reader.read(np.array([1, 0])), first[::-1])
    assert reader.traffic.decoded == before
    reader.read(np.arange(25))
    assert reader.cache is not None
    assert 0 < reader.cache.held <= 10 * tile


def test_a_tile_larger_than_the_cache_is_not_kept() -> None:
    cache = TileCache(10)
    cache.put(("s2", 0, 0), np.zeros(11, np.uint8))
    assert cache.get(("s2", 0, 0)) is None
    assert cache.held == 0


def test_a_flipped_bit_is_never_returned(tiny_cube: Built, tmp_path: Path) -> None:
    url = tmp_path / "x.zarr"
    shutil.copytree(tiny_cube.url, url)
    shard = url / "s2/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 4
    shard.write_bytes(data)
    with pytest.raises(CorruptError, match="s2/c/0/0/0/0"):
        open_cube(str(url)).s2.load()
    data[100] ^= 4
    data[-10] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptError, match="index"):
        open_cube(str(url)).s2.load()


def _sum(cube: xr.Dataset) -> int:
    return int(cube.lc.sum())


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_it_survives_every_way_to_start_a_process(tiny_cube: Built, method: str) -> None:
    cube = open_cube(tiny_cube.url)
    expected = _sum(cube)  # the parent has decoded, with threads, before it forks
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(_sum, [cube, cube, cube]).get(timeout=60) == [expected] * 3


def test_it_is_pickled_without_what_it_has_read(tiny_cube: Built) -> None:
    reader = reader_of(open_cube(tiny_cube.url, cache_bytes=1 << 20), "s2")
    pixels = reader.read(np.arange(4))
    packed = pickle.dumps(reader)
    assert len(packed) < 3000
    assert np.array_equal(pickle.loads(packed).read(np.arange(4)), pixels)


def test_dask_chunks_are_parts_of_a_shard(tiny_cube: Built) -> None:
    cube = xr.open_dataset(tiny_cube.url, engine="cube", chunks={})
    assert cube.s2.chunks == ((16, 9), (13,), (32,), (32,))
    xr.testing.assert_identical(cube.s2.max("patch").load(), open_cube(tiny_cube.url).s2.load().max("patch"))


def _with_codecs(url: Path, codecs: list[dict[str, Any]]) -> None:
    root = json.loads((url / "zarr.json").read_bytes())
    root["consolidated_metadata"]["metadata"]["s2"]["codecs"] = codecs
    root["attributes"]["cube"]["certificate"]["root"] = "0" * 64
    (url / "zarr.json").write_bytes(seal(root))


def test_a_root_that_is_not_what_was_sealed_is_refused(tiny_cube: Built, tmp_path: Path) -> None:
    url = tmp_path / "x.zarr"
    shutil.copytree(tiny_cube.url, url)
    data = (url / "zarr.json").read_bytes()
    for damaged in (data.replace(b'"tiny"', b'"tinz"', 1), data[:-10]):
        (url / "zarr.json").write_bytes(damaged)
        with pytest.raises(CorruptError, match=r"zarr\.json is (not what was sealed|damaged)"):
            open_cube(str(url))


def test_a_hostile_codec_is_refused_unread(tiny_cube: Built, tmp_path: Path) -> None:
    url = tmp_path / "x.zarr"
    shutil.copytree(tiny_cube.url, url)
    _with_codecs(url, [{"name": "bytes"}, {"name": "numcodecs.pickle"}])
    with pytest.raises(RequestError, match=r"numcodecs\.pickle"):
        open_cube(str(url))


def test_another_format_is_left_to_zarr(tiny_cube: Built, tmp_path: Path) -> None:
    url = tmp_path / "x.zarr"
    shutil.copytree(tiny_cube.url, url)
    root = json.loads((url / "zarr.json").read_bytes())
    root["attributes"]["cube"]["format"] = "7.0"
    (url / "zarr.json").write_bytes(metadata_bytes(root))
    cube = open_cube(str(url))
    assert cube.attrs["cube"]["format"] == "7.0"
    xr.testing.assert_equal(cube.load(), open_cube(tiny_cube.url).load())


def test_a_group_without_consolidated_metadata_is_refused(tmp_path: Path) -> None:
    (tmp_path / "y.zarr").mkdir()
    (tmp_path / "y.zarr/zarr.json").write_bytes(metadata_bytes({"zarr_format": 3, "node_type": "group"}))
    with pytest.raises(RequestError, match="consolidated"):
        open_cube(str(tmp_path / "y.zarr"))


def test_many_ranges_come_in_order(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.write("a", bytes(range(100)))
    store.write("b", bytes(range(100, 200)))
    asked = [Range("a", 5, 8), Range("b", -3, None), Range("a", 0, 1), Range("b", -500, None)]
    assert store.read_ranges(asked) == [bytes([5, 6, 7]), bytes([197, 198, 199]), b"\0", bytes(range(100, 200))]
