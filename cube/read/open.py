"""Opening a cube lazily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

import cube.read.pictures  # noqa: F401 (registers ``Dataset.cube``)
from cube.query.choose import Box
from cube.read.engine import CubeBackend


def open_cube(  # noqa: PLR0913 (each is a keyword of its own)
    url: str,
    *,
    where: str | None = None,
    bbox: Box | None = None,
    modalities: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    cache_bytes: int = 0,
    expect: str | None = None,
    version: int | None = None,
) -> xr.Dataset:
    """Open a cube lazily; no pixel is read.

    Returns one variable (patch, band, y, x) per modality in the type it was stored in, and every label as a coordinate.
    Nothing is chunked for Dask: select first, then ``.chunk(patch=128)``.

    ``url`` is a path or URL of a ``.zarr``, or of a STAC collection that lists one; ``where`` chooses patches by their labels,
    such as ``season=summer and split=train``; ``bbox`` those that meet a box (west, south, east, north in degrees);
    ``modalities`` names the variables. ``storage_options`` go to fsspec, such as ``{"anon": True}``; ``cache_bytes``
    keeps so many bytes of decoded tiles per modality. Pixels are read tile by tile, each once per request, and every
    checksum is checked.

    ``expect`` is the digest that was noted of the cube (``cube info`` prints it); ``CorruptError`` is raised for any other.
    ``version`` shows a cube that has grown as it was (1 is the first); patches that were replaced since are left out of the
    newest.

    Raises ``FileNotFoundError`` if nothing is there, ``RequestError`` or ``FilterError`` for a choice that cannot be made.
    """
    options = {"storage_options": storage_options, "cache_bytes": cache_bytes, "expect": expect, "version": version}
    choice = {"where": where, "bbox": bbox, "modalities": modalities}
    return xr.open_dataset(url, engine=CubeBackend, chunks=None, backend_kwargs={**options, **choice})
