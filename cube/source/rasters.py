"""Image files as bytes → pixels, georeference and every byte that is no pixel. The only room that decodes files.

Uncompressed, pixel-interleaved, little-endian TIFFs (what SEN12MS is made of) are parsed here and their pixels are a view
of the file's own bytes. Every other TIFF and every PNG is decoded by rasterio.
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from cube.errors import RejectedFile
from cube.source.png_header import PNG, decisive_png, png_claim, png_ranges
from cube.source.tiff_header import (
    BANDS,
    COMPRESSION,
    GEOKEYS,
    HEIGHT,
    MATRIX,
    MOST_VALUES,
    PIXEL_SCALE,
    PLANAR,
    STRIP_OFFSETS,
    TIEPOINT,
    TIFF,
    WIDTH,
    Claim,
    Directory,
    find_bytes,
    pixel_extents,
    read_directory,
    require_bounded,
    sample_type,
    tiff_claim,
)

_MODEL_TYPE, _RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1024, 1025, 2048, 3072
_USER_DEFINED = 32767
_TIE = struct.Struct("<6d")
_LARGEST = 2**30
"""Decoded bytes of the largest image that is believed where nothing is known of it."""
_ALONE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "PROJ_NETWORK": "OFF",
}
"""Options by which GDAL looks at nothing but the bytes it is given."""
_GDAL_METADATA, _LONG_TEXT = 42112, 2**16
"""The tag in which GDAL keeps names and values of its own, and the bytes of it that are read in a moment."""
_MOST_BANDS = 1024
"""Bands that are believed where nothing is known of the image."""
_SPARE_BYTES, _BLOCK_BYTES = 2**22, 2**24
"""Bytes that a file of the smallest image may have, and a tile of it when decoded."""


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

    def fitting(self, room: int) -> Raster:
        """Return the raster without its header if that is longer than there is room for.

        Pixels and place can then be given back, but neither tags nor every byte of the file.
        """
        return self if len(self.header) <= room else replace(self, header=b"", pixel_start=-1)


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

    @property
    def pixel_bytes(self) -> int:
        """Decoded bytes of one image."""
        return self.size**2 * self.bands * np.dtype(self.dtype).itemsize

    @property
    def file_bytes(self) -> int:
        """Most bytes of a file: twice its pixels, for those compress badly or come with overviews, and room for all else."""
        return 2 * self.pixel_bytes + _SPARE_BYTES

    @property
    def block_bytes(self) -> int:
        """Most bytes of one decoded tile: blocks of a small image may be larger than the image."""
        return max(4 * self.pixel_bytes, _BLOCK_BYTES)

    @property
    def decoding_bytes(self) -> int:
        """Most memory that decoding one file takes: its bytes, one tile, and its pixels in both orders."""
        return self.file_bytes + self.block_bytes + 2 * self.pixel_bytes

    def check_size(self, size: int) -> None:
        """Raise ``RejectedFile`` if a file has more bytes than any file of this kind needs."""
        if size > self.file_bytes:
            kind = f"{self.size} × {self.size} pixels of {self.bands} bands of {self.dtype}"
            raise RejectedFile("too large", f"{size:,} bytes, more than {self.file_bytes:,} for {kind}")

    def check_claim(self, claim: Claim) -> None:
        """Raise ``RejectedFile``, saying what differs, if a header claims other pixels than are expected."""
        for reason, seen, wanted in (
            ("wrong dtype", claim.dtype or self.dtype, self.dtype),
            ("wrong size", f"{claim.width} × {claim.height} pixels", f"{self.size} × {self.size} pixels"),
            ("wrong bands", f"{claim.bands} bands", f"{self.bands} bands"),
        ):
            if seen != wanted:
                raise RejectedFile(reason, f"{seen}, expected {wanted}")
        if claim.block_bytes > self.block_bytes:
            raise RejectedFile("too large", f"its tiles are of {claim.block_bytes:,} bytes, more than {self.block_bytes:,}")

    def check(self, raster: Raster) -> Raster:
        """Return the raster if it is as expected; otherwise raise ``RejectedFile`` saying what differs."""
        height, width, bands = raster.pixels.shape
        if (height, width, bands) != (self.size, self.size, self.bands) or raster.pixels.dtype.name != self.dtype:
            self.check_claim(Claim(width, height, bands, raster.pixels.dtype.name))
        if self.georeferenced and raster.georeference is None:
            raise RejectedFile("no georeference", "the file carries no CRS and transform, expected both")
        return raster


class RasterReader:
    """Decodes files one after another. A file that differs from an earlier one in nothing but pixels and place is read by
    what was learnt from that one; the result is the same as that of ``read_raster``, which says what is raised.
    """

    def __init__(self) -> None:
        self._models: dict[int, _Model] = {}

    def read(self, data: bytes, expected: Expectation | None = None) -> Raster:
        """Decode one file."""
        model = self._models.get(len(data))
        raster = model.read(data) if model else None
        if raster is None:
            raster, ifd = _read(data, expected)
            ends = raster.pixel_start + raster.pixels.nbytes  # tags behind the pixels would not be compared
            if ifd and raster.pixel_start >= 0 and raster.georeference and ifd.order == "<" and ends == len(data):
                self._models[len(data)] = _Model(raster, data, ifd.places[TIEPOINT])
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


def read_raster(data: bytes, expected: Expectation | None = None) -> Raster:
    """Decode one file. What its header claims is held against ``expected`` before any pixel is decoded.

    Raises ``RejectedFile`` with the reason ``empty``, ``unknown format``, ``truncated``, ``unknown CRS``, ``unreadable`` or
    ``too large``, and where something is expected ``wrong dtype``, ``wrong size`` or ``wrong bands``.
    """
    return _read(data, expected)[0]


def _read(data: bytes, expected: Expectation | None) -> tuple[Raster, Directory | None]:
    if not data:
        raise RejectedFile("empty", "the file has no bytes")
    if expected:
        expected.check_size(len(data))
    if data[:8] == PNG:
        _check_claim(png_claim(data), expected)
        return Raster(_decode(decisive_png(data))[0], None, _without_ranges(data, png_ranges(data)), -1, len(data)), None
    if data[:4] not in TIFF:
        raise RejectedFile("unknown format", f"starts with {data[:8]!r}; expected a TIFF or a PNG")
    try:
        ifd = read_directory(data, max(MOST_VALUES, expected.size * expected.bands) if expected else 2**20)
        _check_claim(tiff_claim(ifd), expected)
        extents = pixel_extents(ifd)
        end = int(extents[1].max())
        if end > len(data):
            raise RejectedFile("truncated", f"its pixels end at byte {end:,}, the file has {len(data):,}")
        plain = _plain(data, ifd, extents)
    except (struct.error, IndexError, ValueError, TypeError, OverflowError) as error:
        raise RejectedFile("unreadable", f"its first TIFF directory is damaged ({error})") from None
    return plain or _general(data, ifd, extents), ifd


def _check_claim(claim: Claim, expected: Expectation | None) -> None:
    """Reject a header before memory is asked for all that it claims."""
    if expected:
        expected.check_claim(claim)
    if not expected and (claim.pixel_bytes > _LARGEST or claim.block_bytes > _LARGEST or claim.bands > _MOST_BANDS):
        seen = f"{claim.width} × {claim.height} pixels of {claim.bands} bands"
        raise RejectedFile("unreadable", f"it claims {seen}, more than {_LARGEST:,} bytes or {_MOST_BANDS:,} bands")


def _plain(data: bytes, ifd: Directory, extents: NDArray[np.int64]) -> Raster | None:
    """Return the raster of an uncompressed, interleaved, contiguous file as views; None for any other."""
    dtype = sample_type(ifd)
    known = ifd.one(COMPRESSION, 1) == 1 and ifd.one(PLANAR, 1) == 1 and STRIP_OFFSETS in ifd.tags
    swapped = ifd.order == ">" and (dtype is None or dtype.itemsize > 1)
    if dtype is None or not known or swapped or not np.array_equal(extents[0, 1:], extents[1, :-1]):
        return None
    shape = (ifd.one(HEIGHT, 0), ifd.one(WIDTH, 0), ifd.one(BANDS, 1))
    start, stop = int(extents[0, 0]), int(extents[1, -1])
    if stop - start != shape[0] * shape[1] * shape[2] * dtype.itemsize:
        return None
    known_place, georeference = _georeference(ifd)
    if not known_place:
        return None
    pixels = np.frombuffer(data, dtype, count=shape[0] * shape[1] * shape[2], offset=start).reshape(shape)
    return Raster(pixels, georeference, data[:start] + data[stop:], start, len(data))


def _general(data: bytes, ifd: Directory, extents: NDArray[np.int64]) -> Raster:
    coded = int((extents[1] - extents[0]).sum())
    if coded > len(data) + 2 * tiff_claim(ifd).pixel_bytes:
        raise RejectedFile("unreadable", f"its strips or tiles name {coded:,} bytes, the file has {len(data):,}")
    require_bounded(data)
    pixels, georeference = _decode(_without_long_texts(data))
    return Raster(pixels, georeference, _without_ranges(data, extents.T.tolist()), -1, len(data))


def _without_long_texts(data: bytes) -> bytes:
    """Return the file as GDAL is to see it: a long list of its own metadata, which it takes minutes to read, is empty."""
    at, length = find_bytes(data, _GDAL_METADATA)
    if length <= _LONG_TEXT or at + length > len(data):
        return data
    empty = b"<GDALMetadata/>"
    return data[:at] + empty + bytes(length - len(empty)) + data[at + length :]


def _decode(data: bytes) -> tuple[NDArray[Any], Georeference | None]:
    # GDAL takes 0.2 s and 40 MB to load, and the files most cubes are made of never need it.
    from rasterio import Env
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile

    with Env(**_ALONE), warnings.catch_warnings(), MemoryFile(data) as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with file.open(driver="PNG" if data[:8] == PNG else "GTiff") as image:
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


def _georeference(ifd: Directory) -> tuple[bool, Georeference | None]:
    """Return whether the tags are of the simple kind understood here, and the place they say."""
    scale, tie, keys = (ifd.tags.get(tag) for tag in (PIXEL_SCALE, TIEPOINT, GEOKEYS))
    if scale is None and tie is None and keys is None and MATRIX not in ifd.tags:
        return True, None
    if scale is None or tie is None or keys is None or len(tie) != 6 or any(tie[:3]) or not min(scale[:2]) > 0:
        return False, None
    geokeys = {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}
    code = geokeys.get({1: _PROJECTED, 2: _GEOGRAPHIC}.get(geokeys.get(_MODEL_TYPE, 0), 0), _USER_DEFINED)
    if geokeys.get(_RASTER_TYPE, 1) != 1 or not 1024 <= code < _USER_DEFINED:
        return False, None
    place = Georeference(int(code), (float(scale[0]), 0.0, float(tie[3]), 0.0, -float(scale[1]), float(tie[4])))
    return True, _checked(place)


def _without_ranges(data: bytes, ranges: Iterable[tuple[int, int]]) -> bytes:
    parts, at = [], 0
    for start, stop in sorted(ranges):
        parts.append(data[at : max(at, start)])
        at = max(at, stop)
    return b"".join((*parts, data[at:]))
