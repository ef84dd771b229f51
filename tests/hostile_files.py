"""A corpus of hostile TIFFs and PNGs, made by a program: small files that claim much."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import product

PNG = b"\x89PNG\r\n\x1a\n"


def tiff(entries: list[tuple[int, int, int, int]], tail: bytes = b"", *, order: str = "<", big: bool = False) -> bytes:
    """Return a TIFF of one directory: (tag, type, count, value) for each entry, then other bytes."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, 16) + struct.pack(order + "Q", len(entries))
        return head + b"".join(struct.pack(order + "HHQQ", *entry) for entry in entries) + struct.pack(order + "Q", 0) + tail
    head = mark + struct.pack(order + "HI", 42, 8) + struct.pack(order + "H", len(entries) & 0xFFFF)
    body = b"".join(
        struct.pack(order + "HHI", tag, kind, count & 0xFFFFFFFF)
        + (struct.pack(order + "HH", value & 0xFFFF, 0) if kind == 3 and count == 1 else struct.pack(order + "I", value))
        for tag, kind, count, value in entries
    )
    return head + body + struct.pack(order + "I", 0) + tail


def image(
    width: int, height: int, bands: int, compression: int, *, tiled: bool = False, bits: int = 16
) -> list[tuple[int, ...]]:
    """Return the entries of an image whose only strip or tile lies at byte 8."""
    where = [(322, 4, 1, width), (323, 4, 1, height), (324, 4, 1, 8), (325, 4, 1, 64)]
    strips = [(273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, 64)]
    shape = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, compression), (262, 3, 1, 1)]
    return sorted([*shape, (277, 3, 1, bands), *(where if tiled else strips)])


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, depth: int = 8, color: int = 0, interlace: int = 0) -> bytes:
    """Return a PNG that claims a size, with other chunks before a few bytes of pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    return PNG + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", zlib.compress(bytes(2**16))) + chunk(b"IEND", b"")


def corpus() -> Iterator[tuple[str, bytes]]:
    """Yield some 200 files by name."""
    sizes = [(16384, 16384), (65535, 65535), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (0, 0), (16, 2**20)]
    for (width, height), bands, compression, tiled in product(sizes, (1, 4, 65535), (1, 5, 8, 50000), (False, True)):
        entries = image(width, height, bands, compression, tiled=tiled)
        yield f"tiff {width}x{height}x{bands} c{compression} tiled={tiled}", tiff(entries, bytes(100))  # type: ignore[arg-type]
    for order, big in product("<>", (False, True)):
        entries = image(16, 16, 65535, 8)
        yield f"bands {order} big={big}", tiff(entries, bytes(100), order=order, big=big)  # type: ignore[arg-type]
    for kind, count in product((1, 2, 3, 4, 12, 16), (20000, 2)):
        many = [(40000 + n % 20000, kind, 240_000 // 8, 0) for n in range(count)]
        yield f"{count} tags of type {kind} naming the whole file", tiff(many, bytes(1000))
    for count in (2**31, 2**32 - 1, 10**6):
        strips = [(256, 4, 1, 16), (257, 4, 1, 16), (273, 4, count, 8), (279, 4, count, 8)]
        yield f"{count} strips", tiff(strips, bytes(1000))
    yield "a directory that is its own next", b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8)
    yield "a directory behind the end", b"II*\0" + struct.pack("<I", 2**31)
    for width, height in ((32000, 32000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (0, 16)):
        for depth, color, interlace in ((8, 0, 0), (16, 6, 0), (8, 2, 1), (1, 0, 0), (8, 3, 1)):
            yield (
                f"png {width}x{height} {depth} {color} {interlace}",
                png(width, height, depth=depth, color=color, interlace=interlace),
            )
    bomb = zlib.compress(bytes(2**26), 9)
    for kind, lead in ((b"iCCP", b"a\0\0"), (b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")):
        yield f"png with a bomb in {kind.decode()}", png(16, 16, chunk(kind, lead + bomb))
    yield "png of many chunks", png(16, 16, *[chunk(b"tEXt", b"a\0b")] * 5000)
    yield "png of many transparencies", png(16, 16, *[chunk(b"tRNS", b"\0\0")] * 250_000)
    yield "png of many empty pixels", png(16, 16, *[chunk(b"IDAT", b"")] * 300_000)
    texts = b"<GDALMetadata>" + b"<Item name='a'>b</Item>" * 130_000 + b"</GDALMetadata>\0"
    pixels = zlib.compress(bytes(16 * 16 * 4 * 2))
    begin = 8 + 2 + 11 * 12 + 4
    named = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 16), (259, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, begin)]
    named += [(277, 3, 1, 4), (278, 4, 1, 16), (279, 4, 1, len(pixels)), (284, 3, 1, 1)]
    named += [(42112, 2, len(texts), begin + len(pixels))]
    yield "tiff of many texts", tiff(named, pixels + texts)
    for text in (
        b"<VRTDataset rasterXSize='16' rasterYSize='16'/>",
        b"PK\3\4" + bytes(100),
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"II+\0",
        b"MM\0*",
    ):
        yield f"starts with {text[:8]!r}", text
