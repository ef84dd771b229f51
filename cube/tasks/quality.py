"""Q2ⁿ, the quality index of images of several bands: all bands of a pixel are one hypercomplex number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RequestError

Numbers = NDArray[np.float64]


def q2n(made: NDArray[Any], true: NDArray[Any], *, window: int = 32) -> Numbers:
    """Return the index Q2ⁿ of pictures (…, band, y, x), 1 where equal: Q4 for 3 or 4 bands, Wang and Bovik's Q for one.

    It is the mean over blocks of ``window`` × ``window`` pixels side by side; what is left over at the lower and right edges
    does not count. Bands of zeros are added up to 1, 2, 4, 8 or 16, then both blocks are scaled by mean and deviation of
    the true one, band by band, as the published code does. Blocks that are constant in both pictures compare by their means.
    Source: Garzelli and Nencini (2009), https://doi.org/10.1109/LGRS.2009.2022650; Alparone et al. (2004) for four bands.

    Raises ``RequestError`` for shapes that differ, and for a window that does not fit.
    """
    if made.shape != true.shape or made.ndim < 3:
        raise RequestError(f"expected two pictures (…, band, y, x) of one shape, got {made.shape} and {true.shape}")
    if not 1 < window <= min(true.shape[-2:]):
        raise RequestError(f"window is {window}: expected 2 to {min(true.shape[-2:])} pixels")
    first, second = (_filled(_blocks(part, window)) for part in (true, made))
    mean, deviation = first.mean(axis=-2, keepdims=True), first.std(axis=-2, ddof=1, keepdims=True)
    deviation = np.where(deviation > 0, deviation, np.finfo(np.float64).eps)
    first, second = ((part - mean) / deviation + 1 for part in (first, second))
    second[..., 1:] *= -1
    return np.asarray(_index(first, second, window * window).mean(axis=-1))


def _blocks(picture: NDArray[Any], window: int) -> Numbers:
    """Return (…, block, pixel, band)."""
    *rest, bands, height, width = picture.shape
    down, right = height // window, width // window
    cut = picture[..., : down * window, : right * window].astype(np.float64)
    parts = cut.reshape(*rest, bands, down, window, right, window)
    ahead = range(len(rest))
    last = len(rest)
    order = (*ahead, last + 1, last + 3, last + 2, last + 4, last)
    return parts.transpose(order).reshape(*rest, down * right, window * window, bands)


def _filled(numbers: Numbers) -> Numbers:
    """Return (…, 2ⁿ): parts added that are 0."""
    bands = numbers.shape[-1]
    wanted = 1 << (bands - 1).bit_length()
    return np.concatenate([numbers, np.zeros((*numbers.shape[:-1], wanted - bands))], axis=-1)


def _index(first: Numbers, second: Numbers, pixels: int) -> Numbers:
    """Return (…, block) of numbers (…, block, pixel, part), of which ``second`` are conjugates."""
    unbiased = pixels / (pixels - 1)
    means = first.mean(axis=-2), second.mean(axis=-2)
    lengths = [np.square(mean).sum(axis=-1) for mean in means]
    power = sum(np.square(part).sum(axis=-1).mean(axis=-1) for part in (first, second))
    spread = unbiased * (power - sum(lengths))
    bias = 2 * np.sqrt(lengths[0] * lengths[1]) / sum(lengths)
    covariance = unbiased * (_product(first, second).mean(axis=-2) - _product(*means))
    size = np.sqrt(np.square(covariance).sum(axis=-1))
    flat = spread < 1e-12
    return np.asarray(np.where(flat, bias, 2 * size * bias / np.where(flat, 1, spread)))


def _product(a: Numbers, b: Numbers) -> Numbers:
    """Return the product of hypercomplex numbers (…, 2ⁿ), by the construction of Cayley and Dickson."""
    half = a.shape[-1] // 2
    if not half:
        return a * b
    (a1, a2), (b1, b2) = ((part[..., :half], part[..., half:]) for part in (a, b))
    upper = _product(a1, b1) - _product(_conjugate(b2), a2)
    lower = _product(b2, a1) + _product(a2, _conjugate(b1))
    return np.concatenate([upper, lower], axis=-1)


def _conjugate(number: Numbers) -> Numbers:
    turned = -number
    turned[..., 0] *= -1
    return turned
