"""What a process sees of a cube, by every reader. Light to import: processes that tests start import this module only."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import xarray as xr

from cube import Batches, Samples, open_cube
from cube.read.pixels import PixelReader

ROWS = [17, 3, 3, 24, 0, 9]


def readers(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return one of each kind of reader of a cube."""
    return {
        "engine": xr.open_dataset(url, engine="cube", chunks=None, storage_options=options),
        "a part": open_cube(url, where="season=spring", storage_options=options)
        .sel(s2_band=["B04", "B02"])
        .isel(y=slice(3, 20)),
        "pixels": reader_of(open_cube(url, storage_options=options, cache_bytes=1 << 16), "s2"),
        "samples": Samples(url, storage_options=options),
    }


def reader_of(cube: xr.Dataset, name: str) -> PixelReader:
    """Return what reads a variable of a cube that was opened by the engine."""
    data: Any = cube[name].variable._data
    while not isinstance(data, PixelReader):
        data = data.reader if hasattr(data, "reader") else data.array
    return data


def told(made: dict[str, Any]) -> dict[str, int]:
    """Return a check sum of every pixel that each reader gives."""
    samples = made["samples"]
    ordered = [batch[name] for batch in Batches(samples, batch_size=4, seed=1) for name in samples.modalities]
    return {
        "engine": _crc(made["engine"][name].isel(patch=ROWS).values for name in samples.modalities),
        "a part": _crc(variable.values for variable in made["a part"].data_vars.values()),
        "pixels": _crc([made["pixels"].read(np.array(ROWS))]),
        "samples": _crc(samples.read(ROWS)[name] for name in samples.modalities),
        "batches": _crc(ordered),
    }


def opened_there(url: str, options: dict[str, Any]) -> dict[str, int]:
    """Open a cube and return what is told of it."""
    return told(readers(url, options))


def _crc(arrays: Any) -> int:
    seen = 0
    for array in arrays:
        seen = zlib.crc32(np.ascontiguousarray(array).tobytes(), seen)
    return seen
