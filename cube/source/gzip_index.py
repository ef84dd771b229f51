"""The index of a gzipped tar: what it holds, and points at which inflating can begin. Made in one pass, then kept.

An index is one object: the 32 KiB of inflated bytes before each point, then one document of all the rest, then its length and
its hash. A damaged one is made again.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterator
from typing import IO, Any

import rapidgzip
from blake3 import blake3
from isal import isal_zlib

from cube.source.inflate import START, WINDOW, Inflating, Point
from cube.source.members import Listing, Member, tar_listing
from cube.source.rejected import Rejected
from cube.store.protocol import Entry, Range, Readable, Store

_SPACING = 2**22
"""Inflated bytes from one point to the next, at least."""
_PIECE = 2**23
"""Inflated bytes that are held at a time while an index is made."""
_TRIED = 2**10
"""Bytes that each point must lead to before it is kept."""
_AHEAD = 2**22
"""Bytes that an object store is asked for at a time."""
_TAIL = 8 + 32
_MOST = 2**31
"""Bytes of the longest document of an index."""
_FORMAT = 1


def index_key(archive: Entry) -> str:
    """Return where the index of an archive is kept; another archive, or one written anew, has another."""
    facts = f"{archive.key}\n{archive.size}\n{archive.stamp}\n{_FORMAT}"
    return f"{blake3(facts.encode()).hexdigest(16)}.index"


def read_index(indexes: Readable, archive: Entry) -> Listing | None:
    """Return what an index says of an archive; None where there is none, or it is damaged."""
    key = index_key(archive)
    try:
        (tail,) = indexes.read_ranges([Range(key, -_TAIL, None)])
        length = int.from_bytes(tail[:8], "little")
        if len(tail) != _TAIL or not 0 < length < indexes.entry(key).size:
            return None
        (data,) = indexes.read_ranges([Range(key, -_TAIL - length, None)])
    except FileNotFoundError:
        return None
    packed = data[:-_TAIL]
    if blake3(packed).digest() != tail[8:]:
        return None
    try:
        document = json.loads(zlib.decompressobj().decompress(packed, _MOST))
        points = [START, *(Point(*map(int, item)) for item in document["points"])]
        members = [(str(name), int(start), int(size)) for name, start, size in document["members"]]
        refused = [Rejected(*map(str, item)) for item in document["refused"]]
    except (ValueError, TypeError, LookupError, zlib.error):
        return None
    return _listing(archive.key, members, refused, points)


def make_index(source: Readable, archive: Entry, indexes: Store) -> Listing:
    """Inflate a whole archive once: list it, keep its index, and return what it holds.

    Where it is damaged or cut off, what comes before that is listed, and a refusal says so. Raises ``OSError`` if the store
    does not answer.
    """
    key = index_key(archive)
    with indexes.writing(key) as sink:
        passing = _Passing(source, archive, sink)
        listing = tar_listing(archive.key, "gzip", _Forward(passing.pieces()))
        if passing.damage:
            listing.members.clear()
            listing.refused = [Rejected(archive.key, "damaged archive", passing.damage)]
        elif passing.cut and not listing.refused:
            detail = (
                f"{passing.cut}. Its {len(listing.members):,} files are used; download the archive again to be sure of them"
            )
            listing.refused.append(Rejected(archive.key, "damaged archive", detail))
        members = [(name, item.start, item.size) for name, item in listing.members.items()]
        refused = [[item.path, item.reason, item.detail] for item in listing.refused]
        document = {"members": members, "refused": refused, "points": passing.points}
        packed = zlib.compress(json.dumps(document).encode(), 6)
        sink.write(packed)
        sink.write(len(packed).to_bytes(8, "little") + blake3(packed).digest())
    indexes.secure([key])
    return _listing(archive.key, members, listing.refused, [START, *passing.points])


def read_window(indexes: Readable, key: str, point: Point) -> bytes:
    """Return the inflated bytes before a point."""
    return zlib.decompress(indexes.read_range(key, point.start, point.start + point.length))


def _listing(archive: str, members: list[tuple[str, int, int]], refused: list[Rejected], points: list[Point]) -> Listing:
    """Give each member the last point before it."""
    listing, place = Listing(refused=refused), 0
    for name, start, size in sorted(members, key=lambda item: item[1]):
        while place + 1 < len(points) and points[place + 1].out <= start:
            place += 1
        listing.members[name] = Member(archive, "gzip", start, start + size, size, point=points[place])
    return listing


class _Passing:
    """An archive that passes by once, inflated; points are taken of it and its checksum is compared."""

    def __init__(self, source: Readable, archive: Entry, sink: IO[bytes]) -> None:
        self.source, self.archive, self.sink = source, archive, sink
        self.points: list[Point] = []
        self.damage = self.cut = ""
        self._written = 0

    def pieces(self) -> Iterator[bytes]:
        """Yield what the archive inflates to, in order. Raises ``EOFError`` where it is damaged or cut off."""
        file = ObjectFile(self.source, self.archive)
        out, crc, window = 0, 0, b""
        with rapidgzip.open(file, parallelization=os.cpu_count() or 1) as inflating:
            while piece := _next_piece(inflating, file):
                self._take_points(inflating, out, window, piece)
                crc, out = isal_zlib.crc32(piece, crc), out + len(piece)
                window = (window + piece)[-WINDOW:] if len(piece) < WINDOW else piece[-WINDOW:]
                yield piece
        self._compare(crc, out)

    def _take_points(self, inflating: Any, start: int, window: bytes, piece: bytes) -> None:
        """Keep the blocks that begin in a piece and lie far enough from each other."""
        last = self.points[-1].out if self.points else 0
        for bit, out in sorted(inflating.available_block_offsets().items()):
            if not max(start, last + _SPACING) <= out < start + len(piece) - _TRIED:
                continue
            place = out - start
            before = (window + piece[:place])[-WINDOW:] if place < WINDOW else piece[place - WINDOW : place]
            kept = zlib.compress(before, 1)
            point = Point(int(bit), int(out), self._written, len(kept))
            if self._leads(point, before, piece[place : place + _TRIED]):
                self.sink.write(kept)
                self._written += len(kept)
                self.points.append(point)
                last = point.out

    def _leads(self, point: Point, window: bytes, wanted: bytes) -> bool:
        """Tell whether a point leads to what follows it: a block offset may be that of something else."""

        def read(start: int, stop: int) -> bytes:
            return self.source.read_range(self.archive.key, start, min(stop, start + 2**16))

        try:
            return Inflating(read, lambda _: window).take(point, point.out, len(wanted)) == wanted
        except (zlib.error, EOFError):
            return False

    def _compare(self, crc: int, size: int) -> None:
        """Compare the checksum at the end with what was inflated; a gzip of several members has one for each."""
        tail = self.source.read_range(self.archive.key, max(0, self.archive.size - 8), self.archive.size)
        if tail == crc.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little"):
            return
        said, again, out = "", 0, 0
        try:
            for piece in Inflating(self._read, lambda _: b"").whole(_PIECE):
                again = isal_zlib.crc32(piece[: max(0, size - out)], again)
                out += len(piece)
        except zlib.error as error:
            said = str(error)
        except EOFError as error:
            self.cut = f"{error} before its checksum"
        if not said and (again != crc or (out < size if self.cut else out != size)):
            said = f"two decoders read {size:,} and {out:,} bytes of it, or other ones"
        if said:
            self.damage = f"its checksum is wrong ({said}): no file of it can be trusted. Download the archive again"

    def _read(self, start: int, stop: int) -> bytes:
        return self.source.read_range(self.archive.key, start, stop)


def _next_piece(inflating: Any, file: ObjectFile) -> bytes:
    try:
        piece: bytes = inflating.read(_PIECE)
    except (ValueError, RuntimeError, IndexError) as error:  # what C++ raises of a damaged stream
        if file.failure:
            raise file.failure from None
        raise EOFError(f"it is damaged or cut off ({str(error)[:80]} …)") from None
    if file.failure:
        raise file.failure
    return piece


class ObjectFile(io.RawIOBase):
    """An object as a file; an answer that fails is kept for whoever reads, since it cannot pass through a decoder in C++."""

    def __init__(self, store: Readable, entry: Entry) -> None:
        self.store, self.entry = store, entry
        self.failure: OSError | None = None
        self._place = self._start = 0
        self._held = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.entry.size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        out = memoryview(buffer).cast("B")
        if not self._start <= self._place < self._start + len(self._held):
            self._fetch(max(len(out), 1 if self.store.near else _AHEAD))
        first = self._place - self._start
        data = self._held[first : first + len(out)]
        out[: len(data)] = data
        self._place += len(data)
        return len(data)

    def _fetch(self, length: int) -> None:
        self._start = self._place
        stop = min(self._place + length, self.entry.size)
        try:
            self._held = self.store.read_range(self.entry.key, self._place, stop) if stop > self._place else b""
        except OSError as error:
            self.failure, self._held = error, b""


class _Forward:
    """Pieces as a file that is read and sought forwards."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""
        self._start = self._place = 0

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        self._place = place
        return place

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            while self._place >= self._start + len(self._held):
                self._start += len(self._held)
                self._held = next(self._pieces, b"")
                if not self._held:
                    return b"".join(parts)
            first = self._place - self._start
            parts.append(self._held[first : first + size])
            size -= len(parts[-1])
            self._place += len(parts[-1])
        return b"".join(parts)
