"""Augmentation of whole batches: crops, flips and quarter turns that keep all images of a patch aligned.

What happens to a patch depends on the seed, the epoch and its id alone, so it is the same with any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cube.errors import RequestError

Array = NDArray[Any]
Part = tuple[slice, slice]
"""Rows and columns."""
Move = tuple[int, Part, Part]
"""How a tile is turned, which part of it is used, and the part of the changed image it goes to once it is turned."""
MIRRORED = 4
"""From this turn on a patch is mirrored first."""


@dataclass(frozen=True)
class Changes:
    """What happens to the patches of one batch."""

    turn: NDArray[np.int64]
    """(patch): quarters by which it is turned, and 4 more where it is mirrored before."""
    corner: NDArray[np.int64]
    """(patch, [top, left]) of the window that is cut out, in pixels of the largest images."""
    crop: int | None
    """Side of the window, in the same pixels."""
    most: int
    """Side of the largest images."""

    @cached_property
    def _plain(self) -> list[tuple[int, int, int]]:
        """Turn, top and left of each patch, as Python has numbers: they are asked for one by one."""
        return [(turn, top, left) for turn, (top, left) in zip(self.turn.tolist(), self.corner.tolist(), strict=True)]

    def side(self, side: int) -> int:
        """Return the side of what is left of images of a side."""
        return side if self.crop is None else self.crop * side // self.most

    def touched(self, across: int, tile: int, side: int) -> NDArray[np.bool_]:
        """Return (patch, place): which tiles of images of ``side`` pixels, ``across`` in a row, lie in the windows."""
        if self.crop is None:
            return np.ones((len(self.turn), across**2), bool)
        corner = self.corner * side // self.most
        starts = np.arange(across) * tile
        rows, columns = (
            (corner[:, [axis]] < starts + tile) & (corner[:, [axis]] + self.side(side) > starts) for axis in (0, 1)
        )
        return (rows[:, :, None] & columns[:, None, :]).reshape(len(self.turn), -1)

    def move(self, row: int, place: tuple[int, int], tile: int, side: int) -> Move | None:
        """Return how a tile gets to its place in a patch; None where it lies outside the window.

        ``place`` is the tile's (row, column) in an image of ``side`` pixels.
        """
        turn, top, left = self._plain[row]
        if self.crop is None:
            return _move(turn, place[0] * tile, place[1] * tile, tile, side)
        return _move(
            turn, place[0] * tile - top * side // self.most, place[1] * tile - left * side // self.most, tile, self.side(side)
        )


@lru_cache(maxsize=1 << 16)
def _move(turn: int, top: int, left: int, tile: int, side: int) -> Move | None:
    """Return how a tile whose corner is at (``top``, ``left``) of a window of ``side`` pixels gets there."""
    low, high = max(top, 0), min(top + tile, side)
    west, east = max(left, 0), min(left + tile, side)
    if low >= high or west >= east:
        return None
    used = slice(low - top, high - top), slice(west - left, east - left)
    if turn >= MIRRORED:
        west, east = side - east, side - west
    for _ in range(turn % 4):
        low, high, west, east = side - east, side - west, low, high
    return turn, used, (slice(low, high), slice(west, east))


def turned(image: Array, turn: int) -> Array:
    """Return a view of images (…, y, x), mirrored left to right where ``turn`` is 4 or more, then turned by its quarters."""
    part = image[..., ::-1] if turn >= MIRRORED else image
    quarters = turn % 4
    if quarters % 2:
        part = part.swapaxes(-2, -1)
        return part[..., ::-1, :] if quarters == 1 else part[..., ::-1]
    return part[..., ::-1, ::-1] if quarters else part


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Changes batches (patch, …, y, x): call it with a batch and the number of the epoch."""

    crop: int | None = None
    """Side of the window that is cut out, at a random place, in pixels of the largest images; whole images where None."""
    flips: bool = True
    """Whether patches are mirrored left to right, at random."""
    turns: bool = True
    """Whether patches are turned by 0 to 3 quarters, at random."""
    seed: int = 0

    def __call__(self, batch: Mapping[str, Array], epoch: int = 0) -> dict[str, Array]:
        """Return the batch with all its images changed in the same way, patch by patch; what is no image stays.

        Images are arrays whose last two dimensions are square. Images of fewer pixels than others show the same ground, so
        ``crop`` must be a whole number of pixels in all of them. Raises ``RequestError`` where it is not, or too large.
        ``Batches(…, augment=…)`` makes the same while tiles are copied, which costs far less.
        """
        ids = [str(name) for name in batch["patch"]]
        images = {name: values for name, values in batch.items() if _is_image(values, len(ids))}
        changes = self.changes(ids, epoch, [values.shape[-1] for values in images.values()])
        changed = dict(batch)
        for name, values in images.items():
            changed[name] = _turned(self._cropped(values, changes.corner, changes.most), changes.turn)
        return changed

    def changes(self, ids: Sequence[str], epoch: int, sides: Iterable[int]) -> Changes:
        """Return what happens to patches in an epoch; ``sides`` are those of their images, in pixels. Raises as a call does."""
        draws, sides = _draws(ids, self.seed, epoch), set(sides)
        most = max(sides, default=0)
        turn = (draws[:, 2] % 4 if self.turns else np.zeros(len(ids), np.uint64)) + (
            draws[:, 3] % 2 * 4 if self.flips else np.zeros(len(ids), np.uint64)
        )
        return Changes(turn.astype(np.int64), self._corners(draws, sides, most), self.crop, most)

    def _corners(self, draws: NDArray[np.uint64], sides: set[int], most: int) -> NDArray[np.int64]:
        """Return (patch, [top, left]) in steps that are whole pixels of all images."""
        if self.crop is None or not sides:
            return np.zeros((len(draws), 2), np.int64)
        step = int(np.lcm.reduce([most // side for side in sides]))
        uneven = any(most % side for side in sides)
        if not 0 < self.crop <= most or self.crop % step or uneven:
            raise RequestError(f"crop is {self.crop}: expected a multiple of {step} of at most {most} pixels")
        return np.asarray(draws[:, :2] % np.uint64((most - self.crop) // step + 1), np.int64) * step

    def _cropped(self, values: Array, places: NDArray[np.int64], most: int) -> Array:
        if self.crop is None:
            return values
        side, factor = self.crop * values.shape[-1] // most, most // values.shape[-1]
        windows = sliding_window_view(values, (side, side), axis=(-2, -1))
        rows = np.arange(len(values))
        top, left = (places // factor).T
        return np.asarray(np.moveaxis(windows, (-4, -3), (1, 2))[rows, top, left])


def _is_image(values: Any, patches: int) -> bool:
    shape: tuple[int, ...] = tuple(getattr(values, "shape", ()))
    return len(shape) > 2 and shape[0] == patches and shape[-1] == shape[-2] > 1


def _turned(values: Array, turn: NDArray[np.int64]) -> Array:
    """Return patches turned by ``turn`` (patch): quarters, and 4 more for the mirror image."""
    out = np.empty_like(values)
    for kind in np.unique(turn).tolist():
        chosen = turn == kind
        out[chosen] = turned(values[chosen], kind)
    return out


def _draws(ids: Sequence[str], seed: int, epoch: int) -> NDArray[np.uint64]:
    """Return four random numbers for each patch (patch, 4)."""
    key = blake2b(f"{seed} {epoch}".encode(), digest_size=32).digest()
    hashes = b"".join(blake2b(name.encode(), key=key, digest_size=32).digest() for name in ids)
    return np.frombuffer(hashes, "<u8").reshape(-1, 4)
