"""From the units of a CRS to degrees. PROJ is loaded when it is first asked.

The CRS of each patch is a number: an EPSG code, 0 where it is unknown, or -1 - k for the k-th of some definitions in WKT.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import CorruptError

DECIMALS = 7
"""Of a degree that are kept: about a centimetre, and the same with every PROJ."""
System = int | str
"""A CRS by its EPSG code or its definition in WKT."""


def numbered(epsg: NDArray[Any], crs_index: NDArray[Any] | None) -> NDArray[np.int64]:
    """Return the CRS (patch) as a number from the labels ``epsg`` and, where a cube has it, ``crs_index``."""
    codes = epsg.astype(np.int64)
    return codes if crs_index is None else np.where(crs_index >= 0, -1 - crs_index.astype(np.int64), codes)


def system(number: int, definitions: Sequence[str]) -> System:
    """Return the CRS that a number other than 0 means. Raises ``CorruptError`` where there is no such definition."""
    if number < -len(definitions):
        raise CorruptError(f"crs_index: it points at definition {-1 - number} of {len(definitions)}")
    return int(number) if number > 0 else str(definitions[-1 - number])


def known_crs(crs: System) -> Any:
    """Return the ``pyproj.CRS`` of a code or definition. Raises ``CorruptError`` for what is no CRS."""
    from pyproj import CRS
    from pyproj.exceptions import ProjError

    try:
        return CRS.from_user_input(crs)
    except ProjError as error:
        raise CorruptError(f"{crs!r} is no CRS that PROJ knows ({error})") from None


@cache
def to_degrees(crs: System) -> Any:
    """Return the ``pyproj.Transformer`` from a CRS to longitude and latitude. Raises ``CorruptError`` for what is no CRS."""
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    try:
        return Transformer.from_crs(known_crs(crs), 4326, always_xy=True)
    except ProjError as error:
        raise CorruptError(f"{crs!r}: no way from it to longitude and latitude ({error})") from None
