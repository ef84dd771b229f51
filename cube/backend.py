"""The xarray engine ``cube``: lazy variables on top of tile-aware reading.

``xr.open_dataset(url, engine="cube")`` costs the root document and the ids of the patches; band names stand in the root.
Every other label is read when it is used, every pixel when it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from cube.arrays import ArraySpec, read_spec
from cube.errors import CorruptError, RequestError
from cube.labels import read_array
from cube.layout import FORMAT
from cube.pixels import PixelReader, TileCache, Window
from cube.store import Store, open_store
from cube.target import ROOT
from cube.verification import tile_layout

_DASK_BYTES = 256 << 20
"""Most decoded bytes of one Dask chunk."""
_READABLE = {"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "vlen-bytes", "vlen-utf8", "zstd"}
"""Codecs that are left to zarr where the chain is not this package's own. Anything else is refused before a byte is decoded."""


@dataclass
class _Labels(BackendArray):
    """A small array, read whole when it is first used."""

    store: Store
    spec: ArraySpec

    def __post_init__(self) -> None:
        self.shape = self.spec.shape
        self.dtype = np.dtype(self.spec.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.VECTORIZED, self._get)

    def _get(self, key: Any) -> Any:
        return read_array(self.store, self.spec)[key]


@dataclass
class _Pixels(BackendArray):
    """The pixels of one modality."""

    reader: PixelReader

    def __post_init__(self) -> None:
        self.shape = self.reader.spec.shape
        self.dtype = np.dtype(self.reader.spec.dtype).newbyteorder("=")

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

    def _get(self, key: tuple[Any, ...]) -> Any:
        """Read an outer product of integers, slices and integer arrays."""
        patches, bands, y, x = (_positions(part, length) for part, length in zip(key, self.shape, strict=True))
        window, inner = _window(y, x)
        read = self.reader.read(patches, Window(bands, *window))
        if inner is not None:
            read = read[:, :, inner[0][:, None], inner[1]]
        drop = tuple(axis for axis, part in enumerate(key) if isinstance(part, (int, np.integer)))
        return read.squeeze(axis=drop) if drop else read


def _positions(part: Any, length: int) -> NDArray[np.int64]:
    if isinstance(part, (int, np.integer)):
        return np.array([part % length])
    if isinstance(part, slice):
        return np.arange(length)[part]
    return np.asarray(part, np.int64) % length


def _window(y: NDArray[np.int64], x: NDArray[np.int64]) -> tuple[tuple[slice, slice], tuple[Any, Any] | None]:
    """Return the smallest window that holds some rows and columns, and their positions in it unless they are all of it."""
    spans = tuple(slice(int(part.min()), int(part.max()) + 1) if len(part) else slice(0, 0) for part in (y, x))
    inner = tuple(part - span.start for part, span in zip((y, x), spans, strict=True))
    whole = all(np.array_equal(part, np.arange(span.stop - span.start)) for part, span in zip(inner, spans, strict=True))
    return (spans[0], spans[1]), None if whole else (inner[0], inner[1])


class CubeBackend(BackendEntrypoint):
    """Opens cubes of this package; other Zarr groups are left to xarray's own engine."""

    description = "Zarr cubes with shared tiles (patchcube)"

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        cache_bytes: int = 0,
    ) -> xr.Dataset:
        """Open a cube lazily; one request for the root and one for every chunk of ids.

        ``cache_bytes`` keeps so many bytes of decoded tiles per modality. Raises ``FileNotFoundError`` if nothing is there,
        ``RequestError`` for a group without consolidated metadata or a codec that is not read.
        """
        url = str(filename_or_obj)
        store = open_store(url, options=storage_options)
        document = json.loads(store.read(ROOT))
        listed = (document.get("consolidated_metadata") or {}).get("metadata")
        if not listed:
            raise RequestError(f"{url} has no consolidated metadata, so it is no cube of this package; try xr.open_zarr")
        specs = _specs(url, document, listed)
        if specs is None:
            options = dict(storage_options) if storage_options else None
            plain: xr.Dataset = xr.open_zarr(
                url, chunks=None, zarr_format=3, storage_options=options, drop_variables=drop_variables
            )
            return plain
        facts = document["attributes"]["cube"]
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        variables = {path: _variable(store, spec, facts, cache_bytes) for path, spec in specs.items() if path not in dropped}
        pixels = {name: variables.pop(name) for name in facts["modalities"] if name in variables}
        attributes = {name: value for name, value in document["attributes"].items() if name != "coordinates"}
        return xr.Dataset(pixels, variables, attributes)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Leave guessing to xarray's own Zarr engine: this one is asked for by name."""
        return False


def _specs(url: str, document: Mapping[str, Any], listed: Mapping[str, Any]) -> dict[str, ArraySpec] | None:
    """Return the arrays of the root group, or None where zarr has to read them."""
    arrays = {path: item for path, item in listed.items() if item["node_type"] == "array" and "/" not in path}
    known = document.get("attributes", {}).get("cube", {}).get("format", "")
    try:
        if known.partition(".")[0] == FORMAT.partition(".")[0]:
            return {path: read_spec(path, item) for path, item in arrays.items()}
    except CorruptError:
        pass
    for path, item in arrays.items():
        if strange := sorted(set(_codec_names(item["codecs"])) - _READABLE):
            raise RequestError(f"{url}/{path} needs the codecs {strange}, which are not read")
    return None


def _codec_names(codecs: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for codec in codecs:
        yield codec["name"]
        inner = codec.get("configuration", {})
        yield from _codec_names([*inner.get("codecs", ()), *inner.get("index_codecs", ())])


def _variable(store: Store, spec: ArraySpec, facts: Mapping[str, Any], cache_bytes: int) -> xr.Variable:
    attributes = dict(spec.attributes)
    if spec.inner is not None:
        layout = tile_layout(spec, facts["saturated"].get(spec.path))
        cache = TileCache(cache_bytes) if cache_bytes else None
        data: Any = indexing.LazilyIndexedArray(_Pixels(PixelReader(store, spec, layout, cache)))
        patches = max(1, min(layout.slots, _DASK_BYTES // layout.patch_bytes))
        patches = 1 << (patches.bit_length() - 1)
        chunks = dict(zip(spec.dimensions, (patches, *spec.shape[1:]), strict=True))
        return xr.Variable(spec.dimensions, data, attributes, {"preferred_chunks": chunks})
    known = _known_values(spec, facts)
    if known is not None:
        return xr.Variable(spec.dimensions, known, attributes)
    return xr.Variable(spec.dimensions, indexing.LazilyIndexedArray(_Labels(store, spec)), attributes)


def _known_values(spec: ArraySpec, facts: Mapping[str, Any]) -> NDArray[Any] | None:
    """Return the values of the coordinates that stand in the root: modalities and band names."""
    modalities = facts["modalities"]
    if spec.path == "modality":
        return np.array(list(modalities), spec.dtype)
    name = spec.path.removesuffix("_band")
    return np.array(modalities[name], spec.dtype) if spec.path.endswith("_band") and name in modalities else None
