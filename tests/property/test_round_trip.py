"""read(write(x)) == x bit for bit: random tiles, random sharing, every type; filters that fail only as filters do."""

from __future__ import annotations

import io
from typing import Any

import google_crc32c
import numpy as np
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cube.errors import CorruptError, FilterError
from cube.format.arrays import ArraySpec, chunk_key, decode_chunk, encode_chunk, metadata_bytes
from cube.format.tiles import ABSENT, ShardWriter, TileLayout, decode_tile, read_index
from cube.query.filters import select
from cube.query.grammar import parse

DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<f8")

layouts = st.builds(
    TileLayout,
    size=st.just(16),
    tile=st.sampled_from([4, 8, 16]),
    bands=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    slots=st.integers(1, 7),
    codec=st.sampled_from(["lz4", "zstd"]),
    level=st.integers(1, 9),
    shuffle=st.sampled_from(["shuffle", "bitshuffle"]),
    saturated=st.none(),
)


def words(layout: TileLayout, seed: int, kinds: int) -> np.ndarray:
    """Return a few tiles of any bits: (kind, y, x, band)."""
    rng = np.random.default_rng(seed)
    count = kinds * layout.tile_bytes
    data = rng.integers(0, 256, count, "u1") if seed % 3 else np.repeat(rng.integers(0, 256, kinds, "u1"), layout.tile_bytes)
    return np.frombuffer(data.tobytes(), layout.dtype).reshape(kinds, layout.tile, layout.tile, layout.bands)


def patch_of(layout: TileLayout, tiles: np.ndarray) -> np.ndarray:
    """Put tiles (place, y, x, band) together to a patch (y, x, band)."""
    n, t = layout.across, layout.tile
    return (
        tiles.reshape(n, n, t, t, layout.bands).transpose(0, 2, 1, 3, 4).reshape(layout.size, layout.size, layout.bands).copy()
    )


@settings(max_examples=120, deadline=None)
@given(layout=layouts, data=st.data())
def test_shards(layout: TileLayout, data: st.DataObject) -> None:
    """Tiles come back with every bit, are stored once each, and absent patches stay absent; zarr reads them too."""
    kinds = data.draw(st.integers(1, 6), label="kinds of tile")
    known = words(layout, data.draw(st.integers(0, 999), label="seed"), kinds)
    slots = data.draw(st.lists(st.integers(0, layout.slots - 1), unique=True, max_size=layout.slots).map(sorted), label="slots")
    places = layout.across**2
    used = data.draw(hnp.arrays(np.int64, (len(slots), places), elements=st.integers(0, kinds - 1)), label="tiles")
    sink = io.BytesIO()
    writer = ShardWriter(layout, sink.write)
    patches = {slot: patch_of(layout, known[used[row]]) for row, slot in enumerate(slots)}
    digests = {slot: writer.add(slot, pixels)[0] for slot, pixels in patches.items()}
    writer.finish()
    shard = sink.getvalue()
    index = read_index(layout, shard[-layout.index_bytes :], len(shard))
    different = {known[kind].tobytes() for kind in np.unique(used)} if slots else set()
    assert len(np.unique(index[index[..., 0] != ABSENT], axis=0)) == len(different) == len(writer.seen)
    planes = np.empty((layout.bands, layout.tile, layout.tile), layout.dtype)
    for row, slot in enumerate(slots):
        for place in range(places):
            offset, length = index[slot, place].tolist()
            decode_tile(layout, layout.compressor(), memoryview(shard)[offset : offset + length], planes)
            assert planes.transpose(1, 2, 0).tobytes() == known[used[row, place]].tobytes()
    for slot in set(range(layout.slots)) - set(slots):
        assert (index[slot] == ABSENT).all()
    same = {pixels.tobytes(): digests[slot] for slot, pixels in patches.items()}
    assert len(set(same.values())) == len(same) == len(set(digests.values()))
    read_with_zarr(layout, shard, patches)


def read_with_zarr(layout: TileLayout, shard: bytes, patches: dict[int, np.ndarray]) -> None:
    shape = (layout.slots, layout.bands, layout.size, layout.size)
    spec = ArraySpec(
        path="x",
        shape=shape,
        chunks=shape,
        inner=(1, layout.bands, layout.tile, layout.tile),
        dtype=layout.dtype,
        dimensions=("patch", "band", "y", "x"),
        codec=layout.codec,
        level=layout.level,
        shuffle=layout.shuffle,
    )
    buffer = zarr.core.buffer.default_buffer_prototype().buffer
    objects = {"zarr.json": metadata_bytes(spec.document()), chunk_key("", (0, 0, 0, 0)).lstrip("/"): shard}
    store = zarr.storage.MemoryStore({key: buffer.from_bytes(value) for key, value in objects.items()})
    read: Any = zarr.open_array(store, mode="r")[...]
    for slot in range(layout.slots):
        expected = patches.get(slot, np.zeros((layout.size, layout.size, layout.bands), layout.dtype))
        assert read[slot].transpose(1, 2, 0).tobytes() == expected.tobytes()


@settings(max_examples=100, deadline=None)
@given(
    values=hnp.arrays(st.sampled_from([*DTYPES, "|b1", "<i8", "<U3"]), hnp.array_shapes(min_dims=1, max_dims=3, max_side=6)),
    length=st.integers(1, 8),
    codec=st.sampled_from(["lz4", "zstd"]),
    shuffle=st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]),
)
def test_small_chunks(values: np.ndarray, length: int, codec: str, shuffle: str) -> None:
    kind = values.dtype.kind
    spec = ArraySpec(
        path="x",
        shape=values.shape,
        chunks=(length, *values.shape[1:]),
        dtype=values.dtype.str,
        dimensions=tuple("abc"[: values.ndim]),
        fill={"U": "", "f": "nan", "b": False}.get(kind, 0),
        codec=codec,
        shuffle=shuffle,
    )
    for start in range(0, len(values), length):
        part = values[start : start + length]
        again = decode_chunk(spec, encode_chunk(spec, part))
        assert again.shape == spec.chunks
        assert again[: len(part)].tobytes() == part.tobytes()


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80), fix=st.booleans())
def test_no_stored_bytes_make_decoding_fail_otherwise(data: bytes, fix: bool) -> None:
    layout = TileLayout(size=4, tile=4, bands=1, dtype="|u1", slots=1, codec="zstd", level=1, shuffle="shuffle")
    if fix:
        data = b"\x02\x01\x01\x01" + (16).to_bytes(4, "little") * 2 + (len(data) + 16).to_bytes(4, "little") + data
        data += google_crc32c.value(data).to_bytes(4, "little")
    try:
        decode_tile(layout, layout.compressor(), data, np.empty((1, 4, 4), "u1"))
    except CorruptError:
        return
    assert fix


FIELDS = {"season": np.array(["wet", "dry", "dry"]), "scene": np.array([1, 2, 3]), "patch": np.array(["a", "b", "c"], object)}
likely = st.lists(
    st.sampled_from(
        ["season", "scene", "patch", "=", "!=", "<", "<=", ">", "wet", "dry", "1", "2", ",", " ", " and ", "a", "-", "."]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(st.text(max_size=40), likely))
def test_a_filter_selects_rows_or_is_refused(text: str) -> None:
    try:
        rows = select(text, FIELDS)
    except FilterError:
        return
    assert rows.dtype == bool
    assert rows.shape == (3,)
    assert all(clause.field in FIELDS for clause in parse(text))
