"""The first directory of a TIFF as bytes → its tags and what it claims, within bounds: no claim is believed here, and
nothing is read twice because a file says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RejectedFile

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WIDTH, HEIGHT, BITS, COMPRESSION, BANDS, PLANAR, SAMPLE_FORMAT = 256, 257, 258, 259, 277, 284, 339
STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES, TILE_WIDTH, TILE_HEIGHT = 273, 279, 324, 325, 322, 323
PIXEL_SCALE, TIEPOINT, MATRIX, GEOKEYS = 33550, 33922, 34264, 34735
_IMAGE_DEPTH, _TILE_DEPTH = 32997, 32998
_OF_PIXELS = {WIDTH, HEIGHT, BITS, COMPRESSION, BANDS, PLANAR, SAMPLE_FORMAT, _IMAGE_DEPTH, _TILE_DEPTH}
_OF_BLOCKS = {STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES, TILE_WIDTH, TILE_HEIGHT}
READ = frozenset(_OF_PIXELS | _OF_BLOCKS | {PIXEL_SCALE, TIEPOINT, MATRIX, GEOKEYS})
"""Tags whose values are read; those of all others stay bytes."""
MOST_VALUES = 2**16
"""Values of one tag that are read, where no larger image is expected."""
_MOST_ENTRIES, _MOST_IN_ALL, _MOST_DIRECTORIES = 4096, 2**14, 1024
_POINTERS = frozenset((330, 34665, 34853, 40965))
"""Tags that lead to further directories."""
_PLACES = frozenset((STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES))
_SUBFILE = 254
_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32946, 34887, 34925, 50000, 50001, 50002))
"""Those that GDAL writes. Whoever meets another one in the wild can have it decoded first."""
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "2I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q"}
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_SAMPLE_KINDS = {1: "u", 2: "i", 3: "f"}
_NAMES = {"u": "uint", "i": "int", "f": "float"}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a header says of its pixels."""

    width: int
    height: int
    bands: int
    dtype: str | None
    """NumPy name; None where only decoding tells."""
    block_bytes: int = 0
    """Bytes of one block, where blocks may be larger than the image."""

    @property
    def pixel_bytes(self) -> int:
        """Decoded bytes, at most."""
        return self.width * self.height * self.bands * (np.dtype(self.dtype).itemsize if self.dtype else 16)


