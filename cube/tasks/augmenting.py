"""Augmentation of whole batches: crops, flips and quarter turns that keep all images of a patch aligned.

What happens to a patch depends on the seed, the epoch and its id alone, so it is the same with any number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cube.errors import RequestError

Array = NDArray[Any]


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
        """
        ids = [str(name) for name in batch["patch"]]
        images = {name: values for name, values in batch.items() if _is_image(values, len(ids))}
        draws = _draws(ids, self.seed, epoch)
        most = max((values.shape[-1] for values in images.values()), default=0)
        places = self._places(draws, images, most)
        turn = (draws[:, 2] % 4 if self.turns else np.zeros(len(ids), np.uint64)) + (
            draws[:, 3] % 2 * 4 if self.flips else np.zeros(len(ids), np.uint64)
        )
        changed = dict(batch)
        for name, values in images.items():
            changed[name] = _turned(self._cropped(values, places, most), turn.astype(np.int64))
        return changed

    def _places(self, draws: NDArray[np.uint64], images: Mapping[str, Array], most: int) -> NDArray[np.int64]:
        """Return (patch, [top, left]) in steps that are whole pixels of all images."""
        if self.crop is None or not images:
            return np.zeros((len(draws), 2), np.int64)
        steps = [most // side for side in {values.shape[-1] for values in images.values()}]
        step = int(np.lcm.reduce(steps))
        uneven = any(most % values.shape[-1] for values in images.values())
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
        part = values[chosen]
        part = part[..., ::-1] if kind >= 4 else part
        out[chosen] = np.rot90(part, kind % 4, axes=(-2, -1))
    return out


def _draws(ids: list[str], seed: int, epoch: int) -> NDArray[np.uint64]:
    """Return four random numbers for each patch (patch, 4)."""
    key = blake2b(f"{seed} {epoch}".encode(), digest_size=32).digest()
    hashes = b"".join(blake2b(name.encode(), key=key, digest_size=32).digest() for name in ids)
    return np.frombuffer(hashes, "<u8").reshape(-1, 4)
