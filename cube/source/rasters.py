"""Image files as bytes → pixels, georeference and every byte that is no pixel. The only room that decodes files.

Uncompressed, pixel-interleaved, little-endian TIFFs (what SEN12MS is made of) are parsed here and their pixels are a view
of the file's own bytes. Every other TIFF and every PNG is decoded by rasterio.
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from cube.errors import RejectedFile

_PNG = b"\x89PNG\r\n\x1a\n"
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "2I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q"}
_SAMPLE_KINDS = {1: "u", 2: "i", 3: "f"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _BANDS, _PLANAR, _SAMPLE_FORMAT = 256, 257, 258, 259, 277, 284, 339
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 324, 325
_PIXEL_SCALE, _TIEPOINT, _MATRIX, _GEOKEYS = 33550, 33922, 34264, 34735
_MODEL_TYPE, _RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1024, 1025, 2048, 3072
_USER_DEFINED = 32767
_TIE = struct.Struct("<6d")
_LARGEST = 2**30
"""Decoded bytes of the largest image that is believed."""


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where a patch lies."""

    epsg: int
    """EPSG code of the CRS."""
    transform: tuple[float, float, float, float, float, float]
    """Affine a, b, c, d, e, f: x = a·column + b·row + c, y = d·column + e·row + f, at pixel corners, in CRS units."""


@dataclass(frozen=True, slots=True)
class Raster:
    """One decoded file."""

    pixels: NDArray[Any]
    """(y, x, band), native order; a view of the file's bytes where possible."""
    georeference: Georeference | None
    header: bytes
    """Every byte of the file that is no pixel, in order."""
    pixel_start: int
    """Where the pixels stand in the file if header and pixels rebuild it byte for byte; -1 if they do not."""
    file_size: int
    """Bytes of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What every file of one modality must be."""

    dtype: str
    """NumPy name, such as ``uint16``."""
    size: int
    """Height and width in pixels."""
    bands: int
    georeferenced: bool
    """Whether a file must carry a CRS and a transform."""
    header_bytes: int
    """Most bytes of a file that are no pixels."""

    def check(self, raster: Raster) -> Raster:
        """Return the raster if it is as expected; otherwise raise ``RejectedFile`` saying what differs."""
        height, width, bands = raster.pixels.shape
        for reason, seen, wanted in (
            ("wrong dtype", raster.pixels.dtype.name, self.dtype),
            ("wrong size", f"{width} × {height} pixels", f"{self.size} × {self.size} pixels"),
            ("wrong bands", f"{bands} bands", f"{self.bands} bands"),
        ):
            if seen != wanted:
                raise RejectedFile(reason, f"{seen}, expected {wanted}")
        if self.georeferenced and raster.georeference is None:
            raise RejectedFile("no georeference", "the file carries no CRS and transform, expected both")
        if len(raster.header) > self.header_bytes:
            seen = f"{len(raster.header):,} bytes are no pixels"
            remedy = f"the recipe has room for {self.header_bytes:,}: raise layout.header_bytes"
            raise RejectedFile("large header", f"{seen}, {remedy}")
        return raster


@dataclass(frozen=True, slots=True)
class _Ifd:
    order: str
    tags: dict[int, tuple[Any, ...]]
    places: dict[int, int]
    """Where in the file the values of a tag stand."""

    def one(self, tag: int, default: int) -> int:
        return int(self.tags.get(tag, (default,))[0])


class RasterReader:
    """Decodes files one after another. A file that differs from an earlier one in nothing but pixels and place is read by
    what was learnt from that one; the result is the same as that of ``read_raster``, which says what is raised.
    """

    def __init__(self) -> None:
        self._models: dict[int, _Model] = {}

    def read(self, data: bytes) -> Raster:
        """Decode one file."""
        model = self._models.get(len(data))
        raster = model.read(data) if model else None
        if raster is None:
            raster, ifd = _read(data)
            ends = raster.pixel_start + raster.pixels.nbytes  # tags behind the pixels would not be compared
            if ifd and raster.pixel_start >= 0 and raster.georeference and ifd.order == "<" and ends == len(data):
                self._models[len(data)] = _Model(raster, data, ifd.places[_TIEPOINT])
        return raster


