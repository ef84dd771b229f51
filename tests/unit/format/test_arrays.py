"""Array documents and small chunks: zarr itself reads what is encoded here, and damage is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr

from cube.errors import CorruptError
from cube.format.arrays import (
    ArraySpec,
    chunk_key,
    decode_chunk,
    encode_chunk,
    group_document,
    metadata_bytes,
    read_spec,
    values_digest,
)

PLAIN: dict[str, Any] = {"shape": (7,), "chunks": (4,), "dtype": "<i4", "dimensions": ("patch",)}
KINDS: dict[str, tuple[dict[str, Any], np.ndarray]] = {
    "integers": ({}, np.arange(7, dtype="<i4")),
    "floats": ({"dtype": "<f8", "fill": "nan"}, np.array([0.5, -0.0, np.nan, np.inf, 1e300, 5, 6])),
    "truth": ({"dtype": "|b1", "fill": False}, np.array([1, 0, 1, 1, 0, 0, 1], bool)),
    "bytes": ({"dtype": "|u1", "shape": (7, 3), "chunks": (4, 3), "dimensions": ("patch", "k")}, np.arange(21).reshape(7, 3)),
    "texts": ({"dtype": "<U5", "fill": ""}, np.array(["a", "", "äöü", "Ω", "12345", "\U0001f600x", "b"])),
    "unshuffled": ({"dtype": "<i8", "shuffle": "noshuffle"}, np.arange(7) * 2**40),
    "bits": ({"dtype": "<u2", "codec": "lz4", "level": 5, "shuffle": "bitshuffle"}, np.arange(7)),
}


def spec_of(**changes: Any) -> ArraySpec:
    return ArraySpec(path="values", **{**PLAIN, **changes})


def write(folder: Path, spec: ArraySpec, values: np.ndarray) -> None:
    (folder / "values/c").mkdir(parents=True)
    (folder / "zarr.json").write_bytes(metadata_bytes(group_document({})))
    (folder / "values/zarr.json").write_bytes(metadata_bytes(spec.document()))
    for place in range(spec.grid[0]):
        path = folder / chunk_key("values", (place, *(0 for _ in spec.shape[1:])))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_chunk(spec, values[place * spec.chunks[0] : (place + 1) * spec.chunks[0]]))


@pytest.mark.filterwarnings("ignore:The data type:zarr.errors.UnstableSpecificationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_zarr_reads_what_is_encoded(tmp_path: Path, kind: str) -> None:
    changes, given = KINDS[kind]
    spec = spec_of(**changes)
    values = given.astype(spec.dtype)
    write(tmp_path, spec, values)
    array = zarr.open_group(tmp_path, mode="r")["values"]
    assert (array.shape, array.chunks, array.dtype) == (spec.shape, spec.chunks, np.dtype(spec.dtype))
    assert array.metadata.dimension_names == spec.dimensions
    read = array[...]
    assert read.tobytes() == values.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_gives_the_values_and_the_padding(kind: str) -> None:
    changes, given = KINDS[kind]
    spec = spec_of(**changes)
    values = given.astype(spec.dtype)
    last = decode_chunk(spec, encode_chunk(spec, values[4:]))
    assert last.shape == spec.chunks
    assert last[:3].tobytes() == values[4:].tobytes()
    fill = np.full(1, np.nan if spec.fill == "nan" else spec.fill, spec.dtype)
    assert last[3:].tobytes() == np.broadcast_to(fill, last[3:].shape).tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sharded", [False, True])
def test_a_document_says_all_there_is_to_a_spec(kind: str, sharded: bool) -> None:
    changes, _ = KINDS[kind]
    spec = spec_of(**changes, attributes={"units": "m"})
    if sharded:
        spec = spec_of(**{**changes, "inner": (1, *spec.chunks[1:])})
    again = read_spec("values", json.loads(metadata_bytes(spec.document())))
    assert again == spec


def test_zarr_reads_a_sharded_document_as_it_is_meant() -> None:
    spec = spec_of(
        shape=(9, 3, 16, 16), chunks=(4, 3, 16, 16), inner=(1, 3, 8, 8), dtype="<u2", dimensions=("patch", "band", "y", "x")
    )
    store = zarr.storage.MemoryStore()
    data = zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(metadata_bytes(spec.document()))
    asyncio.run(store.set("zarr.json", data))
    array = zarr.open_array(store, mode="r")
    assert (array.shape, array.shards, array.chunks) == (spec.shape, spec.chunks, spec.inner)
    assert list(spec.object_keys()) == ["values/c/0/0/0/0", "values/c/1/0/0/0", "values/c/2/0/0/0"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "checksum"),
        (b"abc", "checksum"),
        (b"\0\0\0\0", "claims 0 bytes of 0, expected 0 of 16"),
        (encode_chunk(spec_of(), np.arange(4)) + b"x", "checksum"),
        (encode_chunk(spec_of(chunks=(5,)), np.arange(5)), "bytes of 20, expected .* of 16"),
    ],
)
def test_a_damaged_chunk(data: bytes, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        decode_chunk(spec_of(), data)


def test_a_chunk_whose_body_cannot_be_decoded() -> None:
    body = bytearray(numcodecs.Blosc("zstd").encode(bytes(4000)))
    body[4:8], body[20:] = (16).to_bytes(4, "little"), b"\xff" * (len(body) - 20)
    with pytest.raises(CorruptError, match="cannot be decoded"):
        decode_chunk(spec_of(), bytes(body) + google_crc32c.value(bytes(body)).to_bytes(4, "little"))


@pytest.mark.parametrize("place", [0, 5, 16, -5, -1])
def test_a_chunk_with_a_flipped_bit(place: int) -> None:
    data = bytearray(encode_chunk(spec_of(), np.arange(4)))
    data[place] ^= 16
    with pytest.raises(CorruptError, match="checksum"):
        decode_chunk(spec_of(), bytes(data))


@pytest.mark.parametrize("lost", ["shape", "codecs", "data_type", "chunk_grid", "attributes", "dimension_names", "fill_value"])
def test_a_document_that_lacks_something(lost: str) -> None:
    document = spec_of().document()
    del document[lost]
    with pytest.raises(CorruptError, match=f"values: its metadata lack or bend '{lost}'"):
        read_spec("values", document)


@pytest.mark.parametrize(
    "codecs",
    [[], [{"name": "bytes"}], [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "zstd"}]}}], None, "x"],
)
def test_a_document_with_other_codecs(codecs: Any) -> None:
    with pytest.raises(CorruptError, match="values: "):
        read_spec("values", {**spec_of().document(), "codecs": codecs})


def test_the_digest_of_values_binds_type_and_shape() -> None:
    values = np.arange(6, dtype="<i4")
    digests = {values_digest(values), values_digest(values.reshape(2, 3)), values_digest(values.view("<u4"))}
    assert len(digests) == 3
    assert values_digest(values) == values_digest(np.arange(12, dtype="<i4")[:6]) == values_digest(np.repeat(values, 2)[::2])
