"""Where a patch lies, as its file says it: a CRS by its EPSG code or its definition, and an affine."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from pyproj import CRS
from pyproj.exceptions import CRSError

from cube.errors import RejectedFile
from cube.source.tiff_header import GEOKEYS, MATRIX, PIXEL_SCALE, TIEPOINT, Directory

_MODEL_TYPE, _RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1024, 1025, 2048, 3072
_USER_DEFINED = 32767
_LONGEST = 2**13
"""Characters of a definition that is kept."""
_VERSION = "WKT2_2019"

Affine = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where a patch lies."""

    epsg: int
    """EPSG code of the CRS; 0 where it has none."""
    transform: Affine
    """Affine a, b, c, d, e, f: x = a·column + b·row + c, y = d·column + e·row + f, at pixel corners, in CRS units."""
    wkt: str = ""
    """Definition (WKT2) of a CRS that has no EPSG code."""

    def __str__(self) -> str:
        a, b, x, d, e, y = self.transform
        crs = f"EPSG:{self.epsg}" if self.epsg else CRS.from_wkt(self.wkt).name if self.wkt else "no CRS"
        return f"{crs} at ({x!r}, {y!r}), pixels of {a!r} × {e!r}{f', turned by {b!r}, {d!r}' if b or d else ''}"

    def resampled(self, side: int, of: int) -> Georeference:
        """Return the place of the same image, of ``side`` pixels, were it of ``of`` pixels."""
        if side == of:
            return self
        a, b, x, d, e, y = self.transform
        return replace(self, transform=(a * side / of, b * side / of, x, d * side / of, e * side / of, y))

    def agrees(self, other: Georeference | None) -> bool:
        """Tell whether two places are the same; definitions may be worded in two ways."""
        if other is None or (self.epsg, self.transform) != (other.epsg, other.transform):
            return False
        return self.wkt == other.wkt or _equal(self.wkt, other.wkt)


def simple_place(ifd: Directory) -> tuple[bool, Georeference | None]:
    """Return whether the tags are of the simple kind understood here, and the place they say.

    Raises ``RejectedFile`` for a place that no pixel has.
    """
    scale, tie, keys = (ifd.tags.get(tag) for tag in (PIXEL_SCALE, TIEPOINT, GEOKEYS))
    if scale is None and tie is None and keys is None and MATRIX not in ifd.tags:
        return True, None
    if scale is None or tie is None or keys is None or len(tie) != 6 or any(tie[:3]) or not min(scale[:2]) > 0:
        return False, None
    geokeys = {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}
    code = geokeys.get({1: _PROJECTED, 2: _GEOGRAPHIC}.get(geokeys.get(_MODEL_TYPE, 0), 0), _USER_DEFINED)
    if geokeys.get(_RASTER_TYPE, 1) != 1 or not 1024 <= code < _USER_DEFINED:
        return False, None
    transform = (float(scale[0]), 0.0, float(tie[3]), 0.0, -float(scale[1]), float(tie[4]))
    if not _places(int(code)):
        raise RejectedFile("unknown CRS", f"EPSG:{code} is no geographic or projected CRS")
    return True, Georeference(int(code), require_affine(transform))


def place_of(wkt: str, transform: Affine) -> Georeference:
    """Return the place of a CRS, given by any WKT, and an affine.

    Raises ``RejectedFile`` for a CRS that is of no use, and for a place that no pixel has.
    """
    code, definition = _named(wkt)
    return Georeference(code, require_affine(transform), definition)


def require_affine(transform: Affine) -> Affine:
    """Return an affine that can be computed with; otherwise reject the file."""
    a, b, _, d, e, _ = transform
    if not all(map(math.isfinite, transform)) or a * e == b * d:
        raise RejectedFile("unreadable", f"its transform {transform} places no pixel")
    return transform


@lru_cache(1024)
def _places(epsg: int) -> bool:
    """Tell whether an EPSG code names a geographic or projected coordinate reference system."""
    try:
        crs = CRS.from_epsg(epsg)
    except CRSError:
        return False
    return bool(crs.is_geographic or crs.is_projected)


@lru_cache(1024)
def _named(wkt: str) -> tuple[int, str]:
    """Return the EPSG code of a CRS, or 0 and its definition. A code that is only much like it is not taken for it."""
    try:
        crs = CRS.from_wkt(wkt)
        code = crs.to_epsg(min_confidence=100) or _equal_code(crs)
        if code:
            return int(code), ""
        definition = crs.to_wkt(_VERSION)
    except CRSError as error:
        raise RejectedFile("unknown CRS", f"it cannot be understood ({str(error)[:80]})") from None
    if not (crs.is_geographic or crs.is_projected):
        raise RejectedFile("unknown CRS", f"{crs.name[:80]!r} is no geographic or projected CRS")
    if len(definition) > _LONGEST:
        raise RejectedFile("unknown CRS", f"its definition has {len(definition):,} characters, more than {_LONGEST:,}")
    return 0, definition


def _equal_code(crs: CRS) -> int:
    code = crs.to_epsg()
    return code if code and CRS.from_epsg(code).equals(crs, ignore_axis_order=True) else 0


@lru_cache(1024)
def _equal(first: str, second: str) -> bool:
    """Tell whether two definitions mean one CRS."""
    return bool(first and second) and CRS.from_wkt(first).equals(CRS.from_wkt(second), ignore_axis_order=True)
