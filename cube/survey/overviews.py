"""Small pictures of whole scenes: pieces put together, written as PNG and read back. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import prod
from struct import pack, unpack
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOR, _PALETTE = 0, 2, 3
_COPIED, _UP = 0, 2
"""PNG filters: rows as they are, or as differences to the row above."""


def paste(picture: Pixels, pieces: Pixels, uses: NDArray[Any]) -> None:
    """Copy pieces (piece, y, x, channel) into a picture (y, x, channel); ``uses`` is (use, [piece, row, column])."""
    height, width = pieces.shape[1:3]
    for piece, row, column in uses.tolist():
        picture[row : row + height, column : column + width] = pieces[piece]


def png(pixels: Pixels, palette: Sequence[str] = ()) -> bytes:
    """Return pixels (y, x, channel) as a PNG in which 0 is transparent.

    One channel is grey, or with a palette (``rrggbb``, for the values from 1 on) coloured; three are red, green and blue.
    """
    height, width, channels = pixels.shape
    kind = _PALETTE if palette else _COLOR if channels == 3 else _GREY
    chunks = [(b"IHDR", pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))]
    if palette:
        chunks += [(b"PLTE", bytes(3) + bytes.fromhex("".join(palette))), (b"tRNS", b"\0")]
    else:
        chunks.append((b"tRNS", bytes(2 * channels)))
    chunks += [(b"IDAT", zlib.compress(_filtered(pixels, _COPIED if palette else _UP), 6)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def pixels_of(data: bytes) -> Pixels | None:
    """Return the pixels (y, x, channel) of a PNG that ``png`` has written; None for any other, and a damaged one."""
    chunks: dict[bytes, bytes] = {}
    at, end = len(_SIGNATURE), len(data)
    while at + 12 <= end:
        size = int.from_bytes(data[at : at + 4], "big")
        name, body, crc = data[at + 4 : at + 8], data[at + 8 : at + 8 + size], data[at + 8 + size : at + 12 + size]
        if zlib.crc32(name + body).to_bytes(4, "big") != crc:
            return None
        chunks[name] = body
        at += 12 + size
    head = chunks.get(b"IHDR", b"")
    if not data.startswith(_SIGNATURE) or len(head) != 13 or b"IDAT" not in chunks or b"IEND" not in chunks:
        return None
    width, height, depth, kind = unpack(">IIBB", head[:10])
    shape = height, width, 3 if kind == _COLOR else 1
    try:
        lines = np.frombuffer(zlib.decompressobj().decompress(chunks[b"IDAT"], height * (prod(shape[1:]) + 1) + 1), np.uint8)
        lines = lines.reshape(height, prod(shape[1:]) + 1)
    except (zlib.error, ValueError):
        return None
    wanted = _COPIED if kind == _PALETTE else _UP
    if depth != 8 or (lines[:, 0] != wanted).any():
        return None
    rows = lines[:, 1:].cumsum(axis=0, dtype=np.uint8) if wanted == _UP else lines[:, 1:]
    return rows.reshape(shape).copy()


def _filtered(pixels: Pixels, kind: int) -> bytes:
    rows = pixels.reshape(len(pixels), -1)
    lines = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    lines[:, 0], lines[:, 1:] = kind, rows
    if kind == _UP:
        lines[1:, 1:] -= rows[:-1]
    return lines.tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return pack(">I", len(data)) + name + data + pack(">I", zlib.crc32(name + data))
