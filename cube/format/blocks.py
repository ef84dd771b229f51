"""Some blocks of a Blosc buffer as a buffer of its own, so that a few bands of a tile are decoded without the others. Pure.

Blosc cuts what it compresses into blocks, each compressed by itself, and notes where each begins. A buffer with fewer of them is
an ordinary one, for any decoder. The layout is that of "Blosc chunk format", version 2, in the documents of c-blosc 1.21.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = 16
_PLAIN = 0x02
"""Flag of a buffer that is stored as it was, without blocks."""
Ints = NDArray[np.int64]


def block_size(body: NDArray[np.uint8]) -> int:
    """Return the decoded bytes of a block; 0 where the buffer has no blocks."""
    return 0 if int(body[2]) & _PLAIN else int(body[8:12].view("<u4")[0])


def blocks_of(parts: Ints, size: int, block: int, total: int) -> Ints:
    """Return the blocks of ``block`` decoded bytes that hold some parts of ``size`` bytes each, of ``total`` bytes in all.

    The last block may be shorter; it never comes alone, for no buffer holds less than a block.
    """
    first, last = parts * size // block, ((parts + 1) * size - 1) // block
    wanted = np.zeros(-(-total // block), bool)
    for low, high in zip(first.tolist(), last.tolist(), strict=True):
        wanted[low : high + 1] = True
    if total % block and wanted[-1] and not wanted[:-1].any():
        wanted[-2] = True
    return np.flatnonzero(wanted)


def pick(body: NDArray[np.uint8], blocks: Ints, total: int) -> bytes | None:
    """Return a buffer of some of the blocks of another, in order; None where that does not have its blocks in order.

    ``body`` is a Blosc buffer of ``total`` decoded bytes whose own account of its length is right, ``blocks`` ascend.
    """
    block = block_size(body)
    count = -(-total // block)
    table = body[_HEADER : _HEADER + 4 * count]
    if len(table) < 4 * count:
        return None
    ends = np.append(table.view("<u4").astype(np.int64), len(body))
    if ends[0] < _HEADER + 4 * count or (np.diff(ends) <= 0).any():
        return None
    lengths = np.diff(ends)[blocks]
    starts = _HEADER + 4 * len(blocks) + np.cumsum(lengths) - lengths
    decoded = len(blocks) * block - (-total % block if blocks[-1] == count - 1 else 0)
    header = np.empty(3, "<u4")
    header[:] = decoded, block, _HEADER + 4 * len(blocks) + int(lengths.sum())
    pieces: list[Any] = [body[start:stop] for start, stop in zip(ends[blocks].tolist(), ends[blocks + 1].tolist(), strict=True)]
    return b"".join([body[:4].tobytes(), header.tobytes(), starts.astype("<u4").tobytes(), *pieces])
