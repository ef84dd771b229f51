"""The per-patch coordinates and the originals' records: from plan and receipts to arrays, and back from a cube."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from cube.convert.plan import Plan
from cube.convert.worker import Receipt
from cube.errors import CorruptError
from cube.format.arrays import ArraySpec, chunk_key, decode_chunk, encode_chunk
from cube.format.layout import ORIGINALS
from cube.format.tiles import DIGEST_SIZE
from cube.store.failures import undamaged
from cube.store.protocol import Store

Arrays = dict[str, NDArray[Any]]


def label_values(plan: Plan, receipts: Iterable[Receipt]) -> Arrays:
    """Return the values of every per-patch array but the headers, which the workers wrote.

    ``receipts`` come in the order of the batches, each with its columns.
    """
    columns = _join(plan, receipts)
    values = {**_from_inventory(plan), **_from_receipts(plan, columns)}
    if plan.recipe.source.georeference == "file":
        values |= _places(plan, columns)
    return values


def read_array(store: Store, spec: ArraySpec) -> NDArray[Any]:
    """Return the values of one small array of a cube.

    Raises ``CorruptError`` naming the chunk if one is damaged or cannot be read.
    """
    parts, left = [], spec.shape[0]
    keys = list(spec.object_keys())
    for key, data in zip(keys, store.read_many(keys), strict=True):
        if isinstance(data, OSError):
            raise CorruptError(f"{key}: cannot be read: {data}") from data
        try:
            chunk = undamaged(partial(decode_chunk, spec), data, partial(store.read, key))
        except CorruptError as error:
            raise CorruptError(f"{key}: {error}") from None
        parts.append(chunk[:left])  # the last chunk is stored whole
        left -= len(parts[-1])
    return np.concatenate(parts)


def write_array(store: Store, spec: ArraySpec, values: NDArray[Any]) -> None:
    """Write every chunk of one small array."""
    length = spec.chunks[0]
    for place in range(spec.grid[0]):
        chunk = values[place * length : (place + 1) * length]
        store.write(chunk_key(spec.path, (place, *(0 for _ in spec.shape[1:]))), encode_chunk(spec, chunk))


def _join(plan: Plan, receipts: Iterable[Receipt]) -> dict[str, NDArray[Any]]:
    kinds = len(plan.job.layouts)
    parts: dict[str, list[NDArray[Any]]] = {}
    for receipt in receipts:
        for name, column in receipt["columns"].items():
            if name == "transform":
                array: NDArray[Any] = np.array([row or [np.nan] * 6 for row in column], np.float64)
            elif isinstance(column, str):
                array = np.frombuffer(bytes.fromhex(column), np.uint8).reshape(-1, kinds, DIGEST_SIZE)
            else:
                array = np.array(column, np.int64)
            parts.setdefault(name, []).append(array)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _from_inventory(plan: Plan) -> Arrays:
    inventory, recipe = plan.inventory, plan.recipe
    seasons = np.array(inventory.seasons)[inventory.season]
    values: Arrays = {
        "patch": inventory.patch.astype(str),
        "season": seasons,
        "scene": inventory.scene,
        "number": inventory.number,
        f"{ORIGINALS}/path": _padded(inventory.path, recipe.layout.path_bytes),
    }
    if recipe.splits is not None:
        splits = {key: recipe.split_of(*key) for key in inventory.scene_keys()}
        values["split"] = np.array([splits[season, int(scene)] for season, scene in zip(seasons, inventory.scene, strict=True)])
    return values


def _padded(texts: NDArray[Any], length: int) -> NDArray[np.uint8]:
    joined = b"".join(text.encode().ljust(length, b"\0") for text in texts.ravel())
    return np.frombuffer(joined, np.uint8).reshape(*texts.shape, length)


def _from_receipts(plan: Plan, columns: Arrays) -> Arrays:
    stored = columns["header_size"] >= 0
    counts = {name: columns[name] for name in ("nan_count", "zero_count", "saturated_count", "digest")}
    originals = {f"{ORIGINALS}/{name}": columns[name] for name in ("header_size", "pixel_start", "size")}
    return {"present": stored, **counts, **originals, f"{ORIGINALS}/digest": columns["header_digest"]}


def _places(plan: Plan, columns: Arrays) -> Arrays:
    epsg, transform = columns["epsg"], columns["transform"]
    lon, lat = centres(epsg, transform, plan.recipe.patch.size)
    return {"epsg": epsg, "transform": transform, "lon": lon, "lat": lat}


def centres(epsg: NDArray[Any], transform: NDArray[np.float64], size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitude and latitude in degrees of the centres of patches; NaN where the place is unknown.

    ``epsg`` is (patch), ``transform`` (patch, 6) as rasterio orders an affine, ``size`` the patch's side in pixels.
    """
    lon, lat = np.full(len(epsg), np.nan), np.full(len(epsg), np.nan)
    a, b, c, d, e, f = transform.T
    x, y = a * size / 2 + b * size / 2 + c, d * size / 2 + e * size / 2 + f
    for code in np.unique(epsg[epsg > 0]):
        rows = epsg == code
        lon[rows], lat[rows] = Transformer.from_crs(int(code), 4326, always_xy=True).transform(x[rows], y[rows])
    return lon, lat
