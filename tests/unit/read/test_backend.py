"""The engine gives what plain xarray gives, and reads no more than it must."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from making import MODALITIES, Built, Made
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec

from cube import Samples, open_cube, open_scene
from cube.errors import CorruptError, RequestError
from cube.format.arrays import metadata_bytes
from cube.format.certificate import seal
from cube.read.cache import TileCache
from cube.read.pixels import PixelReader
from cube.read.ranges import Window
from cube.store.local import LocalStore
from cube.store.protocol import Range

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


def test_it_is_pickled_without_what_it_has_read(tiny_cube: Built) -> None:
    reader = reader_of(open_cube(tiny_cube.url, cache_bytes=1 << 20), "s2")
    pixels = reader.read(np.arange(4))
    packed = pickle.dumps(reader)
    assert len(packed) < 5000
    assert np.array_equal(pickle.loads(packed).read(np.arange(4)), pixels)


@pytest.mark.parametrize(
    ("patches", "optical", "radar"),
    [(12, (8, 8, 8, 1), (25,)), (16, (16, 9), (25,)), (5, (4, 4, 4, 4, 4, 4, 1), (16, 9)), (100, (25,), (25,))],
)
def test_dask_chunks_are_whole_shards_or_parts_of_one(
    tiny_cube: Built, monkeypatch: pytest.MonkeyPatch, patches: int, optical: tuple[int, ...], radar: tuple[int, ...]
) -> None:
    monkeypatch.setattr("cube.read.engine._DASK_BYTES", patches * 13 * SIZE * SIZE * 2)
    cube = xr.open_dataset(tiny_cube.url, engine="cube", chunks={})
    assert cube.s2.chunks == (optical, (13,), (SIZE,), (SIZE,))
    assert cube.s1.chunks[0] == radar
    xr.testing.assert_identical(cube.s2.max("patch").load(), open_cube(tiny_cube.url).s2.load().max("patch"))


def _with_metadata(url: Path, changes: dict[str, Any], attributes: dict[str, Any] | None = None) -> None:
    """Change what the root says of ``s2``, or of the cube, and seal it anew, as whoever is hostile would."""
    root = json.loads((url / "zarr.json").read_bytes())
    root["consolidated_metadata"]["metadata"]["s2"].update(changes)
    root["attributes"]["cube"].update(attributes or {})
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


class _Bomb:
    """What runs a command where it is unpickled: it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


PICKLE = {"name": "numcodecs.pickle"}
SHARDING = {"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 13, 16, 16], "index_codecs": [{"name": "bytes"}]}}


def _sharding(**configuration: Any) -> dict[str, Any]:
    """Return a sharding codec with other codecs inside."""
    return {**SHARDING, "configuration": {**SHARDING["configuration"], **configuration}}


OLD = {"zarr_format": 2, "chunks": [25], "dtype": "|O", "order": "C", "compressor": None, "shape": [25]}
OLD |= {"filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "attributes": {"_ARRAY_DIMENSIONS": ["patch"]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codecs": [{"name": "bytes"}, PICKLE]}, r"numcodecs\.pickle"),
        ({"codecs": ["bytes", "numcodecs.pickle"]}, r"numcodecs\.pickle"),
        ({"codecs": [_sharding(codecs=[{"name": "bytes"}, PICKLE])]}, r"numcodecs\.pickle"),
        ({"codecs": [_sharding(codecs=[_sharding(codecs=[PICKLE])])]}, r"numcodecs\.pickle"),
        ({"codecs": [_sharding(codecs=[{"name": "bytes"}], index_codecs=[PICKLE])]}, r"numcodecs\.pickle"),
        ({"codecs": [{"name": "bytes"}, {"name": "somebody.made.it", "configuration": None}]}, r"somebody\.made\.it"),
        ({"codecs": [{}]}, "None"),
        ({**OLD, "codecs": [{"name": "bytes"}]}, "Zarr format 2"),
        ({**OLD, "codecs": [{"name": "bytes"}], "node_type": "group"}, "Zarr format 2"),
    ],
)
def test_a_hostile_cube_is_refused_unread(
    tiny_cube: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    url = tmp_path / "x.zarr"
    shutil.copytree(tiny_cube.url, url)
    _with_metadata(url, changes)
    for chunk in ("s2/c/0/0/0/0", "s2/0"):
        (url / chunk).write_bytes(pickle.dumps(_Bomb(tmp_path / "exploded")))
    asked: list[str] = []
    read = LocalStore.read
    monkeypatch.setattr(LocalStore, "read", lambda self, key: asked.append(key) or read(self, key))
    with pytest.raises(RequestError, match=message):
        xr.open_dataset(str(url), engine="cube")
    with pytest.raises(RequestError, match="no cube of this package"):
        Samples(str(url))
    with pytest.raises(RequestError):
        open_scene(str(url), season="summer", scene=1)
    assert set(asked) == {"zarr.json"}
    assert not (tmp_path / "exploded").exists()
    pickle.loads((url / "s2/0").read_bytes())
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("compressors", [None, [GzipCodec(level=1)], [BloscCodec(cname="lz4"), Crc32cCodec()]])
def test_other_harmless_codecs_are_left_to_zarr(tiny_cube: Built, made: Made, tmp_path: Path, compressors: Any) -> None:
    url = tmp_path / "x.zarr"
    shutil.copytree(tiny_cube.url, url)
    shutil.rmtree(url / "s2")
    names = ("patch", "s2_band", "y", "x")
    array = zarr.create_array(
        url / "s2", data=made.array("s2"), chunks=(5, 13, 32, 32), compressors=compressors, dimension_names=names
    )
    _with_metadata(url, array.metadata.to_dict())
    cube = open_cube(str(url))
    assert np.array_equal(cube.s2.isel(patch=[3, 20]).values, made.array("s2")[[3, 20]])
    xr.testing.assert_equal(cube.load(), open_cube(tiny_cube.url).load())
    with pytest.raises(RequestError, match="without where"):
        open_cube(str(url), where="season=summer")


def test_another_format_is_left_to_zarr(tiny_cube: Built, tmp_path: Path) -> None:
    url = tmp_path / "x.zarr"
    shutil.copytree(tiny_cube.url, url)
    _with_metadata(url, {}, {"format": "7.0"})
    cube = open_cube(str(url))
    assert cube.attrs["cube"]["format"] == "7.0"
    xr.testing.assert_equal(cube.load(), open_cube(tiny_cube.url).load())


@pytest.mark.parametrize("meaning", ["something else", {"shape": [1]}, 3])
def test_a_group_that_calls_something_else_cube_is_left_to_zarr(tmp_path: Path, meaning: Any) -> None:
    group = xr.Dataset({"a": ("x", [1, 2, 3])}, attrs={"cube": meaning})
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        group.to_zarr(tmp_path / "x.zarr", zarr_format=3, consolidated=True)
    xr.testing.assert_identical(open_cube(str(tmp_path / "x.zarr")).load(), group)


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
