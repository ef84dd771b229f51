"""The arrays of a cube as Zarr v3 says them: shapes, chunks, codecs, documents, and the bytes of small chunks. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cube.errors import CorruptError

_LONGEST = 2**40
"""Of a dimension."""
_LARGEST = 2**31 - 1
"""Bytes of a chunk, which is the most that Blosc takes."""
_MOST = 2**24
"""Objects of an array, and chunks of a shard."""
_CHAIN = ["bytes", "blosc", "crc32c"]
_CODECS = ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
_BLOSC_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One Zarr array."""

    path: str
    """Path below the root."""
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    """Shape of one object: a chunk, or a shard where ``inner`` is given."""
    dtype: str
    """Little-endian NumPy type, such as ``<f4`` or ``<U32``."""
    dimensions: tuple[str, ...]
    fill: Any = 0
    inner: tuple[int, ...] | None = None
    """Shape of the chunks inside a shard."""
    codec: str = "zstd"
    level: int = 3
    shuffle: str = "shuffle"
    block: int = 0
    """Bytes that are compressed by themselves; 0 where Blosc chooses."""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def typesize(self) -> int:
        """Bytes Blosc shuffles by: an item, or one character of a text."""
        return 4 if self.dtype.startswith("<U") else np.dtype(self.dtype).itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of objects along each dimension."""
        return tuple(math.ceil(length / chunk) for length, chunk in zip(self.shape, self.chunks, strict=True))

    def object_keys(self) -> Iterator[str]:
        """Yield the key of every object that holds values."""
        for place in product(*(range(count) for count in self.grid)):
            yield chunk_key(self.path, place)

    @property
    def codec_text(self) -> str:
        """The codec as recipes name it, such as ``zstd-2-128k``."""
        bit, block = "-bit" if self.shuffle == "bitshuffle" else "", f"-{self.block >> 10}k" if self.block else ""
        return f"{self.codec}-{self.level}{bit}{block}"

    def document(self) -> dict[str, Any]:
        """Return the metadata document."""
        chain = _codec_chain(self)
        if self.inner is not None:
            chain = [_sharding(self.inner, chain)]
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": _data_type(self.dtype),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunks)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": "NaN" if self.fill == "nan" else self.fill,
            "codecs": chain,
            "attributes": dict(self.attributes),
            "dimension_names": list(self.dimensions),
            "storage_transformers": [],
        }


def chunk_key(path: str, place: tuple[int, ...]) -> str:
    """Return the key of one chunk or shard."""
    return "/".join((path, "c", *(str(part) for part in place)))


def metadata_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a metadata document as it is stored."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False).encode()


def group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata document of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def encode_chunk(spec: ArraySpec, values: NDArray[Any]) -> bytes:
    """Encode one chunk of an unsharded array; a chunk at the end is padded with the fill value."""
    fill = {"nan": np.nan}.get(spec.fill, spec.fill) if isinstance(spec.fill, str) else spec.fill
    whole = np.full(spec.chunks, fill, spec.dtype)
    whole[tuple(slice(length) for length in values.shape)] = values
    encoded = _compressor(spec).encode(_as_plain(spec, whole))
    return bytes(encoded + google_crc32c.value(encoded).to_bytes(4, "little"))


def decode_chunk(spec: ArraySpec, data: bytes) -> NDArray[Any]:
    """Decode one chunk of an unsharded array, padding included.

    Raises ``CorruptError`` if its checksum is wrong or it is not such a chunk.
    """
    body = data[:-4]
    if len(data) < 4 or google_crc32c.value(body) != int.from_bytes(data[-4:], "little"):
        raise CorruptError("its checksum is wrong")
    claimed = int.from_bytes(body[4:8], "little"), int.from_bytes(body[12:16], "little")
    wanted = math.prod(spec.chunks) * np.dtype(spec.dtype).itemsize
    if claimed != (wanted, len(body)):  # Blosc itself believes its header
        raise CorruptError(f"it claims {claimed[1]:,} bytes of {claimed[0]:,}, expected {len(body):,} of {wanted:,}")
    try:
        decoded = _compressor(spec).decode(body)
        return np.frombuffer(decoded, spec.dtype).reshape(spec.chunks)
    except (RuntimeError, ValueError) as error:
        raise CorruptError(f"it cannot be decoded ({error})") from None


def values_digest(values: NDArray[Any]) -> str:
    """Hash the values of a whole array with its type and shape."""
    hasher = blake3(f"cube array 1 {values.dtype.str} {values.shape}".encode())
    hasher.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return str(hasher.hexdigest())


def _as_plain(spec: ArraySpec, values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(-1).view(f"<u{spec.typesize}" if spec.dtype.startswith("<U") else values.dtype)


def _compressor(spec: ArraySpec) -> numcodecs.Blosc:
    numcodecs.blosc.use_threads = False
    return numcodecs.Blosc(spec.codec, spec.level, _BLOSC_SHUFFLES[spec.shuffle], spec.block)


def _codec_chain(spec: ArraySpec) -> list[dict[str, Any]]:
    blosc = {
        "typesize": spec.typesize,
        "cname": spec.codec,
        "clevel": spec.level,
        "shuffle": spec.shuffle,
        "blocksize": spec.block,
    }
    return [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "blosc", "configuration": blosc},
        {"name": "crc32c"},
    ]


def _sharding(inner: tuple[int, ...], chain: list[dict[str, Any]]) -> dict[str, Any]:
    index_codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    configuration = {
        "chunk_shape": list(inner),
        "codecs": chain,
        "index_codecs": index_codecs,
        "index_location": "end",
    }
    return {"name": "sharding_indexed", "configuration": configuration}


def _data_type(dtype: str) -> Any:
    kind = np.dtype(dtype)
    if kind.kind == "U":
        return {"name": "fixed_length_utf32", "configuration": {"length_bytes": kind.itemsize}}
    return kind.name


def read_spec(path: str, document: Mapping[str, Any]) -> ArraySpec:
    """Return the array that a metadata document of this package describes.

    Raises ``CorruptError`` if the document is of another kind, its numbers are beyond what an array of a cube can have, or its
    path leads out of the cube.
    """
    if {"", ".", ".."} & set(path.split("/")):
        raise CorruptError(f"{path!r} is no path of an array")
    try:
        spec = _spec(path, document)
        if said := _unbelievable(spec):
            raise CorruptError(f"{path}: {said}")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise CorruptError(f"{path}: its metadata lack or bend {error}") from None
    return spec


def is_own(document: Mapping[str, Any], *, pixels: bool = False) -> bool:
    """Tell whether an array, or one of pixels, is stored as this package stores it; others are left to Zarr libraries."""
    try:
        sharding, _, names = _codecs(document)
        return bool(document["zarr_format"] == 3 and names == _CHAIN and (sharding is not None or not pixels))
    except (KeyError, IndexError, TypeError, AttributeError):
        return False


def _codecs(document: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, list[Mapping[str, Any]], list[str]]:
    """Return how an array is cut into shards, if it is, and the codecs of its chunks with their names."""
    chain = document["codecs"]
    sharding = chain[0]["configuration"] if chain[0]["name"] == "sharding_indexed" else None
    codecs = sharding["codecs"] if sharding else chain
    return sharding, codecs, [codec["name"] for codec in codecs]


def _spec(path: str, document: Mapping[str, Any]) -> ArraySpec:
    sharding, codecs, names = _codecs(document)
    if names != _CHAIN:
        raise CorruptError(f"{path}: codecs {names}, expected {', '.join(_CHAIN)}")
    blosc = codecs[1]["configuration"]
    return ArraySpec(
        path=path,
        shape=tuple(document["shape"]),
        chunks=tuple(document["chunk_grid"]["configuration"]["chunk_shape"]),
        dtype=_numpy_type(document["data_type"]),
        dimensions=tuple(document["dimension_names"]),
        fill="nan" if document["fill_value"] == "NaN" else document["fill_value"],
        inner=tuple(sharding["chunk_shape"]) if sharding else None,
        codec=blosc["cname"],
        level=blosc["clevel"],
        shuffle=blosc["shuffle"],
        block=blosc.get("blocksize", 0),
        attributes=document["attributes"],
    )


def _unbelievable(spec: ArraySpec) -> str:
    """Return what cannot be true of an array of a cube, if anything."""
    lengths = {"shape": spec.shape, "chunks": spec.chunks, "inner chunks": spec.inner or spec.chunks}
    for name, parts in lengths.items():
        if not all(type(part) is int and 0 < part <= _LONGEST for part in parts):
            return f"its {name} are {list(parts)}"
    if len({len(spec.dimensions), *map(len, lengths.values())}) != 1 or not spec.shape:
        return "shape, chunks and names of dimensions differ in number"
    if not all(isinstance(name, str) and name for name in spec.dimensions):
        return "the names of its dimensions are no texts"
    if spec.inner is not None and any(chunk % inner for chunk, inner in zip(spec.chunks, spec.inner, strict=True)):
        return f"shards of {list(spec.chunks)} are not made of chunks of {list(spec.inner)}"
    return _immense(spec) or _not_of_blosc(spec)


def _immense(spec: ArraySpec) -> str:
    whole = math.prod(spec.inner or spec.chunks) * np.dtype(spec.dtype).itemsize
    chunks = math.prod(spec.chunks) // math.prod(spec.inner) if spec.inner is not None else 1
    if whole > _LARGEST or chunks > _MOST or math.prod(spec.grid) > _MOST:
        return f"{math.prod(spec.grid):,} objects of {chunks:,} chunks of {whole:,} bytes are more than any cube has"
    return ""


def _not_of_blosc(spec: ArraySpec) -> str:
    if (spec.codec, spec.shuffle) not in product(_CODECS, _BLOSC_SHUFFLES) or type(spec.level) is not int:
        return f"codec {spec.codec!r}, level {spec.level!r}, {spec.shuffle!r} is none of Blosc"
    if not isinstance(spec.fill, int | float | str) or not isinstance(spec.attributes, Mapping):
        return "its fill value or its attributes are of another kind"
    np.asarray(spec.fill).astype(spec.dtype)
    if type(spec.block) is not int or not 0 <= spec.block <= _LARGEST:
        return f"its blocks are of {spec.block!r} bytes"
    return "" if 0 <= spec.level <= 9 else f"its level of compression is {spec.level}"


def _numpy_type(data_type: Any) -> str:
    if isinstance(data_type, Mapping):
        length = data_type["configuration"]["length_bytes"]
        if data_type.get("name") != "fixed_length_utf32" or type(length) is not int or not 4 <= length < _LONGEST:
            raise TypeError(f"data type {data_type!r}")
        return f"<U{length // 4}"
    if not isinstance(data_type, str):
        raise TypeError(f"data type {data_type!r}")
    kind = np.dtype(data_type)
    if kind.kind not in "biuf":
        raise TypeError(f"data type {data_type!r}")
    return str(kind.newbyteorder("<").str)