class _Model:
    """The header of a plain file, without its tie point."""

    def __init__(self, raster: Raster, data: bytes, tie: int) -> None:
        self.raster, self.tie, self.start = raster, tie, raster.pixel_start
        self.before, self.after = data[:tie], data[tie + _TIE.size : self.start]

    def read(self, data: bytes) -> Raster | None:
        """Return the raster of a file with the same header, or None."""
        tie, start, known = self.tie, self.start, self.raster
        if tie > start or not data.startswith(self.before) or data[tie + _TIE.size : start] != self.after:
            return None
        column, row, height, x, y, _ = _TIE.unpack_from(data, tie)
        if column or row or height or not (math.isfinite(x) and math.isfinite(y)):
            return None
        assert known.georeference is not None
        a, b, _, d, e, _ = known.georeference.transform
        pixels = np.frombuffer(data, known.pixels.dtype, known.pixels.size, start).reshape(known.pixels.shape)
        header = data[:start] + data[start + pixels.nbytes :]
        return Raster(pixels, Georeference(known.georeference.epsg, (a, b, x, d, e, y)), header, start, len(data))


def read_raster(data: bytes) -> Raster:
    """Decode one file.

    Raises ``RejectedFile`` with the reason ``empty``, ``unknown format``, ``truncated``, ``unknown CRS`` or ``unreadable``.
    """
    return _read(data)[0]


def _read(data: bytes) -> tuple[Raster, _Ifd | None]:
    if not data:
        raise RejectedFile("empty", "the file has no bytes")
    if data[:8] == _PNG:
        return Raster(_decode(data)[0], None, _without_ranges(data, _png_ranges(data)), -1, len(data)), None
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        raise RejectedFile("unknown format", f"starts with {data[:8]!r}; expected a TIFF or a PNG")
    try:
        ifd = _parse_ifd(data)
        extents = _pixel_extents(ifd)
        end = int(extents[1].max())
        if end > len(data):
            raise RejectedFile("truncated", f"its pixels end at byte {end:,}, the file has {len(data):,}")
        plain = _plain(data, ifd, extents)
    except (struct.error, IndexError, ValueError, TypeError, OverflowError) as error:
        raise RejectedFile("unreadable", f"its first TIFF directory is damaged ({error})") from None
    return plain or _general(data, extents), ifd


def _plain(data: bytes, ifd: _Ifd, extents: NDArray[np.int64]) -> Raster | None:
    """Return the raster of an uncompressed, interleaved, contiguous file as views; None for any other."""
    dtype = _dtype(ifd)
    known = ifd.one(_COMPRESSION, 1) == 1 and ifd.one(_PLANAR, 1) == 1 and _STRIP_OFFSETS in ifd.tags
    swapped = ifd.order == ">" and (dtype is None or dtype.itemsize > 1)
    if dtype is None or not known or swapped or not np.array_equal(extents[0, 1:], extents[1, :-1]):
        return None
    shape = (ifd.one(_HEIGHT, 0), ifd.one(_WIDTH, 0), ifd.one(_BANDS, 1))
    start, stop = int(extents[0, 0]), int(extents[1, -1])
    if stop - start != shape[0] * shape[1] * shape[2] * dtype.itemsize:
        return None
    known_place, georeference = _georeference(ifd)
    if not known_place:
        return None
    pixels = np.frombuffer(data, dtype, count=shape[0] * shape[1] * shape[2], offset=start).reshape(shape)
    return Raster(pixels, georeference, data[:start] + data[stop:], start, len(data))


def _general(data: bytes, extents: NDArray[np.int64]) -> Raster:
    pixels, georeference = _decode(data)
    return Raster(pixels, georeference, _without_ranges(data, extents.T.tolist()), -1, len(data))


def _decode(data: bytes) -> tuple[NDArray[Any], Georeference | None]:
    # GDAL takes 0.2 s and 40 MB to load, and the files most cubes are made of never need it.
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile

    with warnings.catch_warnings(), MemoryFile(data) as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with file.open(driver="PNG" if data[:8] == _PNG else "GTiff") as image:
                _check_claim(image.width, image.height, image.dtypes)
                pixels = np.ascontiguousarray(image.read().transpose(1, 2, 0))
                crs, transform = image.crs, image.transform
                epsg = crs.to_epsg() if crs is not None else None
        except (RasterioError, ValueError) as error:  # a damaged tag may be no UTF-8, a damaged key no CRS
            message = str(error.__cause__ or error)
            for name in (file.name, file.name.rpartition("/")[2]):  # another one each time
                message = message.replace(name, "the file")
            raise RejectedFile("unreadable", message) from None
    if crs is None:
        return pixels, None
    if epsg is None:
        raise RejectedFile("unknown CRS", f"no EPSG code fits {crs.to_string()[:80]}")
    return pixels, _checked(Georeference(epsg, tuple(transform)[:6]))


def _check_claim(width: int, height: int, dtypes: tuple[str, ...]) -> None:
    """Reject a damaged header before memory is asked for all that it claims."""
    if width * height * sum(np.dtype(dtype).itemsize for dtype in dtypes) > _LARGEST:
        claim = f"{width} × {height} pixels of {len(dtypes)} bands"
        raise RejectedFile("unreadable", f"it claims {claim}, more than {_LARGEST:,} bytes")


