"""Images as files of their own, through GDAL."""

from __future__ import annotations

import warnings
from typing import Any

from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.transform import Affine


def encoded(
    pixels: NDArray[Any], driver: str, crs: str, transform: tuple[float, float, float, float, float, float] | None
) -> bytes:
    """Return an image (y, x, band) as a file; ``driver`` is GDAL's, ``crs`` an EPSG code or WKT, empty where there is none."""
    height, width, bands = pixels.shape
    facts: dict[str, Any] = {"driver": driver, "height": height, "width": width, "count": bands}
    facts |= {"dtype": pixels.dtype.newbyteorder("=").name}
    if driver != "PNG":
        facts |= {"compress": "deflate", "crs": crs or None}
        facts |= {"transform": Affine(*transform)} if transform is not None else {}
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # some data sets have no place
        with memory.open(**facts) as file:
            file.write(pixels.transpose(2, 0, 1))
        return bytes(memory.read())
