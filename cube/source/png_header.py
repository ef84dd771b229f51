"""The chunks of a PNG as bytes → what it claims, where its pixels lie, and the part of it that decides them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cube.errors import RejectedFile
from cube.source.tiff_header import Claim

PNG = b"\x89PNG\r\n\x1a\n"
_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type → bands."""
_INDEXED = 3
_DECISIVE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""Chunks that decide the pixels. The others may hold texts and profiles that grow a thousandfold when they are read."""

_EMPTY = 12
"""Bytes of a chunk without any of its own."""


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk, where it starts and where the next one does."""
    at = len(PNG)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], at, at + 12 + length
        at += 12 + length


def png_claim(data: bytes) -> Claim:
    """Return what a PNG says of its pixels.

    Raises ``RejectedFile`` where it does not begin by saying so.
    """
    if len(data) < 33 or data[8:16] != b"\0\0\0\rIHDR":
        raise RejectedFile("unreadable", f"a PNG that does not begin with its size but with {data[8:16]!r}")
    width, height, depth, color = struct.unpack_from(">IIBB", data, 16)
    if color not in _BANDS:
        raise RejectedFile("unreadable", f"its PNG colour type is {color}, expected one of {sorted(_BANDS)}")
    return Claim(width, height, _BANDS[color], "uint16" if depth == 16 else "uint8")


def png_ranges(data: bytes) -> list[tuple[int, int]]:
    """Return where the compressed pixels start and stop."""
    return [(start + 8, min(stop - 4, len(data))) for kind, start, stop in _chunks(data) if kind == b"IDAT"]


def decisive_png(data: bytes) -> bytes:
    """Return a PNG of the same pixels without any chunk that has no say in them, or says again what another said."""
    chunks = list(_chunks(data))
    first = {kind: start for kind, start, _ in reversed(chunks)}
    kept = [
        (start, stop)
        for kind, start, stop in chunks
        if (kind == b"IDAT" and stop - start > _EMPTY) or (kind in _DECISIVE and kind != b"IDAT" and first[kind] == start)
    ]
    return data if len(kept) == len(chunks) else PNG + b"".join(data[start:stop] for start, stop in kept)


def png_colors(data: bytes) -> tuple[tuple[str, ...], str]:
    """Return the colours of a palette, such as ``#1c0dff``, and the one value that is transparent; empty where not given."""
    first: dict[bytes, bytes] = {}
    for kind, start, stop in _chunks(data):
        if kind in (b"PLTE", b"tRNS"):
            first.setdefault(kind, data[start + 8 : stop - 4])
    palette, transparent = first.get(b"PLTE", b"")[: 3 * 256], first.get(b"tRNS", b"")
    if data[25] == _INDEXED:
        return tuple(f"#{palette[at : at + 3].hex()}" for at in range(0, len(palette) // 3 * 3, 3)), ""
    values = struct.unpack(f">{len(transparent) // 2}H", transparent) if len(transparent) in (2, 6) else ()
    return (), ", ".join(map(str, values))
