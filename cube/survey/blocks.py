"""Planes of pixels made smaller, and grey values of them. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def blocks(plane: Array, factor: int) -> Array:
    """Return the sums of the blocks of (y, x)."""
    height, width = plane.shape
    rows = plane.reshape(height // factor, factor, width).sum(axis=1, dtype=np.float64)
    return np.asarray(rows.reshape(height // factor, width // factor, factor).sum(axis=2))


def stretched(sums: Array, counts: Array, shown: tuple[float, float]) -> Array:
    """Return (tile, y, x, channel) of means (tile, channel, y, x), from 1 to 255; 0 where nothing was counted."""
    means = sums / np.maximum(counts, 1)
    grey = np.clip(np.rint((means - shown[0]) * (254 / (shown[1] - shown[0]))), 0, 254) + 1
    return np.where(counts > 0, grey, 0).astype(np.uint8).transpose(0, 2, 3, 1)
