"""Which tiles the batches of an epoch want, which of them are decoded for each, and into which slots of memory. Pure.

The order of an epoch is known before it begins. So when slots run short, the tile is dropped that is wanted again last, which
no other choice beats (Belady, 1966). A shard's tiles are looked up when its first patch comes near: nothing waits for the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.format.tiles import ABSENT
from cube.read.ranges import Tile

Array = NDArray[Any]
Ints = NDArray[np.int64]
NEVER = np.iinfo(np.int32).max
"""Number of the batch that wants a tile next, where none does."""
NOTHING = -1
_EMPTY = 0
"""Slot of the tile that is not stored: it holds the fill value."""
_OFFSET = 46
"""Bits of an offset in a shard; 64 TiB are more than any has."""
AHEAD = 1
"""Batches for which tiles are decoded while an earlier one is copied: slots of so many batches are not touched."""


@dataclass(frozen=True)
class Step:
    """What one batch needs of one modality."""

    tiles: list[Tile]
    """Tiles to decode, sorted by where they lie."""
    slots: Ints
    """(tile): the slots they are decoded into."""
    gathered: Ints
    """(patch, place): the slot of each tile of the batch."""
    again: int
    """Tiles among those to decode that have been decoded before, and dropped since."""


class Growing:
    """An array to which rows are added at the end."""

    def __init__(self, *columns: Any) -> None:
        self.columns = [np.empty(1024, dtype) for dtype in columns]
        self.length = 0

    def extend(self, *values: Any) -> None:
        """Add rows, given column by column."""
        stop = self.length + len(values[0])
        if stop > len(self.columns[0]):
            self.columns = [np.resize(column, max(stop, 2 * len(column))) for column in self.columns]
        for column, value in zip(self.columns, values, strict=True):
            column[self.length : stop] = value
        self.length = stop


class TilePlan:
    """The plan of one modality over one epoch of one stream, made batch by batch."""

    def __init__(
        self,
        rows: Ints,
        batch_size: int,
        *,
        shard: int,
        places: int,
        entries: Callable[[Ints], Array],
        wanted: Callable[[Ints], Array] | None = None,
    ) -> None:
        """Plan for patches in order.

        ``rows`` (patch) are their positions in the cube, ``shard`` the patches of one. ``entries`` gives (patch, place,
        [offset, length]) of rows; ``wanted`` gives (patch, place): which tiles of patches, named by their positions in the
        order, are looked at.
        """
        self._rows, self._batch, self._entries, self._wanted = rows, batch_size, entries, wanted
        self._shards = (rows // shard).astype(np.int32)
        self._of_shard = np.argsort(self._shards, kind="stable").astype(np.int32)
        self._sorted = self._shards[self._of_shard]
        self._open: set[int] = set()
        self._number = np.full((len(rows), places), NOTHING, np.int32)
        """(patch, place): the tile, numbered in the order in which they were looked up."""
        self._next = np.full((len(rows), places), NEVER, np.int32)
        """(patch, place): the next batch that wants the tile."""
        self._tiles = Growing(np.int32, np.int64, np.int32, np.int32, np.bool_)
        """(tile): its shard, offset and length, the slot that holds it, and whether it was decoded before."""
        self._change = np.zeros(len(self) + AHEAD + 2, np.int64)
        """(batch): by how many the tiles that are wanted then or later, and were before, change."""
        self._planned = 0
        self.slots = _Slots()

    def __len__(self) -> int:
        return (len(self._rows) + self._batch - 1) // self._batch

    @property
    def distinct(self) -> int:
        """Tiles looked up so far."""
        return self._tiles.length

    @property
    def planned(self) -> int:
        """Batches planned so far."""
        return self._planned

    def needed(self, batch: int) -> int:
        """Return the most slots that were of use at a time up to a batch: with so many, no tile would be decoded twice."""
        return 1 + int(np.cumsum(self._change[: batch + 1]).max(initial=0))

    def shards(self, batch: int) -> list[int]:
        """Return the shards of a batch that have not been looked up."""
        part = self._part(batch)
        return [shard for shard in np.unique(self._shards[part]).tolist() if shard not in self._open]

    def _part(self, batch: int) -> slice:
        return slice(batch * self._batch, (batch + 1) * self._batch)

    def step(self, batch: int) -> Step:
        """Plan a batch; they are planned in order, each once."""
        if shards := self.shards(batch):
            self._look_up(shards)
        part = self._part(batch)
        numbers, first, uses = np.unique(self._number[part], return_index=True, return_inverse=True)
        following = self._next[part].ravel()[first]
        slots = np.full(len(numbers), _EMPTY, np.int64)
        known = numbers != NOTHING
        shard, offset, length, held, before = self._tiles.columns
        slots[known] = held[numbers[known]]
        new = known & (slots == _EMPTY)
        self.slots.use(slots[known & ~new], following[known & ~new], batch)
        taken, dropped = self.slots.take(int(new.sum()), batch)
        held[dropped] = _EMPTY
        held[numbers[new]] = slots[new] = taken
        self.slots.fill(taken, numbers[new], following[new], batch)
        order = numbers[new][np.lexsort((offset[numbers[new]], shard[numbers[new]]))]
        tiles = list(map(Tile, shard[order].tolist(), offset[order].tolist(), length[order].tolist()))
        self._planned = batch + 1
        again = int(before[order].sum())
        before[order] = True
        return Step(tiles, held[order].astype(np.int64), slots[uses].reshape(-1, self._number.shape[1]), again)

    def _look_up(self, shards: list[int]) -> None:
        """Number the tiles of some shards, and find which batches want them."""
        self._open |= set(shards)
        low, high = np.searchsorted(self._sorted, shards), np.searchsorted(self._sorted, shards, "right")
        at = np.sort(np.concatenate([self._of_shard[start:stop] for start, stop in zip(low, high, strict=True)]))
        entries = self._entries(self._rows[at])
        used = entries[..., 0] != ABSENT
        if self._wanted is not None:
            used &= self._wanted(at)
        patch, place = np.nonzero(used)
        rank = np.searchsorted(shards, self._shards[at[patch]])
        where = rank << _OFFSET | entries[patch, place, 0].astype(np.int64)
        tiles, first, number = np.unique(where, return_index=True, return_inverse=True)
        batch = at[patch] // self._batch
        following, begins = next_uses(number, batch)
        self._number[at[patch], place] = number + self._tiles.length
        self._next[at[patch], place] = following
        length = entries[patch[first], place[first], 1]
        shard, offset = np.array(shards)[tiles >> _OFFSET], tiles & ((1 << _OFFSET) - 1)
        self._tiles.extend(shard, offset, length, np.full(len(tiles), _EMPTY), np.zeros(len(tiles)))
        np.add.at(self._change, batch[begins], 1)
        np.add.at(self._change, batch[following == NEVER][_firsts(number[following == NEVER])] + 1 + AHEAD, -1)


def next_uses(number: Ints, batch: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Return (use): the next batch that wants the same tile, ``NEVER`` where none does, and whether none did before.

    ``number`` (use) are tiles; ``batch`` (use) ascends. Of several uses of a tile in a batch, one counts as its first.
    """
    order = np.argsort(number, kind="stable")
    tile, at = number[order], batch[order]
    new = np.ones(len(order), bool)
    new[1:] = (tile[1:] != tile[:-1]) | (at[1:] != at[:-1])
    group = np.cumsum(new) - 1
    tiles, batches = tile[new], at[new]
    following = np.full(len(tiles), NEVER, np.int64)
    following[:-1] = np.where(tiles[1:] == tiles[:-1], batches[1:], NEVER)
    result, begins = np.empty(len(order), np.int64), np.zeros(len(order), bool)
    result[order] = following[group]
    begins[order[_firsts(tile)]] = True
    return result, begins


