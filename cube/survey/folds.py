"""The tallies of one modality folded into one, scene by scene; it can go on from what an earlier fold held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.format.tiles import TileLayout
from cube.survey.summary import BandStatistics
from cube.survey.tally import BINS, Tally, TallyJob

Array = NDArray[Any]

_SUMS = ("count", "nan", "minimum", "maximum", "total", "squares", "histogram")
"""Counts of a fold, by scene and band."""


@dataclass(kw_only=True)
class Fold:
    """The tallies of one modality, scene by scene."""

    used: int
    stored: int
    whole_numbers: bool
    count: Array
    nan: Array
    minimum: Array
    maximum: Array
    total: Array
    squares: Array
    histogram: Array
    classes: dict[int, Array]
    patches: dict[int, list[Array]]

    @classmethod
    def of(cls, job: TallyJob, layout: TileLayout, scenes: int, before: Mapping[str, Array]) -> Fold:
        """Return the fold of so many scenes that holds what ``values`` gave before, or nothing."""
        fold = cls._empty(job, layout, scenes)
        if before:
            fold.used, fold.stored = before["tiles"].tolist()
            for name in _SUMS:
                values = getattr(fold, name)
                values[: len(before[name])] = before[name]
            for band, counts in fold.classes.items():
                counts[: len(before[f"classes_{band}"])] = before[f"classes_{band}"]
                fold.patches[band].append(before[f"patches_{band}"])
        return fold

    def values(self) -> dict[str, Array]:
        """Return all that it holds, by names."""
        values: dict[str, Array] = {"tiles": np.array([self.used, self.stored])}
        values |= {name: getattr(self, name) for name in _SUMS}
        values |= {f"classes_{band}": counts for band, counts in self.classes.items()}
        return values | {f"patches_{band}": np.concatenate(counts) for band, counts in self.patches.items()}

    @classmethod
    def _empty(cls, job: TallyJob, layout: TileLayout, scenes: int) -> Fold:
        shape = scenes, layout.bands
        dtype = np.dtype(layout.dtype)
        exact = np.int64 if dtype.kind in "iu" and dtype.itemsize <= 2 else np.float64
        return cls(
            used=0,
            stored=0,
            whole_numbers=dtype.kind in "iu",
            count=np.zeros(shape, np.int64),
            nan=np.zeros(shape, np.int64),
            minimum=np.full(shape, np.inf),
            maximum=np.full(shape, -np.inf),
            total=np.zeros(shape, exact),
            squares=np.zeros(shape, exact),
            histogram=np.zeros((*shape, BINS), np.int64),
            classes={band: np.zeros((scenes, len(codes) + 1), np.int64) for band, codes in job.codes.items()},
            patches={band: [] for band in job.codes},
        )

    def add(self, tally: Tally) -> None:
        """Add what a shard says."""
        self.used, self.stored = self.used + tally.used, self.stored + tally.stored
        at = tally.scenes
        for name in ("count", "nan", "total", "squares", "histogram"):
            getattr(self, name)[at] += getattr(tally, name)
        self.minimum[at] = np.minimum(self.minimum[at], tally.minimum)
        self.maximum[at] = np.maximum(self.maximum[at], tally.maximum)
        for band, counts in tally.classes.items():
            self.classes[band][at] += counts
            self.patches[band].append(tally.patch_classes[band])

    def statistics(self, scene: int | None) -> tuple[BandStatistics, ...]:
        """Return the statistics of one scene, or of all together."""
        rows = slice(None) if scene is None else slice(scene, scene + 1)
        return tuple(self._band(rows, band) for band in range(self.count.shape[1]))

    def _band(self, rows: slice, band: int) -> BandStatistics:
        count, nan = int(self.count[rows, band].sum()), int(self.nan[rows, band].sum())
        histogram = tuple(self.histogram[rows, band].sum(axis=0).tolist())
        if not count:
            nothing = dict.fromkeys(("minimum", "maximum", "mean", "stddev"))
            return BandStatistics(count=0, nan=nan, histogram=histogram, **nothing)
        total = Fraction(sum(map(Fraction, self.total[rows, band].tolist())))
        squares = Fraction(sum(map(Fraction, self.squares[rows, band].tolist())))
        mean = total / count
        number = int if self.whole_numbers else float
        return BandStatistics(
            count=count,
            nan=nan,
            minimum=number(self.minimum[rows, band].min()),
            maximum=number(self.maximum[rows, band].max()),
            mean=_rounded(float(mean)),
            stddev=_rounded(sqrt(max(Fraction(0), squares / count - mean**2))),
            histogram=histogram,
        )


def _rounded(value: float) -> float:
    """Return nine significant digits: the last bits of a sum of floats differ from machine to machine."""
    return float(f"{value:.9g}")
