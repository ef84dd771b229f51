"""Image files as bytes → pixels, georeference and every byte that is no pixel. The only room that decodes files.

Uncompressed, pixel-interleaved, little-endian TIFFs (what SEN12MS is made of) are parsed here and their pixels are a view
of the file's own bytes. Every other TIFF, every PNG and every JPEG is decoded by rasterio.
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RejectedFile
from cube.source.expectations import Expectation
from cube.source.georeference import Georeference, place_of, simple_place
from cube.source.jpeg_header import JPEG, decisive_jpeg, jpeg_claim, jpeg_range
from cube.source.png_header import PNG, decisive_png, png_claim, png_ranges
from cube.source.statements import Statements, png_statements, tiff_statements
from cube.source.tiff_header import (
    BANDS,
    COMPRESSION,
    HEIGHT,
    MOST_VALUES,
    PLANAR,
    STRIP_OFFSETS,
    TIEPOINT,
    TIFF,
    WIDTH,
    Claim,
    Directory,
    find_entry,
    pixel_extents,
    read_directory,
    require_bounded,
    sample_type,
    tags_alone,
    tiff_claim,
)

_TIE = struct.Struct("<6d")
_LARGEST = 2**30
"""Decoded bytes of the largest image that is believed where nothing is known of it."""
_ALONE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "PROJ_NETWORK": "OFF",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
}
"""Options by which GDAL looks at nothing but the bytes it is given, and invents none of a damaged JPEG."""
_NO_AFFINE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""What GDAL gives where a file has no transform."""
_GDAL_METADATA, _LONG_TEXT = 42112, 2**16
"""The tag in which GDAL keeps names and values of its own, and the bytes of it that are read in a moment."""
_LONGEST = 2**16
"""Bytes of the longest header that is kept whole, and of the tags that are kept of a longer one."""
_MOST_BANDS = 1024
"""Bands that are believed where nothing is known of the image."""


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
    statements: Statements = ()
    """What the file says about its pixels."""
    tags: bytes | None = None
    """Of a file with a header too long to be kept, a file of its tags alone; empty where these are too long as well."""


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
            alike = ends == len(data) and raster.tags is None and raster.georeference
            if ifd and raster.pixel_start >= 0 and alike and TIEPOINT in ifd.places and ifd.order == "<":
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
        place = Georeference(known.georeference.epsg, (a, b, x, d, e, y), known.georeference.wkt)
        return Raster(pixels, place, header, start, len(data), known.statements)


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
        pixels, header = _decode(decisive_png(data))[0], _without_ranges(data, png_ranges(data))
        tags = b"" if len(header) > _LONGEST else None
        return Raster(pixels, None, header, -1, len(data), png_statements(data), tags), None
    if data[:3] == JPEG:
        _check_claim(jpeg_claim(data), expected)
        header = _without_ranges(data, [jpeg_range(data)])
        tags = b"" if len(header) > _LONGEST else None
        return Raster(_decode(decisive_jpeg(data))[0], None, header, -1, len(data), (), tags), None
    if data[:4] not in TIFF:
        raise RejectedFile("unknown format", f"starts with {data[:8]!r}; expected a TIFF, a PNG or a JPEG")
    try:
        ifd = read_directory(data, max(MOST_VALUES, expected.size * expected.bands) if expected else 2**20)
        _check_claim(tiff_claim(ifd), expected)
        extents = pixel_extents(ifd)
        end = int(extents[1].max())
        if end > len(data):
            raise RejectedFile("truncated", f"its pixels end at byte {end:,}, the file has {len(data):,}")
        plain = _plain(data, ifd, extents)
    except (struct.error, IndexError, ValueError, TypeError, OverflowError) as error:
        said = "it leads beyond the end of the file" if isinstance(error, struct.error) else error
        raise RejectedFile("unreadable", f"its first TIFF directory is damaged ({said})") from None
    raster = plain or _general(data, ifd, extents)
    tags = tags_alone(data, _LONGEST) if len(raster.header) > _LONGEST else None
    return replace(raster, statements=tiff_statements(data, ifd, raster.pixels.shape[2]), tags=tags), ifd


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
    simple, georeference = simple_place(ifd)
    if not simple:
        require_bounded(data)
        georeference = _decode(_without_long_texts(data), pixels=False)[1]
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
    entry = find_entry(data, _GDAL_METADATA)
    if entry is None or entry.size <= _LONG_TEXT or entry.at + entry.size > len(data):
        return data
    at, length = entry.at, entry.size
    empty = b"<GDALMetadata/>"
    return data[:at] + empty + bytes(length - len(empty)) + data[at + length :]


def _decode(data: bytes, *, pixels: bool = True) -> tuple[NDArray[Any], Georeference | None]:
    """Return pixels (y, x, band), none of them where only the place is asked for, and the place."""
    # GDAL takes 0.2 s and 40 MB to load, and the files most cubes are made of never need it.
    from rasterio import Env
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile

    with Env(**_ALONE), warnings.catch_warnings(), MemoryFile(data) as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with file.open(driver=_driver(data)) as image:
                decoded = np.ascontiguousarray(image.read().transpose(1, 2, 0)) if pixels else np.empty((0, 0, 0))
                crs, transform = image.crs, image.transform
                wkt = crs.to_wkt(version="WKT2_2019") if crs else ""
        except (RasterioError, ValueError) as error:  # a damaged tag may be no UTF-8, a damaged key no CRS
            message = str(error.__cause__ or error)
            for name in (file.name, file.name.rpartition("/")[2]):  # another one each time
                message = message.replace(name, "the file")
            raise RejectedFile("unreadable", message) from None
    affine = tuple(transform)[:6]
    return decoded, place_of(wkt, affine) if wkt and affine != _NO_AFFINE else None


def _driver(data: bytes) -> str:
    return "PNG" if data[:8] == PNG else "JPEG" if data[:3] == JPEG else "GTiff"


def _without_ranges(data: bytes, ranges: Iterable[tuple[int, int]]) -> bytes:
    parts, at = [], 0
    for start, stop in sorted(ranges):
        parts.append(data[at : max(at, start)])
        at = max(at, stop)
    return b"".join((*parts, data[at:]))
