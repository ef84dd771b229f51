"""Windows of radar and optical images laid beside each other: which of the pairs show the same ground?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from cube.errors import RequestError

Array = NDArray[Any]
Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs of windows, half of which match."""

    first: Places
    """(pair, [image, top, left]) in one kind of image."""
    second: Places
    """(pair, [image, top, left]) in the other."""
    matches: NDArray[np.float32]
    """(pair): 1 where both show the same ground, else 0."""
    hard: NDArray[np.bool_]
    """(pair): whether a pair that does not match is of one scene."""


def matching_pairs(scenes: ArrayLike, size: int, *, side: int, hard: float = 0.5, seed: int = 0) -> Pairs:
    """Return two pairs for each image: one of the same window, and one that does not match.

    A share ``hard`` of those that do not match are of the same scene: the same window of another of its patches, which lies
    elsewhere, or, where the scene has one patch only, a window of the same patch that overlaps by less than half. The others
    are of another scene. Source: the pairs of https://arxiv.org/abs/1801.08467, with negatives told apart.

    Parameters
    ----------
    scenes
        (image): what tells scenes apart, such as ``np.char.add(season, scene)``.
    size
        Side of the images, in pixels.
    side
        Side of the windows, in pixels.
    hard
        Share of the pairs that do not match which are of one scene.
    seed
        Decides all places.

    Raises ``RequestError`` for windows that do not fit, and where other scenes are wanted and there is one only.
    """
    names, scene = np.unique(np.asarray(scenes), return_inverse=True)
    if not 0 < side <= size:
        raise RequestError(f"windows of {side} pixels do not fit into images of {size}")
    if not 0 <= hard <= 1:
        raise RequestError(f"hard is {hard}: expected a share, 0 to 1")
    if hard < 1 and len(names) < 2:
        raise RequestError("all images are of one scene: say hard=1, as there is no other to take pairs from")
    rng, count = np.random.default_rng(seed), len(scene)
    corners = rng.integers(0, size - side + 1, (count, 2))
    here = np.column_stack([np.arange(count), corners])
    is_hard = rng.permuted(np.arange(count) < round(hard * count))
    other = here.copy()
    for row in range(count):
        same = np.flatnonzero((scene == scene[row]) == is_hard[row])
        same = same[same != row]
        other[row, 0] = rng.choice(same) if len(same) else row
        if not len(same):
            other[row, 1:] = _apart(corners[row], size, side, rng)
    return Pairs(
        first=np.concatenate([here, here]),
        second=np.concatenate([here, other]),
        matches=np.repeat(np.array([1, 0], np.float32), count),
        hard=np.concatenate([np.zeros(count, bool), is_hard]),
    )


def _apart(corner: Places, size: int, side: int, rng: np.random.Generator) -> Places:
    """Return a corner whose window overlaps that of another by less than half."""
    corners = np.stack(np.meshgrid(*[np.arange(size - side + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    shared = np.prod(np.clip(side - np.abs(corners - corner), 0, None), axis=1)
    free = corners[shared < side * side / 2]
    if not len(free):
        raise RequestError(f"images of {size} pixels have no two windows of {side} that overlap by less than half")
    return np.asarray(rng.choice(free))


def windows(images: Array, places: Places, side: int) -> Array:
    """Return windows (pair, band, y, x) of images (image, band, y, x) at ``places`` (pair, [image, top, left])."""
    if images.ndim != 4:
        raise RequestError(f"expected images (image, band, y, x), got {images.shape}")
    image, top, left = np.asarray(places).T
    found = sliding_window_view(images, (side, side), axis=(2, 3))[image, :, top, left]
    return np.ascontiguousarray(found)


def search_windows(size: int, *, side: int, reach: int, count: int, seed: int = 0) -> tuple[Places, Places, Places]:
    """Return templates to be found again in larger windows: how far two images are shifted against each other.

    Returns the corners of ``count`` templates of ``side`` pixels (template, [top, left]), the corners of the windows of
    ``side + 2 * reach`` pixels in which they are to be sought (template, [top, left]), and where in them they are
    (template, [down, right]), 0 to ``2 * reach``. Raises ``RequestError`` for windows that do not fit.
    """
    whole = side + 2 * reach
    if not 0 < side <= whole <= size or reach < 0:
        raise RequestError(f"templates of {side} pixels and {reach} more on each side do not fit into images of {size}")
    rng = np.random.default_rng(seed)
    sought = rng.integers(0, size - whole + 1, (count, 2))
    shift = rng.integers(0, 2 * reach + 1, (count, 2))
    return sought + shift, sought, shift


def correlation(template: Array, window: Array) -> NDArray[np.float64]:
    """Return the normalised cross-correlation (down, right) of a template (y, x) at each place in a window (y, x).

    0 where either is constant; 1 where they are equal up to brightness and contrast.
    """
    side = template.shape
    if template.ndim != 2 or window.ndim != 2 or any(a > b for a, b in zip(side, window.shape, strict=True)):
        raise RequestError(f"expected a template (y, x) that fits into a window (y, x), got {side} and {window.shape}")
    parts = sliding_window_view(np.asarray(window, np.float64), side)
    parts = parts - parts.mean(axis=(-2, -1), keepdims=True)
    flat = np.asarray(template, np.float64) - np.mean(template, dtype=np.float64)
    below = np.sqrt((parts**2).sum(axis=(-2, -1)) * (flat**2).sum())
    above = (parts * flat).sum(axis=(-2, -1))
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 1e-12))
