"""How far a picture is from the one it should be: measures of colourisation and of artificial optical images.

Pictures are (…, band, y, x); one number comes back for each, as float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RequestError

Numbers = NDArray[np.float64]


def psnr(made: NDArray[Any], true: NDArray[Any], *, peak: float) -> Numbers:
    """Return the peak signal-to-noise ratio in dB over all bands, infinite where equal; ``peak`` is the largest value."""
    error = np.square(np.subtract(*_pair(made, true))).mean(axis=(-3, -2, -1))
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(peak**2 / error))


def nrmse(made: NDArray[Any], true: NDArray[Any]) -> Numbers:
    """Return the root of the mean squared error by that of the mean squared true value, band by band, and their mean.

    Bands that are 0 everywhere count as NaN. Source: https://arxiv.org/abs/2310.08705.
    """
    first, second = _pair(made, true)
    error, power = (np.square(part).mean(axis=(-2, -1)) for part in (first - second, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(power > 0, np.sqrt(error / power), np.nan).mean(axis=-1))


def spectral_angle(made: NDArray[Any], true: NDArray[Any]) -> Numbers:
    """Return the mean angle between the spectra of pixels, in degrees; pixels that are 0 in either picture do not count.

    Source: Kruse et al. (1993), https://doi.org/10.1016/0034-4257(93)90013-N.
    """
    first, second = _pair(made, true)
    product = (first * second).sum(axis=-3)
    length = np.sqrt(np.square(first).sum(axis=-3) * np.square(second).sum(axis=-3))
    cosine = np.divide(product, length, out=np.full_like(product, np.nan), where=length > 0)
    counted = np.isfinite(cosine)
    angles = np.where(counted, np.degrees(np.arccos(np.clip(np.where(counted, cosine, 1), -1, 1))), 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(angles.sum(axis=(-2, -1)) / counted.sum(axis=(-2, -1)))


def ssim(made: NDArray[Any], true: NDArray[Any], *, peak: float, window: int = 7) -> Numbers:
    """Return the mean structural similarity over all bands, in square windows of ``window`` pixels that weigh all alike.

    The constants are (0.01 · peak)² and (0.03 · peak)², variances are unbiased: the values are those of scikit-image's
    ``structural_similarity``. Source: Wang et al. (2004), https://doi.org/10.1109/TIP.2003.819861.
    """
    first, second = _pair(made, true)
    if window % 2 != 1 or window > min(first.shape[-2:]):
        raise RequestError(f"window is {window}: expected an odd number of at most {min(first.shape[-2:])}")
    count = window**2
    mean_first, mean_second = _means(first, window), _means(second, window)
    unbiased = count / (count - 1)
    variance_first = unbiased * (_means(first**2, window) - mean_first**2)
    variance_second = unbiased * (_means(second**2, window) - mean_second**2)
    covariance = unbiased * (_means(first * second, window) - mean_first * mean_second)
    low, high = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    above = (2 * mean_first * mean_second + low) * (2 * covariance + high)
    below = (mean_first**2 + mean_second**2 + low) * (variance_first + variance_second + high)
    return np.asarray((above / below).mean(axis=(-3, -2, -1)))


def _means(values: Numbers, window: int) -> Numbers:
    """Return the means of all whole windows (…, y, x)."""
    sums = np.pad(values, [*[(0, 0)] * (values.ndim - 2), (1, 0), (1, 0)]).cumsum(axis=-2).cumsum(axis=-1)
    of_window = (
        sums[..., window:, window:]
        - sums[..., :-window, window:]
        - sums[..., window:, :-window]
        + sums[..., :-window, :-window]
    )
    return np.asarray(of_window / window**2)


def _pair(made: NDArray[Any], true: NDArray[Any]) -> tuple[Numbers, Numbers]:
    if made.shape != true.shape or made.ndim < 3:
        raise RequestError(f"expected two pictures (…, band, y, x) of one shape, got {made.shape} and {true.shape}")
    return made.astype(np.float64), true.astype(np.float64)
