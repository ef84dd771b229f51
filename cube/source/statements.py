"""What a file says about its pixels: nodata, scale, offset, colour table, mask. Pixels are stored as they are all the same."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from cube.source.png_header import png_colors
from cube.source.tiff_header import Directory, Entry, entries, later_subfiles

NODATA, SCALE, OFFSET, COLOR_TABLE, MASK = NAMES = ("nodata", "scale", "offset", "color_table", "mask")

Statements = tuple[tuple[str, Any], ...]
"""Name and value of what is said, in the order of ``NAMES``: nodata as a text, scale and offset as numbers by band, colours as
texts such as ``#1c0dff``, and whether there is a mask beside the pixels."""

_GDAL_NODATA, _GDAL_METADATA, _COLOR_MAP = 42113, 42112, 320
_LONG_TEXT, _MOST_COLORS = 2**16, 2**8
_MASK_OF_IMAGE = 4
_ITEM = re.compile(r"<Item ([^<>]{0,200})>([^<>]{0,64})</Item>")
_ROLE, _BAND = re.compile(r'\brole="(scale|offset)"'), re.compile(r'\bsample="(\d{1,4})"')
_NEUTRAL = {SCALE: 1.0, OFFSET: 0.0}


def tiff_statements(data: bytes, ifd: Directory, bands: int) -> Statements:
    """Return what a TIFF says, by its first directory and the masks that follow. What is damaged says nothing."""
    known = {entry.tag: entry for entry in reversed(list(entries(data)))}
    said: dict[str, Any] = {NODATA: _text(data, known.get(_GDAL_NODATA))}
    said |= _decoding(data, known.get(_GDAL_METADATA), bands)
    said[COLOR_TABLE] = _colors(data, ifd.order, known.get(_COLOR_MAP))
    said[MASK] = any(kind & 7 == _MASK_OF_IMAGE for kind in later_subfiles(data))
    return tuple((name, said[name]) for name in NAMES if said.get(name))


def png_statements(data: bytes) -> Statements:
    """Return what a PNG says."""
    colors, transparent = png_colors(data)
    return tuple((name, value) for name, value in ((NODATA, transparent), (COLOR_TABLE, colors)) if value)


def statement_text(statements: Statements) -> str:
    """Return what is said in a few words, such as ``nodata 0, mask``."""
    return ", ".join(name.replace("_", " ") + _shown(value) for name, value in statements)


def statement_counts(counts: Mapping[str, Mapping[Statements, int]]) -> dict[str, dict[str, int]]:
    """Return, by modality, what is said in words and how many files say it, without those that say nothing."""
    worded: dict[str, dict[str, int]] = {}
    for name, of in counts.items():
        for statements, count in of.items():
            if statements:
                words = worded.setdefault(name, {})
                words[statement_text(statements)] = words.get(statement_text(statements), 0) + count
    return worded


def statement_attributes(statements: Statements) -> dict[str, Any]:
    """Return what all files of a modality say as attributes of its array."""
    return {f"file_{name}": list(value) if isinstance(value, tuple) else value for name, value in statements}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return ""
    if not isinstance(value, tuple):
        return f" {value}"
    if isinstance(value[0], str):
        return f" of {len(value)} colours"
    return f" {value[0]:g}" if len(set(value)) == 1 else f" {', '.join(f'{item:g}' for item in value)}"


def _text(data: bytes, entry: Entry | None) -> str:
    """Return a short text without what would not print."""
    if entry is None or entry.kind != 2 or entry.at + entry.count > len(data):
        return ""
    text = data[entry.at : entry.at + min(entry.count, 64)].partition(b"\0")[0].decode("ascii", "replace").strip()
    return text if text.isprintable() else ""


def _decoding(data: bytes, entry: Entry | None, bands: int) -> dict[str, tuple[float, ...]]:
    """Return scale and offset by band, where the file gives any but 1 and 0."""
    if entry is None or entry.kind != 2 or entry.count > _LONG_TEXT:
        return {}
    given: dict[str, dict[int, float]] = {SCALE: {}, OFFSET: {}}
    for role, band, value in _items(data[entry.at : entry.at + entry.count].decode("utf-8", "replace")):
        given[role][band] = value
    values = {name: tuple(of.get(band, _NEUTRAL[name]) for band in range(bands)) for name, of in given.items()}
    return {name: value for name, value in values.items() if set(value) != {_NEUTRAL[name]}}


def _items(text: str) -> Iterator[tuple[str, int, float]]:
    for attributes, value in _ITEM.findall(text):
        role, band = _ROLE.search(attributes), _BAND.search(attributes)
        if role and band:
            try:
                number = float(value)
            except ValueError:
                continue
            if math.isfinite(number):
                yield role[1], int(band[1]), number


def _colors(data: bytes, order: str, entry: Entry | None) -> tuple[str, ...]:
    """Return the colours of a palette of up to 256, as GDAL gives them: the upper byte of each 16-bit number."""
    if entry is None or entry.kind != 3 or entry.count % 3 or entry.count > 3 * _MOST_COLORS:
        return ()
    try:
        values = struct.unpack_from(f"{order}{entry.count}H", data, entry.at)
    except struct.error:
        return ()
    number = entry.count // 3
    parts = (values[:number], values[number : 2 * number], values[2 * number :])
    return tuple("#" + "".join(f"{part >> 8:02x}" for part in color) for color in zip(*parts, strict=True))
