"""Where patches lie on Earth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.geo.projection import to_degrees


def centres(epsg: NDArray[Any], transform: NDArray[np.float64], size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitude and latitude in degrees of the centres of patches; NaN where the place is unknown.

    ``epsg`` is (patch), ``transform`` (patch, 6) as rasterio orders an affine, ``size`` the patch's side in pixels.
    """
    lon, lat = np.full(len(epsg), np.nan), np.full(len(epsg), np.nan)
    a, b, c, d, e, f = transform.T
    x, y = a * size / 2 + b * size / 2 + c, d * size / 2 + e * size / 2 + f
    for code in np.unique(epsg[epsg > 0]):
        rows = epsg == code
        lon[rows], lat[rows] = to_degrees(int(code)).transform(x[rows], y[rows])
    return lon, lat
