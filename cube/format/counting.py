"""Quality counts of pixels: NaN, zero and saturated ones, and bands that have one value. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Counts:
    """Quality counts in pixels of all bands."""

    nan: int = 0
    zero: int = 0
    saturated: int = 0
    flat: Mapping[int, bytes] | None = None
    """Band → the bytes of its value, of bands in which all pixels have the same; None before anything was counted."""

    def __add__(self, other: Counts) -> Counts:
        flat = other.flat if self.flat is None else self.flat
        if self.flat is not None and other.flat is not None:
            flat = {band: value for band, value in self.flat.items() if other.flat.get(band) == value}
        return Counts(self.nan + other.nan, self.zero + other.zero, self.saturated + other.saturated, flat)

    @property
    def constant(self) -> int:
        """Bands in which all pixels have one value."""
        return len(self.flat or ())

    def __str__(self) -> str:
        return f"{self.nan} NaN, {self.zero} zero, {self.saturated} saturated pixels and {self.constant} constant bands"


def count_pixels(pixels: NDArray[Any], saturated: float | None) -> Counts:
    """Count NaN, zero and saturated pixels (band, y, x), and find the bands that have one value."""
    flat = _flat_bands(pixels)
    nan = int(np.count_nonzero(np.isnan(pixels))) if pixels.dtype.kind == "f" else 0
    zero = pixels.size - int(np.count_nonzero(pixels))
    if saturated is None or (pixels.dtype.kind != "f" and pixels.max() < saturated):
        return Counts(nan, zero, 0, flat)
    return Counts(nan, zero, zero if saturated == 0 else int(np.count_nonzero(pixels == pixels.dtype.type(saturated))), flat)


def _flat_bands(pixels: NDArray[Any]) -> dict[int, bytes]:
    words = np.ascontiguousarray(pixels).view(f"u{pixels.itemsize}").reshape(len(pixels), -1)
    first = words[:, 0]
    likely = np.flatnonzero((first == words[:, -1]) & (first == words[:, words.shape[1] // 2])).tolist()
    return {band: first[band].tobytes() for band in likely if (words[band] == first[band]).all()}
