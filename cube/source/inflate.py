"""Deflated streams entered in the middle: at a block, with the 32 KiB before it, as if what lies before had been inflated.

A block begins at any bit of a byte. The decoder of a C library cannot be told so from Python, but it can be led there: empty
blocks, ten or 93 bits long, fill up the byte whose last bits are the first of the block.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from isal import igzip_lib, isal_zlib

WINDOW = 2**15
"""Bytes that a deflated stream can refer back to."""
_PIECE = 2**20
"""Compressed bytes that are read at a time."""
_STEP = 2**22
"""Inflated bytes that are thrown away at a time on the way to those that are wanted."""
_MAGIC = b"\x1f\x8b"
_TRAILER = 8
"""Bytes of checksum and length after the stream of a gzip member."""
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
"""Code lengths as a deflated block names them."""
_EMPTY = "0100000000"
"""Bits of an empty block of fixed codes, in their order."""
_EMPTY_ODD = (
    "001" "00000" "00000" "1111"  # one block of codes of its own: 257 literals, 1 distance, 19 lengths of code lengths
    + "".join("100" if symbol in (1, 18) else "000" for symbol in _ORDER)
    + "1" "1111111" + "1" "1101011"  # 138 and 118 literals without a code
    + "0" "0" "0"  # the end of the block, and one distance, have codes of one bit; the end of the block
)  # fmt: skip


class Point(NamedTuple):
    """A place of a gzip file at which inflating can begin."""

    bit: int
    """Bits of the file before it; 0 for the beginning of the file, its header included."""
    out: int
    """Inflated bytes before it."""
    start: int
    """First byte, among the kept windows, of the inflated bytes right before it."""
    length: int
    """Compressed bytes of those; 0 at the beginning of a file."""


START = Point(0, 0, 0, 0)


def lead_in(bit: int, first: int) -> bytes:
    """Return whole bytes of empty blocks that end with the upper bits of ``first``, from bit ``bit`` (1 to 7) on."""
    bits = _EMPTY_ODD if bit % 2 else ""
    while len(bits) % 8 != bit:
        bits += _EMPTY
    bits += f"{first:08b}"[::-1][bit:]
    return int(bits[::-1], 2).to_bytes(len(bits) // 8, "little")


def inflated(data: bytes, size: int) -> bytes:
    """Return what a whole raw stream holds; raises ``zlib.error`` unless that is ``size`` bytes."""
    decoder = isal_zlib.decompressobj(-15)
    out = _decoded(decoder, data, size + 1)
    if len(out) != size or not decoder.eof:
        raise zlib.error(f"does not inflate to its {size:,} bytes")
    return out


def _decoded(decoder: Any, data: bytes, most: int) -> bytes:
    try:
        return bytes(decoder.decompress(data, most))
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub takes it for an instance
        raise zlib.error(str(error)) from None


class Inflating:
    """A gzip file that is read in any order; going on from where it is costs least.

    ``read`` gives compressed bytes from a position on, fewer only at the end; ``window`` the kept bytes of a point.
    """

    def __init__(self, read: Callable[[int, int], bytes], window: Callable[[Point], bytes]) -> None:
        self._read, self._window = read, window
        self._decoder: Any = None
        self._raw = self._sound = False
        self._in = self._out = 0
        self._waiting = b""

    def take(self, point: Point, start: int, size: int) -> bytes:
        """Return ``size`` inflated bytes from ``start`` on, reached from ``point`` if that is nearer than where it is.

        Raises ``zlib.error`` or ``EOFError`` if the file does not hold them.
        """
        if not self._sound or not point.out <= self._out <= start:
            self._enter(point)
        self._sound = False
        while self._out < start:
            self._more(min(_STEP, start - self._out))
        pieces, left = [], size
        while left:
            pieces.append(self._more(left))
            left -= len(pieces[-1])
        self._sound = True
        return b"".join(pieces)

    def whole(self, step: int) -> Iterator[bytes]:
        """Yield all that the file inflates to, at most ``step`` bytes at a time, every checksum compared.

        Raises ``zlib.error`` if it is damaged and ``EOFError`` if it is cut off.
        """
        self._enter(START)
        while not self._decoder.eof or self._another():
            yield self._some(step)

    def _enter(self, point: Point) -> None:
        byte, bit = divmod(point.bit, 8)
        self._in, self._out, self._waiting = byte, point.out, b""
        self._raw = point.bit > 0
        if not self._raw:
            self._decoder = isal_zlib.decompressobj(31)
            return
        self._decoder = isal_zlib.decompressobj(-15, zdict=self._window(point))
        if bit:
            self._fill()
            self._waiting = lead_in(bit, self._waiting[0]) + self._waiting[1:]

    def _fill(self) -> None:
        data = self._read(self._in, self._in + _PIECE)
        if not data:
            raise EOFError("the compressed file ends")
        self._in += len(data)
        self._waiting += data

    def _more(self, most: int) -> bytes:
        """Return some inflated bytes."""
        while True:
            if self._decoder.eof:
                self._next_member()
            if out := self._some(most):
                return out

    def _some(self, most: int) -> bytes:
        """Return some inflated bytes of this member, or none: where it ends, a decoder may have none left to give."""
        if not self._waiting:
            self._fill()
        out = _decoded(self._decoder, self._waiting, most)
        self._waiting = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
        self._out += len(out)
        return out

    def _another(self) -> bool:
        """Go on with the next member if there is one; what else follows a gzip is no part of it."""
        while len(self._waiting) < len(_MAGIC):
            more = self._read(self._in, self._in + _PIECE)
            if not more:
                return False
            self._in, self._waiting = self._in + len(more), self._waiting + more
        if not self._waiting.startswith(_MAGIC):
            return False
        self._next_member()
        return True

    def _next_member(self) -> None:
        """Go on with the next of the gzip members that a file may hold one after the other."""
        skipped = _TRAILER if self._raw else 0
        while len(self._waiting) <= skipped:
            self._fill()
        self._waiting, self._raw = self._waiting[skipped:], False
        self._decoder = isal_zlib.decompressobj(31)
