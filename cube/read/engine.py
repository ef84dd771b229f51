"""The xarray engine ``cube``: lazy variables on top of tile-aware reading.

``xr.open_dataset(url, engine="cube")`` costs the root document and the ids of the patches; band names stand in the root.
Every other label is read when it is used, every pixel when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from cube.errors import RequestError
from cube.format.arrays import ArraySpec
from cube.format.tiles import TileLayout
from cube.query.choose import Box, as_slice, select_patches
from cube.read.cache import TileCache
from cube.read.opened import OpenedCube, Root, opened_cube, read_root
from cube.read.pixels import PixelReader
from cube.read.ranges import Window

_DASK_BYTES = 256 << 20
"""Most decoded bytes of one Dask chunk."""
_READABLE = {"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "vlen-bytes", "vlen-utf8", "zstd"}
"""Codecs that are left to zarr where the chain is not this package's own. Anything else is refused before a byte is decoded."""


class InMemory(xr.Variable):
    """A label: never chunked, so that it can group, filter and index whatever is chunked beside it.

    A label of Dask chunks is no use to ``groupby``, ``where(…, drop=True)`` and boolean indexing, which need its values.
    """

    __slots__ = ()

    def chunk(self, *_chunks: Any, **_options: Any) -> InMemory:
        """Return the label as it is."""
        return self.copy(deep=False)


@dataclass
class _Labels(BackendArray):
    """A small array, read whole when it is first used, once for all that is derived from an opened cube."""

    source: OpenedCube
    spec: ArraySpec

    def __post_init__(self) -> None:
        self.shape = self.spec.shape
        self.dtype = np.dtype(self.spec.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.VECTORIZED, self._get)

    def _get(self, key: Any) -> Any:
        return self.source.value(self.spec.path)[key]


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

    def open_dataset(  # noqa: PLR0913 (xarray hands every option on as a keyword)
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        cache_bytes: int = 0,
        where: str | None = None,
        bbox: Box | None = None,
        modalities: Sequence[str] | None = None,
        expect: str | None = None,
        version: int | None = None,
        mask_and_scale: bool | None = None,
        decode_times: Any = None,
        decode_timedelta: Any = None,
        use_cftime: bool | None = None,
        concat_characters: bool | None = None,
        decode_coords: Any = None,
    ) -> xr.Dataset:
        """Open a cube lazily; one request for the root, one for every chunk of ids and of the labels ``where`` names.

        The URL is that of a cube or of a STAC collection that lists it. ``where`` chooses patches by their labels
        (``season=summer and split=train``), ``bbox`` those that meet a box (west, south, east, north in degrees),
        ``modalities`` the variables. ``cache_bytes`` keeps so many bytes of decoded tiles per modality.

        ``expect`` is the digest of the cube that was noted before (``cube info`` prints it). ``version`` shows a cube that
        has grown as it was. Patches that others have replaced since are left out.

        xarray's keywords for decoding are taken. Nothing in a cube is encoded (no ``_FillValue``, no ``scale_factor``) but
        labels that are dates, so they change nothing else, but ``decode_coords=False``, which leaves the labels among the
        variables. A group that is no cube of this package is decoded as they say.

        Raises ``FileNotFoundError`` if nothing is there, ``FilterError`` for a filter that names what is not there,
        ``RequestError`` for a group without consolidated metadata, a codec that is not read, or an unknown modality.
        """
        root = read_root(filename_or_obj, storage_options, expect, version)
        source = opened_cube(root, version)
        if source is None:
            decoding = {"mask_and_scale": mask_and_scale, "decode_times": decode_times, "decode_timedelta": decode_timedelta}
            more = {"use_cftime": use_cftime, "concat_characters": concat_characters, "decode_coords": decode_coords}
            said = {name: value for name, value in (decoding | more).items() if value is not None}
            return _plain(root, storage_options, drop_variables, said, chosen=bool(where or bbox or modalities))
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        if unknown := sorted(set(modalities or ()) - set(source.modalities)):
            raise RequestError(f"{root.url} has no modalities {unknown}; it has {', '.join(source.modalities)}")
        dropped |= set(source.modalities) - set(modalities) if modalities else set()
        rows = source.visible
        if where is not None or bbox is not None:
            rows = select_patches(
                source.value,
                source.labels,
                where,
                bbox,
                size=source.size,
                shares=source.shares,
                shown=source.shown,
                seasons=source.seasons,
                among=rows,
            )
        variables = {path: _variable(source, spec, cache_bytes) for path, spec in source.specs.items() if path not in dropped}
        if decode_times is not False and (days := sorted(source.days & variables.keys())):
            coder = True if decode_times is None else decode_times
            decoded = xr.decode_cf(xr.Dataset({name: variables[name] for name in days}), decode_times=coder)
            variables |= {name: decoded[name].variable for name in days}
        pixels = {name: variables.pop(name) for name in source.modalities if name in variables}
        attributes = {name: value for name, value in source.attributes.items() if name != "coordinates"}
        # Given as coordinates they would lose their class.
        labels = [name for name in variables if name not in variables[name].dims]
        cube = xr.Dataset({**pixels, **variables}, attrs=attributes).set_coords(labels)
        cube = cube if rows is None else _chosen(cube, rows)
        return cube.reset_coords() if decode_coords is False else cube

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Leave guessing to xarray's own Zarr engine: this one is asked for by name."""
        return False


