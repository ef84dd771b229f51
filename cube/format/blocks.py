"""Some blocks of a Blosc buffer as a buffer of its own, so that a few bands of a tile are decoded without the others. Pure.

Blosc cuts what it compresses into blocks, each compressed by itself, and notes where each begins. A buffer with fewer of them
is an ordinary one, for any decoder. The layout is that of "Blosc chunk format", version 2, in the documents of c-blosc 1.21.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from struct import pack, unpack_from

_HEADER = 16
_PLAIN = 0x02
"""Flag of a buffer that is stored as it was, without blocks."""


def block_size(body: memoryview) -> int:
    """Return the decoded bytes of a block; 0 where the buffer has no blocks."""
    return 0 if body[2] & _PLAIN else int(unpack_from("<I", body, 8)[0])


def blocks_of(parts: Sequence[int], size: int, block: int, total: int) -> list[int]:
    """Return the blocks of ``block`` decoded bytes that hold some parts of ``size`` bytes each, of ``total`` bytes in all.

    The last block may be shorter; it never comes alone, for no buffer holds less than a block.
    """
    wanted = {at for part in parts for at in range(part * size // block, ((part + 1) * size - 1) // block + 1)}
    last = total // block
    if total % block and wanted == {last}:
        wanted.add(last - 1)
    return sorted(wanted)


def pick(body: memoryview, blocks: Sequence[int], total: int) -> bytes | None:
    """Return a buffer of some of the blocks of another, in order; None where that does not have its blocks in order.

    ``body`` is a Blosc buffer of ``total`` decoded bytes whose own account of its length is right, ``blocks`` ascend.
    """
    block = block_size(body)
    count = -(-total // block)
    if len(body) < _HEADER + 4 * count:
        return None
    ends = [*unpack_from(f"<{count}I", body, _HEADER), len(body)]
    if ends[0] < _HEADER + 4 * count or any(stop <= start for start, stop in pairwise(ends)):
        return None
    starts, at = [], _HEADER + 4 * len(blocks)
    for number in blocks:
        starts.append(at)
        at += ends[number + 1] - ends[number]
    decoded = len(blocks) * block - (-total % block if blocks[-1] == count - 1 else 0)
    header = bytes(body[:4]) + pack("<3I", decoded, block, at) + pack(f"<{len(blocks)}I", *starts)
    return b"".join([header, *(body[ends[number] : ends[number + 1]] for number in blocks)])