def _firsts(values: Ints) -> Ints:
    """Return where each distinct value stands first."""
    return np.unique(values, return_index=True)[1]


class _Slots:
    """What lies in each slot, when it was used last, and when it is wanted next. Slot 0 is never given out."""

    def __init__(self) -> None:
        self.limit = 1 << 62
        """Slots that are given out while old ones could be dropped instead."""
        self.top = 1
        """Slots that were ever given out, and the first."""
        self._state = Growing(np.int32, np.int64, np.int32)
        self._state.extend([NOTHING], [NEVER], [NEVER])
        self._free: list[int] = []
        self._dying: deque[tuple[int, list[int]]] = deque()

    def use(self, slots: Ints, following: Ints, batch: int) -> None:
        """Note that a batch uses slots, and which batches will next."""
        _, until, last = self._state.columns
        until[slots], last[slots] = following, batch
        self._dying.append((batch, slots[following == NEVER].tolist()))

    def fill(self, slots: Ints, numbers: Ints, following: Ints, batch: int) -> None:
        """Note which tiles are put into slots, as :meth:`use` does."""
        self._state.columns[0][slots] = numbers
        self.use(slots, following, batch)

    def take(self, count: int, batch: int) -> tuple[Ints, Ints]:
        """Return slots to fill for a batch, and the tiles that are dropped out of them."""
        while self._dying and self._dying[0][0] < batch - AHEAD:
            self._free += self._dying.popleft()[1]
        taken = [self._free.pop() for _ in range(min(count, len(self._free)))]
        taken += self._fresh(min(count - len(taken), self.limit - self.top))
        if short := count - len(taken):
            _, until, last = (column[: self.top] for column in self._state.columns)
            movable = np.flatnonzero((last < batch - AHEAD) & (until != NEVER))
            least = min(short, len(movable))
            taken += movable[np.argsort(until[movable], kind="stable")[len(movable) - least :]].tolist()
            taken += self._fresh(short - least)
        slots = np.array(taken, np.int64)
        dropped = self._state.columns[0][slots]
        return slots, dropped[dropped != NOTHING]

    def _fresh(self, count: int) -> list[int]:
        count = max(0, count)
        fresh = range(self.top, self.top + count)
        self._state.extend([NOTHING] * count, [NEVER] * count, [NEVER] * count)
        self.top += count
        return list(fresh)
