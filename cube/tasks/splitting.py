"""Splits without leaks: whole scenes, dealt so that every part has the same mixture of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cube.errors import RequestError

_SWEEPS = 20
"""Times at most that all scenes are looked at for a better part."""


@dataclass(frozen=True, kw_only=True)
class Dealt:
    """Which part each patch is of."""

    names: NDArray[np.str_]
    """(patch): name of its part."""
    worst: float
    """Largest difference between the share of a class in a part and in all parts that were dealt together."""


def deal(
    groups: Sequence[Any] | NDArray[Any],
    parts: Mapping[str, float],
    shares: NDArray[np.floating[Any]] | None = None,
    *,
    fixed: NDArray[np.str_] | None = None,
    seed: int = 0,
) -> Dealt:
    """Deal groups of patches (scenes: patches of one overlap) to parts, whole, so that classes are mixed alike.

    ``groups`` is (patch): what must not be divided. ``parts`` is name → share of the patches that are dealt, which need not sum
    to 1: they are taken in proportion. ``shares`` is (patch, class), such as those of land cover; NaN counts as nothing.
    ``fixed`` is (patch): the name of the part of patches that are in one already, such as the official test part, and an
    empty text for those to be dealt.

    Groups are dealt one after another, the largest first, to the part that is farthest from what it should have, of patches and
    of every class; then single groups move as long as that brings all parts nearer. Raises ``RequestError`` where there are
    fewer groups than parts, or a group lies in a fixed part and is to be dealt as well.
    """
    keys, group = np.unique(np.asarray(groups), return_inverse=True)
    names = np.asarray(fixed, str).copy() if fixed is not None else np.full(len(group), "", str)
    names = names.astype(f"<U{max([1, names.itemsize // 4, *map(len, parts)])}")
    if not parts or not all(share > 0 for share in parts.values()):
        raise RequestError(f"parts are {dict(parts)}: expected name → share above 0")
    dealt = names == ""
    if both := sorted(set(keys[group[dealt]].tolist()) & set(keys[group[~dealt]].tolist())):
        raise RequestError(f"{both[0]} is in a fixed part and is to be dealt as well: parts would share its ground")
    of_dealt = np.unique(group[dealt])
    if len(of_dealt) < len(parts):
        raise RequestError(f"there are {len(of_dealt)} groups to deal to {len(parts)} parts: divide by another label")
    counts = np.ones((len(group), 1)) if shares is None else np.column_stack([np.ones(len(group)), np.nan_to_num(shares)])
    contents = np.zeros((len(keys), counts.shape[1]))
    np.add.at(contents, group[dealt], counts[dealt])
    contents = contents[of_dealt]
    wanted = np.array(list(parts.values())) / sum(parts.values())
    place = _deal(contents, wanted, seed)
    words = np.array(list(parts))
    of_group = np.full(len(keys), "", names.dtype)
    of_group[of_dealt] = words[place]
    names[dealt] = of_group[group[dealt]]
    sums = np.stack([contents[place == part].sum(axis=0) for part in range(len(parts))])
    mixture, whole = sums[:, 1:] / sums[:, :1], contents.sum(axis=0)
    worst = float(np.abs(mixture - whole[1:] / whole[0]).max(initial=0.0))
    return Dealt(names=names, worst=worst)


def _deal(contents: NDArray[np.float64], wanted: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Return (group): its part. ``contents`` is (group, [patches, classes …]), ``wanted`` (part) its share of all."""
    total = contents.sum(axis=0)
    goal = wanted[:, None] * total
    weight = 1 / (goal + total.sum() * 1e-6)
    order = np.lexsort((np.random.default_rng(seed).random(len(contents)), -contents[:, 0]))
    place, sums = np.empty(len(contents), np.int64), np.zeros_like(goal)

    def cost(part: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((np.square(part - goal) * weight).sum(axis=1))

    for number, row in enumerate(order.tolist()):
        gain = cost(sums) - cost(sums + contents[row])
        empty = np.array([not np.any(place[order[:number]] == part) for part in range(len(goal))])
        left = len(order) - number
        if empty.sum() >= left:  # every part has at least one group
            gain[~empty] = -np.inf
        place[row] = int(np.argmax(gain))
        sums[place[row]] += contents[row]
    for _ in range(_SWEEPS):
        moved = False
        for row in order.tolist():
            moved |= _move(row, place, sums, contents, cost)
        if not moved:
            break
    return place


def _move(row: int, place: NDArray[np.int64], sums: NDArray[np.float64], contents: NDArray[np.float64], cost: Any) -> bool:
    """Move a group to the part where all are nearest to what they should have; tell whether it moved."""
    here = place[row]
    if np.count_nonzero(place == here) < 2:
        return False
    before, without = cost(sums), cost(sums - contents[row])
    change = cost(sums + contents[row]) - before + without[here] - before[here]
    change[here] = 0.0
    best = int(np.argmin(change))
    if change[best] >= -1e-9:
        return False
    sums[here] -= contents[row]
    sums[best] += contents[row]
    place[row] = best
    return True


def blocks(scenes: ArrayLike, corners: ArrayLike, size: int, block: int) -> NDArray[np.str_]:
    """Return (patch, 4): the blocks of ground in which the corners of patches lie, as texts; the upper left one first.

    ``scenes`` is (patch), ``corners`` (patch, [row, column]) of the upper left pixels on the grid of their scene, ``size``
    the side of patches and ``block`` that of blocks, in pixels. Raises ``RequestError`` for blocks smaller than patches.
    """
    if block < size:
        raise RequestError(f"blocks of {block} pixels are smaller than patches of {size}: a patch would lie in more than four")
    ends = np.array([(0, 0), (0, size - 1), (size - 1, 0), (size - 1, size - 1)])
    place = (np.asarray(corners)[:, None, :] + ends) // block
    texts = [[f"{scene}/{row}/{column}" for row, column in four] for scene, four in zip(np.asarray(scenes), place, strict=True)]
    return np.array(texts, str).reshape(len(place), 4)


def apart(touched: NDArray[np.str_], names: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Return (patch): whether all blocks that a patch touches are of its part; the others make the gap between parts.

    ``touched`` is what :func:`blocks` gives and ``names`` (patch) the part to which the first block of each was dealt. Patches
    of two parts that are left share no pixel, as both would touch the block in which it lies.
    """
    part = dict(zip(touched[:, 0].tolist(), names.tolist(), strict=True))
    return np.array(
        [all(part.get(key, name) == name for key in four) for four, name in zip(touched.tolist(), names, strict=True)]
    )
