"""Q2ⁿ against its definition, written once more with quaternions by their table, and against Wang and Bovik's Q."""

from __future__ import annotations

import numpy as np
import pytest

from cube.errors import RequestError
from cube.tasks import q2n

TABLE = {
    (0, 0): (0, 1), (0, 1): (1, 1), (0, 2): (2, 1), (0, 3): (3, 1),
    (1, 0): (1, 1), (1, 1): (0, -1), (1, 2): (3, 1), (1, 3): (2, -1),
    (2, 0): (2, 1), (2, 1): (3, -1), (2, 2): (0, -1), (2, 3): (1, 1),
    (3, 0): (3, 1), (3, 1): (2, 1), (3, 2): (1, -1), (3, 3): (0, -1),
}  # fmt: skip
"""Hamilton's: i j = k and so on."""


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.zeros(np.broadcast_shapes(a.shape, b.shape))
    for (left, right), (place, sign) in TABLE.items():
        out[..., place] += sign * a[..., left] * b[..., right]
    return out


def q4(made: np.ndarray, true: np.ndarray) -> float:
    """Return the index of one block of four bands, (covariance by lengths and means) as published."""
    one, two = (part.reshape(4, -1).T.astype(float) for part in (true, made))
    mean, spread = one.mean(axis=0), one.std(axis=0, ddof=1)
    one, two = (one - mean) / spread + 1, (two - mean) / spread + 1
    turned = two * np.array([1, -1, -1, -1])
    count = len(one)
    middle, other = one.mean(axis=0), turned.mean(axis=0)
    covariance = count / (count - 1) * (product(one, turned).mean(axis=0) - product(middle, other))
    variances = sum(
        count / (count - 1) * ((part**2).sum(axis=1).mean() - (part.mean(axis=0) ** 2).sum()) for part in (one, two)
    )
    lengths = np.linalg.norm(middle), np.linalg.norm(other)
    bias = 2 * lengths[0] * lengths[1] / (lengths[0] ** 2 + lengths[1] ** 2)
    return float(np.linalg.norm(covariance) * 2 / variances * bias)


def test_four_bands_are_quaternions() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 1000, (4, 16, 16))
    made = true + rng.normal(0, 200, true.shape)
    assert q2n(made, true, window=16) == pytest.approx(q4(made, true))
    three = q2n(made[:3], true[:3], window=16)
    filled = [np.concatenate([part[:3], np.zeros((1, 16, 16))]) for part in (made, true)]
    assert three == pytest.approx(q2n(*filled, window=16), abs=1e-6)


def test_one_band_is_the_index_of_wang_and_bovik() -> None:
    rng = np.random.default_rng(1)
    true = rng.uniform(1, 2, (1, 8, 8))
    made = true + rng.normal(0, 0.3, true.shape)
    mean, spread = true.mean(), true.std(ddof=1)
    x, y = ((part.ravel() - mean) / spread + 1 for part in (true, made))
    wanted = 4 * np.cov(x, y)[0, 1] * x.mean() * y.mean() / ((x.var(ddof=1) + y.var(ddof=1)) * (x.mean() ** 2 + y.mean() ** 2))
    assert q2n(made, true, window=8) == pytest.approx(abs(wanted))


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 8, 13])
def test_equal_pictures_have_1_and_others_less(bands: int) -> None:
    rng = np.random.default_rng(bands)
    true = rng.uniform(0, 1, (2, bands, 70, 66))
    assert q2n(true, true) == pytest.approx(1)
    shifted = q2n(true + 0.1, true)
    noisy = q2n(true + rng.normal(0, 0.5, true.shape), true)
    assert shifted.shape == (2,)
    assert (shifted < 1).all()
    assert (noisy < shifted).all()


def test_blocks_that_are_constant_compare_by_their_means() -> None:
    flat = np.full((4, 32, 32), 3.0)
    assert q2n(flat, flat) == pytest.approx(1)
    assert np.isfinite(q2n(flat + 1, flat))


def test_wrong_shapes_and_windows_are_refused() -> None:
    with pytest.raises(RequestError, match="one shape"):
        q2n(np.zeros((3, 32, 32)), np.zeros((4, 32, 32)))
    with pytest.raises(RequestError, match="expected 2 to 16"):
        q2n(np.zeros((3, 16, 16)), np.zeros((3, 16, 16)))