def _checked(place: Georeference) -> Georeference:
    """Return a place that can be computed with; otherwise reject the file."""
    if not _places(place.epsg):
        raise RejectedFile("unknown CRS", f"EPSG:{place.epsg} is no geographic or projected CRS")
    a, b, _, d, e, _ = place.transform
    if not all(map(math.isfinite, place.transform)) or a * e == b * d:
        raise RejectedFile("unreadable", f"its transform {place.transform} places no pixel")
    return place


@cache
def _places(epsg: int) -> bool:
    """Tell whether an EPSG code names a geographic or projected coordinate reference system."""
    try:
        crs = CRS.from_epsg(epsg)
    except CRSError:
        return False
    return bool(crs.is_geographic or crs.is_projected)


def _parse_ifd(data: bytes) -> _Ifd:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    at += 8 if big else 2
    entry, inline = (order + "HHQ", 8) if big else (order + "HHI", 4)
    step = struct.calcsize(entry) + inline
    tags, places = {}, {}
    for number in range(count):
        place = at + number * step
        tag, kind, length = struct.unpack_from(entry, data, place)
        if kind not in _TYPES:
            continue
        code = _TYPES[kind]
        layout = order + (f"{length}s" if code == "s" else code if code == "2I" else f"{length}{code}")
        value = place + step - inline
        if struct.calcsize(layout) > inline:
            (value,) = struct.unpack_from(order + ("Q" if big else "I"), data, value)
        tags[tag], places[tag] = struct.unpack_from(layout, data, value), value
    return _Ifd(order, tags, places)


def _pixel_extents(ifd: _Ifd) -> NDArray[np.int64]:
    """Return where strips or tiles start and stop, as two rows."""
    tiled = _TILE_OFFSETS in ifd.tags
    offsets = ifd.tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())
    sizes = ifd.tags.get(_TILE_BYTES if tiled else _STRIP_BYTES, ())
    if not offsets or len(offsets) != len(sizes):
        raise ValueError(f"{len(offsets)} offsets and {len(sizes)} sizes of strips or tiles")
    pairs = np.array((offsets, sizes))
    if pairs.dtype.kind not in "iu" or pairs.min() < 0 or pairs.max() >= 2**62:
        raise ValueError("offsets or sizes of strips or tiles are no numbers of bytes")
    return np.stack([pairs[0], pairs.sum(axis=0)]).astype(np.int64)


def _dtype(ifd: _Ifd) -> np.dtype[Any] | None:
    bits = set(ifd.tags.get(_BITS, (1,)))
    kinds = set(ifd.tags.get(_SAMPLE_FORMAT, (1,)))
    if len(bits) != 1 or len(kinds) != 1 or (size := bits.pop()) not in (8, 16, 32, 64):
        return None
    kind = _SAMPLE_KINDS.get(kinds.pop())
    return None if kind is None or (kind == "f" and size < 32) else np.dtype(f"<{kind}{size // 8}")


def _georeference(ifd: _Ifd) -> tuple[bool, Georeference | None]:
    """Return whether the tags are of the simple kind understood here, and the place they say."""
    scale, tie, keys = (ifd.tags.get(tag) for tag in (_PIXEL_SCALE, _TIEPOINT, _GEOKEYS))
    if scale is None and tie is None and keys is None and _MATRIX not in ifd.tags:
        return True, None
    if scale is None or tie is None or keys is None or len(tie) != 6 or any(tie[:3]) or not min(scale[:2]) > 0:
        return False, None
    geokeys = {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}
    code = geokeys.get({1: _PROJECTED, 2: _GEOGRAPHIC}.get(geokeys.get(_MODEL_TYPE, 0), 0), _USER_DEFINED)
    if geokeys.get(_RASTER_TYPE, 1) != 1 or not 1024 <= code < _USER_DEFINED:
        return False, None
    place = Georeference(int(code), (float(scale[0]), 0.0, float(tie[3]), 0.0, -float(scale[1]), float(tie[4])))
    return True, _checked(place)


def _png_ranges(data: bytes) -> list[tuple[int, int]]:
    ranges, at = [], len(_PNG)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IDAT":
            ranges.append((at + 8, min(at + 8 + length, len(data))))
        at += 12 + length
    return ranges


def _without_ranges(data: bytes, ranges: Iterable[tuple[int, int]]) -> bytes:
    parts, at = [], 0
    for start, stop in sorted(ranges):
        parts.append(data[at : max(at, start)])
        at = max(at, stop)
    return b"".join((*parts, data[at:]))
