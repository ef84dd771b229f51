"""Polygons of patches as WKB, all of them at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cube.errors import CorruptError
from cube.geo.boxes import in_degrees
from cube.geo.footprints import footprint, geojson, rectangle
from cube.geo.projection import DECIMALS, system

Array = NDArray[Any]


def polygons(crs: Array, transform: Array, size: int, definitions: Sequence[str] = ()) -> list[bytes | None]:
    """Return the WKB of each patch: a polygon of its four corners, anticlockwise; two parts where it crosses 180°.

    Arguments are those of :func:`cube.geo.boxes.bounds`. None where the place is unknown.
    """
    lon, lat = in_degrees(crs, transform, np.array([(0, 0), (0, size), (size, size), (size, 0), (0, 0)], float), definitions)
    corners = np.round(np.stack([lon, lat], axis=-1).swapaxes(0, 1), DECIMALS)
    unusual = ~np.isfinite(corners).all(axis=(1, 2)) | (np.ptp(lon, axis=0) > 180)
    corners[unusual] = 0
    made: list[bytes | None] = shapely.to_wkb(shapely.orient_polygons(shapely.polygons(corners))).tolist()
    for row in np.flatnonzero(unusual):
        known = {system(crs[row], definitions): rectangle(transform[row : row + 1], size)} if crs[row] else {}
        place = footprint(known)
        made[row] = shapely.to_wkb(shapely.geometry.shape(place.geometry)) if place else None
    return made


def geometry(wkb: bytes) -> dict[str, Any]:
    """Return the GeoJSON of what :func:`polygons` made. Raises ``CorruptError`` for bytes that are no geometry."""
    try:
        return geojson(shapely.from_wkb(wkb))
    except shapely.errors.GEOSException as error:
        raise CorruptError(f"a geometry of the patch table is no WKB: {error}") from None