@dataclass(frozen=True, slots=True)
class Directory:
    """The first directory of a TIFF."""

    order: str
    tags: dict[int, tuple[Any, ...]]
    """Tag → its values; only the tags in ``READ``."""
    places: dict[int, int]
    """Where in the file the values of a tag stand."""

    def one(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        return int(self.tags.get(tag, (default,))[0])


def read_directory(data: bytes, most: int = MOST_VALUES) -> Directory:
    """Read the first directory; the first entry of a tag counts, as for libtiff.

    Raises ``RejectedFile`` where it is larger than any image needs, ``struct.error`` and the like where it is damaged.
    """
    form = _Form(data)
    at, count = form.start(form.first)
    if count > _MOST_ENTRIES:
        raise RejectedFile("unreadable", f"its first TIFF directory has {count:,} tags, more than {_MOST_ENTRIES:,}")
    tags: dict[int, tuple[Any, ...]] = {}
    places: dict[int, int] = {}
    for place in range(at, at + count * form.step, form.step):
        tag, kind, length = struct.unpack_from(form.entry, data, place)
        if tag not in READ or kind not in _TYPES or tag in tags:
            continue
        if length > most:
            raise RejectedFile("unreadable", f"its TIFF tag {tag} has {length:,} values, more than {most:,}")
        value = form.value(place, kind, length)
        code = _TYPES[kind]
        layout = form.order + (f"{length}s" if code == "s" else code if code == "2I" else f"{length}{code}")
        tags[tag], places[tag] = struct.unpack_from(layout, data, value), value
    return Directory(form.order, tags, places)


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag of a directory."""

    tag: int
    kind: int
    """Type of its values, as TIFF numbers them."""
    count: int
    at: int
    """Where in the file its values stand."""

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return _BYTES.get(self.kind, 0) * self.count


def entries(data: bytes) -> Iterator[Entry]:
    """Yield the tags of the first directory, as far as they are there."""
    form = _Form(data)
    at, count = form.start(form.first)
    for place in range(at, at + count * form.step, form.step):
        if place + form.step > len(data):
            return
        tag, kind, length = struct.unpack_from(form.entry, data, place)
        if kind in _BYTES:
            yield Entry(tag, kind, length, form.value(place, kind, length))


def find_entry(data: bytes, wanted: int) -> Entry | None:
    """Return a tag of the first directory; None where it has no such tag."""
    return next((entry for entry in entries(data) if entry.tag == wanted), None)


def later_subfiles(data: bytes) -> Iterator[int]:
    """Yield what the directories behind the first say they are, as TIFF's tag 254 has it."""
    form = _Form(data)
    seen: set[int] = set()
    left = _MOST_IN_ALL
    try:
        directory = form.next(*form.start(form.first))
        while directory and directory not in seen and len(seen) < _MOST_DIRECTORIES and left > 0:
            seen.add(directory)
            at, count = form.start(directory)
            left -= count
            for place in range(at, at + min(count, _MOST_ENTRIES) * form.step, form.step):
                tag, kind, _ = struct.unpack_from(form.entry, data, place)
                if tag == _SUBFILE and kind in (3, 4):
                    yield struct.unpack_from(form.order + ("H" if kind == 3 else "I"), data, place + form.step - form.inline)[0]
            directory = form.next(at, count)
    except struct.error:  # a later directory that is not there; a decoder stops there too
        return


def tags_alone(data: bytes, most: int) -> bytes:
    """Return a TIFF of the first directory's tags and their values, whose pixels lie nowhere: a sparse one, as GDAL has it.

    Directories that a tag leads to (such as EXIF) are left out. Empty where it would have more bytes than ``most``, or a value
    is not there.
    """
    form = _Form(data)
    chosen = {entry.tag: entry for entry in reversed(list(entries(data))) if entry.tag not in _POINTERS}
    kept = [chosen[tag] for tag in sorted(chosen)]
    if sum(entry.size for entry in kept) > most or any(entry.at + entry.size > len(data) for entry in kept):
        return b""
    start = 16 if form.big else 8
    number, head = struct.calcsize(form.number), struct.calcsize(form.entry)
    behind = start + number + len(kept) * form.step + struct.calcsize(form.offset)
    table, values = struct.pack(form.number, len(kept)), b""
    for entry in kept:
        value = bytes(entry.size) if entry.tag in _PLACES else data[entry.at : entry.at + entry.size]
        table += struct.pack(form.entry, entry.tag, entry.kind, entry.count)
        if entry.size > form.inline:
            table += struct.pack(form.offset, behind + len(values))
            values += value + bytes(len(value) % 2)
        else:
            table += value.ljust(form.step - head, b"\0")
    first = data[:8] if form.big else data[:4]
    made = first + struct.pack(form.offset, start) + table + struct.pack(form.offset, 0) + values
    return made if len(made) <= most else b""


class _Form:
    """How the directories of one file are laid out."""

    def __init__(self, data: bytes) -> None:
        self.data, self.order = data, "<" if data[:2] == b"II" else ">"
        self.big = data[2:4] in (b"+\0", b"\0+")
        self.offset, self.number = self.order + ("Q" if self.big else "I"), self.order + ("Q" if self.big else "H")
        self.entry, self.inline = (self.order + "HHQ", 8) if self.big else (self.order + "HHI", 4)
        self.step = struct.calcsize(self.entry) + self.inline

    @property
    def first(self) -> int:
        return self._offset(8 if self.big else 4)

    def _offset(self, at: int) -> int:
        (value,) = struct.unpack_from(self.offset, self.data, at)
        return int(value)

    def start(self, at: int) -> tuple[int, int]:
        """Return where the entries of a directory begin, and how many it says there are."""
        (count,) = struct.unpack_from(self.number, self.data, at)
        return at + struct.calcsize(self.number), count

    def value(self, place: int, kind: int, length: int) -> int:
        """Return where the values of the entry at ``place`` stand."""
        inside = place + self.step - self.inline
        return self._offset(inside) if _BYTES[kind] * length > self.inline else inside

    def next(self, at: int, count: int) -> int:
        return self._offset(at + count * self.step)


def require_bounded(data: bytes) -> None:
    """Raise ``RejectedFile`` if all directories together say more than their file can hold.

    A decoder reads every value of every tag, so a file of many tags that name all of it would cost far more than its size.
    """
    form, ahead, seen, entries, named = _Form(data), [], set(), 0, 0
    ahead.append(form.first)
    while ahead:
        if (directory := ahead.pop()) in seen:
            continue
        seen.add(directory)
        try:
            at, count = form.start(directory)
            entries += count
            if entries > _MOST_IN_ALL or len(seen) > _MOST_DIRECTORIES:
                said = f"{len(seen):,} TIFF directories of {entries:,} tags"
                limits = f"{_MOST_DIRECTORIES:,} or {_MOST_IN_ALL:,}"
                raise RejectedFile("unreadable", f"it has at least {said}, more than {limits}")
            for place in range(at, at + count * form.step, form.step):
                named += _bytes_of(form, place, ahead)
            ahead += [following] if (following := form.next(at, count)) else []
        except struct.error:  # a later directory that is not there; a decoder stops there too
            continue
        if named > 2 * len(data) + MOST_VALUES:
            raise RejectedFile("unreadable", f"its TIFF tags name {named:,} bytes, the file has {len(data):,}")


def _bytes_of(form: _Form, place: int, ahead: list[int]) -> int:
    """Return the bytes outside the directory that an entry names; note the directories it leads to."""
    tag, kind, length = struct.unpack_from(form.entry, form.data, place)
    size = _BYTES.get(kind, 0) * length
    if tag in _POINTERS and kind in (4, 13, 16, 18) and 0 < length <= _MOST_DIRECTORIES:
        code = form.order + str(length) + ("I" if kind in (4, 13) else "Q")
        ahead += struct.unpack_from(code, form.data, form.value(place, kind, length))
    return int(size) if size > form.inline else 0


def tiff_claim(directory: Directory) -> Claim:
    """Return what a directory says of its pixels.

    Raises ``RejectedFile`` for kinds of pixels that are never decoded.
    """
    one = directory.one
    if (compression := one(COMPRESSION, 1)) not in _COMPRESSIONS:
        raise RejectedFile("unreadable", f"its TIFF compression is {compression}, which is not decoded")
    if one(_IMAGE_DEPTH, 1) != 1 or one(_TILE_DEPTH, 1) != 1:
        raise RejectedFile("unreadable", "it claims an image of more than one layer in depth")
    bands, dtype = one(BANDS, 1), _claimed_type(directory)
    claim = Claim(one(WIDTH, 0), one(HEIGHT, 0), bands, dtype)
    if TILE_OFFSETS not in directory.tags:
        return claim
    tile = Claim(one(TILE_WIDTH, 0), one(TILE_HEIGHT, 0), 1 if one(PLANAR, 1) == 2 else bands, dtype)
    return Claim(claim.width, claim.height, bands, dtype, tile.pixel_bytes)


def _claimed_type(directory: Directory) -> str | None:
    """Return the type GDAL decodes to; None for rare ones."""
    bits, kinds = set(directory.tags.get(BITS, (1,))), set(directory.tags.get(SAMPLE_FORMAT, (1,)))
    if len(bits) != 1 or len(kinds) != 1:
        return None
    size, kind = bits.pop(), _SAMPLE_KINDS.get(kinds.pop())
    if kind == "u" and size in range(1, 17):
        return "uint8" if size <= 8 else "uint16"
    if kind == "f" and size in (16, 24):
        return "float32"
    exact = (8, 16, 32, 64) if kind in ("u", "i") else (32, 64)
    return f"{_NAMES[kind]}{size}" if kind and size in exact else None


def sample_type(directory: Directory) -> np.dtype[Any] | None:
    """Return the type of samples that lie in the file as NumPy has them; None for any other."""
    bits, kinds = set(directory.tags.get(BITS, (1,))), set(directory.tags.get(SAMPLE_FORMAT, (1,)))
    if len(bits) != 1 or len(kinds) != 1 or (size := bits.pop()) not in (8, 16, 32, 64):
        return None
    kind = _SAMPLE_KINDS.get(kinds.pop())
    return None if kind is None or (kind == "f" and size < 32) else np.dtype(f"<{kind}{size // 8}")


def pixel_extents(directory: Directory) -> NDArray[np.int64]:
    """Return where strips or tiles start and stop, as two rows."""
    tiled = TILE_OFFSETS in directory.tags
    offsets = directory.tags.get(TILE_OFFSETS if tiled else STRIP_OFFSETS, ())
    sizes = directory.tags.get(TILE_BYTES if tiled else STRIP_BYTES, ())
    if not offsets or len(offsets) != len(sizes):
        raise ValueError(f"{len(offsets)} offsets and {len(sizes)} sizes of strips or tiles")
    pairs = np.array((offsets, sizes))
    if pairs.dtype.kind not in "iu" or pairs.min() < 0 or pairs.max() >= 2**62:
        raise ValueError("offsets or sizes of strips or tiles are no numbers of bytes")
    return np.stack([pairs[0], pairs.sum(axis=0)]).astype(np.int64)
