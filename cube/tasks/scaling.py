"""Values as networks take them, and the target of colourisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cube.errors import RequestError

Floats = NDArray[np.floating[Any]]


def scaled(values: NDArray[Any], low: float, high: float, *, nan: float = 0.0) -> NDArray[np.float32]:
    """Return values between ``low`` and ``high`` as 0 to 1, float32, others cut off; NaN counts as ``nan`` before that.

    Published for Sentinel-1 in dB: ``scaled(s1, -25, 0)``, which is clip(−25, 0) / 25 + 1 with NaN taken for 0; for Sentinel-2
    reflectance × 10,000: ``scaled(s2, 0, 10_000)``. Source: the code of https://arxiv.org/abs/2104.00704.
    """
    if not low < high:
        raise RequestError(f"{low} to {high}: expected a smaller and a larger value")
    filled = np.nan_to_num(values.astype(np.float32), nan=nan, posinf=high, neginf=low)
    np.clip(filled, low, high, out=filled)
    filled -= np.float32(low)
    filled /= np.float32(high - low)
    return filled


def standardized(values: NDArray[Any], means: ArrayLike, deviations: ArrayLike) -> NDArray[np.float32]:
    """Return (…, band, y, x) as float32 with the mean of each band 0 and its standard deviation 1; NaN becomes 0.

    Means and deviations of a cube stand in its collection (``bands[…].statistics``), counted while it was verified.
    """
    mean, deviation = (np.asarray(part, np.float32)[:, None, None] for part in (means, deviations))
    if mean.shape[0] != values.shape[-3] or deviation.shape != mean.shape or not (deviation > 0).all():
        raise RequestError(f"expected a mean and a deviation above 0 for each of {values.shape[-3]} bands")
    return np.asarray(np.nan_to_num((values.astype(np.float32) - mean) / deviation, nan=0.0))


def color_target(backscatter: NDArray[Any], colors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the target of SAR colourisation: colours (…, 3, y, x) whose intensity is that of the radar image.

    ``backscatter`` is (…, y, x), co-polarised. With I the mean of the three colours, D = (VV − mean(VV)) · std(I) / std(VV) +
    mean(I) − I is added to each; mean and deviation are those of the patch. D is mean(I) − I where the radar image is constant.
    Source: Shen et al. (2023), https://arxiv.org/abs/2310.08705.
    """
    if colors.shape[-3] != 3 or backscatter.shape != (*colors.shape[:-3], *colors.shape[-2:]):
        raise RequestError(f"expected (…, 3, y, x) and (…, y, x), got {colors.shape} and {backscatter.shape}")
    color, radar = colors.astype(np.float64), backscatter.astype(np.float64)
    intensity = color.mean(axis=-3)

    def mean(of: Floats) -> Floats:
        return np.asarray(of.mean(axis=(-2, -1), keepdims=True))

    spread = radar.std(axis=(-2, -1), keepdims=True)
    ratio = np.divide(intensity.std(axis=(-2, -1), keepdims=True), spread, out=np.zeros_like(spread), where=spread > 0)
    difference = (radar - mean(radar)) * ratio + mean(intensity) - intensity
    return np.asarray((color + difference[..., None, :, :]).astype(np.float32))