def _plain(root: Root, options: Any, dropped: Any, decoding: dict[str, Any], *, chosen: bool) -> xr.Dataset:
    """Leave a Zarr group that is no cube to xarray's own engine, unless its codecs could run anything."""
    for path, item in root.listed.items():
        if item.get("zarr_format") != 3:  # one of format 2 names its codecs elsewhere
            raise RequestError(f"{root.url}/{path} is of Zarr format {item.get('zarr_format')}, which is not read; expected 3")
        if strange := sorted(set(_codec_names(item.get("codecs", ()))) - _READABLE):
            raise RequestError(f"{root.url}/{path} needs the codecs {strange}, which are not read")
    if chosen:
        raise RequestError(f"{root.url} is no cube of this package: open it without where, bbox and modalities, then select")
    options = dict(options) if options else None
    try:
        plain: xr.Dataset = xr.open_zarr(
            root.url, chunks=None, zarr_format=3, storage_options=options, drop_variables=dropped, **decoding
        )
    except (TypeError, ValueError, LookupError) as error:
        raise RequestError(f"{root.url} is no cube of this package, and zarr does not open it ({error})") from error
    return plain


def _chosen(cube: xr.Dataset, rows: NDArray[np.int64]) -> xr.Dataset:
    """Return some patches; Dask chunks of a run end where those of the whole cube end."""
    part = as_slice(rows)
    chosen = cube.isel(patch=part)
    if isinstance(part, slice):
        for variable in chosen.data_vars.values():
            preferred = variable.encoding["preferred_chunks"]
            step = preferred["patch"]
            ends = range((part.start // step + 1) * step, part.stop, step)
            sizes = np.diff([part.start, *ends, part.stop]).tolist()
            variable.encoding["preferred_chunks"] = {**preferred, "patch": tuple(sizes)}
    return chosen


def _codec_names(codecs: Any) -> Iterable[str]:
    """Yield the names of codecs and of those inside them; what is no list of codecs is a codec that nobody knows."""
    for codec in codecs if isinstance(codecs, list | tuple) else [codecs]:
        if not isinstance(codec, Mapping):
            yield str(codec)  # the short form: a name alone
            continue
        yield str(codec.get("name"))
        inner = codec.get("configuration")
        if isinstance(inner, Mapping):
            for name in ("codecs", "index_codecs"):
                yield from _codec_names(inner.get(name, ()))


def _variable(source: OpenedCube, spec: ArraySpec, cache_bytes: int) -> xr.Variable:
    attributes = dict(spec.attributes)
    if spec.inner is not None:
        reader = source.reader(spec.path, TileCache(cache_bytes) if cache_bytes else None)
        data: Any = indexing.LazilyIndexedArray(_Pixels(reader))
        chunks = dict(zip(spec.dimensions, (_chunk_patches(reader.layout), *spec.shape[1:]), strict=True))
        return xr.Variable(spec.dimensions, data, attributes, {"preferred_chunks": chunks})
    known = _known_values(source, spec)
    if known is not None:
        return InMemory(spec.dimensions, known, attributes)
    return InMemory(spec.dimensions, indexing.LazilyIndexedArray(_Labels(source, spec)), attributes)


def _chunk_patches(layout: TileLayout) -> int:
    """Return the patches of a Dask chunk: whole shards, or a part of one."""
    patches = _DASK_BYTES // layout.patch_bytes
    if patches >= layout.slots:
        return patches // layout.slots * layout.slots
    return 1 << (max(1, patches).bit_length() - 1)


def _known_values(source: OpenedCube, spec: ArraySpec) -> NDArray[Any] | None:
    """Return the values of coordinates that were read, or stand in the root: modalities and band names."""
    if (read := source.known(spec.path)) is not None:
        return read
    if spec.path == "modality":
        return np.array(list(source.modalities), spec.dtype)
    bands = source.modalities.get(spec.path.removesuffix("_band"))
    return np.array(bands, spec.dtype) if spec.path.endswith("_band") and bands is not None else None
