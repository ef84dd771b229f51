"""From the units of a CRS to degrees. PROJ is loaded when it is first asked."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def to_degrees(epsg: int) -> Any:
    """Return the ``pyproj.Transformer`` from a CRS, by its EPSG code, to longitude and latitude."""
    from pyproj import Transformer

    return Transformer.from_crs(epsg, 4326, always_xy=True)
