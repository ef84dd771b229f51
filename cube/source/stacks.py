"""Images of one file per band: several paths in one text, several headers in one row of bytes, several files in one array.

The path is written as shells expand it, ``patch_{B02,B03}.tif``. The header is, for each file in the order of the bands, where
its pixels stand (-1 where header and pixels do not rebuild it), its bytes, the bytes of its header, and the header. Pure.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence

import numpy as np

from cube.errors import RejectedFile
from cube.source.rasters import Raster
from cube.source.statements import Statements

_FACTS = struct.Struct("<qqI")
_END = re.compile(r"[0-9A-Za-z]*$")
_START = re.compile(r"^[0-9A-Za-z]*")
SIGNS = "{},"
"""Signs that no path of such a file can have."""


def joined(paths: Sequence[str]) -> str:
    """Return the paths of the files of an image as one text."""
    if len(paths) == 1:
        return paths[0]
    start = _END.sub("", _common(paths))
    rest = [path[len(start) :][::-1] for path in paths]
    end = _START.sub("", _common(rest)[::-1])
    middle = ",".join(path[len(start) : len(path) - len(end)] for path in paths)
    return f"{start}{{{middle}}}{end}"


def _common(texts: Sequence[str]) -> str:
    """Return what texts begin with."""
    first, last = min(texts), max(texts)
    return first[: next((place for place, sign in enumerate(first) if sign != last[place : place + 1]), len(first))]


def parted(path: str) -> list[str]:
    """Return the paths of the files of an image, in the order of its bands."""
    start, opened, rest = path.partition("{")
    middle, _, end = rest.partition("}")
    return [f"{start}{part}{end}" for part in middle.split(",")] if opened else [path]


def packed(files: Iterable[tuple[bytes, int, int]]) -> bytes:
    """Return the headers of files, each given with the start of its pixels and its size, as one."""
    return b"".join(_FACTS.pack(start, size, len(header)) + header for header, start, size in files)


def unpacked(data: bytes) -> list[tuple[bytes, int, int]]:
    """Return the headers of files, each with the start of its pixels and its size. Raises ``ValueError`` for what is none."""
    files, at = [], 0
    while at < len(data):
        try:
            start, size, length = _FACTS.unpack_from(data, at)
        except struct.error:
            raise ValueError("it ends within the facts of a file") from None
        at += _FACTS.size
        if length > len(data) - at:
            raise ValueError("it ends within the header of a file")
        files.append((data[at : at + length], start, size))
        at += length
    return files


def stacked(files: Sequence[Raster]) -> Raster:
    """Return an image of the files of its bands, (y, x, 1) each, in their order.

    Its header is those of its files; ``pixel_start`` is 0 where all come back by it. Raises
    ``RejectedFile`` with the reason ``different georeferences`` where the bands lie at different places.
    """
    first = files[0].georeference
    for number, file in enumerate(files):
        if file.georeference != first and not (first and file.georeference and first.agrees(file.georeference)):
            raise RejectedFile(
                "different georeferences", f"band {number + 1} lies at {file.georeference}, the first at {first}"
            )
    whole = all(file.tags is None for file in files)
    return Raster(
        pixels=np.concatenate([file.pixels for file in files], axis=2),
        georeference=first,
        header=packed((file.header, file.pixel_start, file.file_size) for file in files),
        pixel_start=0 if whole and all(file.pixel_start >= 0 for file in files) else -1,
        file_size=sum(file.file_size for file in files),
        statements=_all_say(files),
        tags=None if whole else b"",
    )


def _all_say(files: Sequence[Raster]) -> Statements:
    """Return what the files say of their pixels: what stands by band, band after band; of all else what all say alike."""
    said = [dict(file.statements) for file in files]
    names = [name for name in said[0] if all(name in others for others in said)]
    together = []
    for name in names:
        values = [item[name] for item in said]
        if all(isinstance(value, tuple) and len(value) == 1 for value in values):
            together.append((name, tuple(value[0] for value in values)))
        elif all(value == values[0] for value in values):
            together.append((name, values[0]))
    return tuple(together)
