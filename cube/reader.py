"""Opening a cube lazily with xarray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr


def open_cube(url: str, *, storage_options: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Open a cube lazily; no pixel is read.

    Returns one variable (patch, band, y, x) per modality in the type it was stored in, and every label as a coordinate.
    Nothing is chunked for Dask: select first, then ``.chunk(patch=128)``.

    ``url`` is a path or URL of a ``.zarr``; ``storage_options`` go to fsspec, such as ``{"anon": True}``.
    Raises ``FileNotFoundError`` if nothing is there.
    """
    options = dict(storage_options) if storage_options else None
    cube: xr.Dataset = xr.open_zarr(url, chunks=None, zarr_format=3, consolidated=True, storage_options=options)
    return cube
