"""Where patches lie on Earth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.geo.projection import system, to_degrees


def centres(
    crs: NDArray[Any], transform: NDArray[np.float64], size: int, definitions: Sequence[str] = ()
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return longitude and latitude in degrees of the centres of patches; NaN where the place is unknown.

    ``crs`` is (patch), numbered as in :mod:`cube.geo.projection`, ``transform`` (patch, 6) as rasterio orders an affine,
    ``size`` the patch's side in pixels.
    """
    lon, lat = np.full(len(crs), np.nan), np.full(len(crs), np.nan)
    a, b, c, d, e, f = transform.T
    x, y = a * size / 2 + b * size / 2 + c, d * size / 2 + e * size / 2 + f
    for number in np.unique(crs[crs != 0]):
        rows = crs == number
        lon[rows], lat[rows] = to_degrees(system(number, definitions)).transform(x[rows], y[rows])
    return lon, lat
