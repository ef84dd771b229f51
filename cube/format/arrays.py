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
    return numcodecs.Blosc(spec.codec, spec.level, _BLOSC_SHUFFLES[spec.shuffle])


def _codec_chain(spec: ArraySpec) -> list[dict[str, Any]]:
    blosc = {
        "typesize": spec.typesize,
        "cname": spec.codec,
        "clevel": spec.level,
        "shuffle": spec.shuffle,
        "blocksize": 0,
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

    Raises ``CorruptError`` if the document is of another kind, or its path leads out of the cube.
    """
    if {"", ".", ".."} & set(path.split("/")):
        raise CorruptError(f"{path!r} is no path of an array")
    try:
        chain = document["codecs"]
        sharding = chain[0]["configuration"] if chain[0]["name"] == "sharding_indexed" else None
        names = [codec["name"] for codec in (sharding["codecs"] if sharding else chain)]
        if names != ["bytes", "blosc", "crc32c"]:
            raise CorruptError(f"{path}: codecs {names}, expected bytes, blosc, crc32c")
        blosc = (sharding["codecs"] if sharding else chain)[1]["configuration"]
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
            attributes=document["attributes"],
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise CorruptError(f"{path}: its metadata lack or bend {error}") from None


def _numpy_type(data_type: Any) -> str:
    if isinstance(data_type, Mapping):
        return f"<U{data_type['configuration']['length_bytes'] // 4}"
    kind = np.dtype(data_type)
    if kind.kind not in "biuf":
        raise TypeError(f"data type {data_type!r}")
    return str(kind.newbyteorder("<").str)
