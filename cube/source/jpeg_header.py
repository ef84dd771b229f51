"""The segments of a JPEG as bytes → what it claims, where its pixels lie, and the part of it that decides them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cube.errors import RejectedFile
from cube.source.tiff_header import Claim

JPEG = b"\xff\xd8\xff"
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of the segment that says how large the image is."""
_SCAN, _END = 0xDA, b"\xff\xd9"
_ALONE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a length."""
_DECISIVE = {*_FRAMES, 0xC4, 0xCC, 0xDB, 0xDD, 0xEE}
"""Segments that decide the pixels: frame, tables, restarts, and the colours Adobe's says. Others hold texts and thumbnails."""
_BANDS = (1, 3)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment before the pixels, where it starts and where the next one does; the scan last."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise RejectedFile("unreadable", f"a JPEG without a marker at byte {at:,}")
        marker = data[at + 1]
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield marker, at, at + 2 + length
        if marker == _SCAN or length < 2:
            return
        at += 2 + length


def jpeg_claim(data: bytes) -> Claim:
    """Return what a JPEG says of its pixels.

    Raises ``RejectedFile`` where it does not say so, has bands of another number than grey and colour images, or is cut off.
    """
    for marker, at, stop in _segments(data):
        if marker in _FRAMES and stop - at >= 10 and stop <= len(data):
            depth, height, width, bands = struct.unpack_from(">BHHB", data, at + 4)
            if depth != 8 or bands not in _BANDS:
                raise RejectedFile("unreadable", f"a JPEG of {bands} bands of {depth} bits, expected 1 or 3 of 8")
            if not data.rstrip(b"\0").endswith(_END):
                raise RejectedFile("truncated", "the JPEG has no end")
            return Claim(width, height, bands, "uint8")
    raise RejectedFile("unreadable", "a JPEG that does not say how large it is")


def jpeg_range(data: bytes) -> tuple[int, int]:
    """Return where the compressed pixels start and stop."""
    start = next((at for marker, at, _ in _segments(data) if marker == _SCAN), len(data))
    return start, len(data)


def decisive_jpeg(data: bytes) -> bytes:
    """Return a JPEG of the same pixels without any segment that has no say in them."""
    kept = b"".join(data[at:stop] for marker, at, stop in _segments(data) if marker in _DECISIVE)
    start, stop = jpeg_range(data)
    return data[:2] + kept + data[start:stop]
