"""What the tiles of one shard say, counted while they are decoded: statistics, classes and small pictures. Runs on a worker.

Each distinct tile is looked at once; how often it counts, and where, follows from the ground its patches show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.ground import GroundSlice
from cube.tiles import ABSENT, TileLayout

BINS = 64
"""Bins of a histogram."""
SAMPLED = 4
"""A histogram counts the pixels of every fourth row and column."""

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class TallyJob:
    """What is counted of one modality. Small and picklable."""

    histogram: tuple[float, float]
    """Lower edge of the first bin and upper edge of the last; these two also hold what lies beyond."""
    drawn: tuple[int, ...]
    """Bands of its picture: one, or red, green and blue."""
    shown: tuple[float, float] | None
    """Values drawn darkest and brightest; None for a band of classes."""
    codes: Mapping[int, tuple[int, ...]]
    """Band of classes → the codes of its legend."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What one shard says. A last class, beyond the legend, counts all other values."""

    scenes: Array
    """(scene): which of all scenes have patches here."""
    used: int
    """Tiles of all patches."""
    stored: int
    """Tiles that are stored for them."""
    count: Array
    """(scene, band): pixels that are numbers."""
    nan: Array
    """(scene, band): pixels that are not, or infinite."""
    minimum: Array
    maximum: Array
    total: Array
    squares: Array
    """(scene, band): sums; integers, and exact, for types of up to 16 bits."""
    histogram: Array
    """(scene, band, bin)."""
    classes: Mapping[int, Array]
    """Band → (scene, class) pixels."""
    patch_classes: Mapping[int, Array]
    """Band → (patch, class) pixels of whole patches, what they share included."""
    pieces: Array
    """(piece, y, x, channel): reduced tiles, 8 bits; 0 where there is no pixel."""
    uses: Array
    """(use, [piece, scene, row, column]): where a piece lies in the picture of which of all scenes."""

    def without_pieces(self) -> Tally:
        """Return the figures alone."""
        return replace(self, pieces=self.pieces[:0].copy(), uses=self.uses[:0].copy())


def reduction(tile: int) -> int:
    """Return by what a picture is reduced: 8, or the largest smaller number that divides a tile."""
    return max(factor for factor in range(1, 9) if tile % factor == 0)


class ShardTally:
    """Counts the tiles of one shard."""

    def __init__(self, job: TallyJob, layout: TileLayout, ground: GroundSlice, kind: int, index: Array) -> None:
        """``kind`` is the place of the modality, ``index`` (slot, place, [offset, length]) the shard's index."""
        self._job, self._layout, self._ground = job, layout, ground
        offsets = index[: len(ground.scene), :, 0]
        self._stored = offsets != ABSENT
        self._offsets, inverse = np.unique(offsets[self._stored], return_inverse=True)
        self._tile = np.full(offsets.shape, -1, np.int64)
        self._tile[self._stored] = inverse
        self._owned = ground.owned[:, kind] & self._stored
        self._scenes, local = np.unique(ground.scene, return_inverse=True)
        self._weights = self._weigh(local)
        self._measures = _Measures(job, layout, len(self._offsets))
        self._at = {int(offset): place for place, offset in enumerate(self._offsets)}

    def _weigh(self, local: Array) -> Array:
        """Return (scene, tile): how many pieces of ground of a scene a tile shows."""
        weights = np.zeros((len(self._scenes), len(self._offsets)), np.int64)
        scene = np.broadcast_to(local[:, None], self._tile.shape)
        by_ground = self._owned & self._ground.grounded[:, None]
        np.add.at(weights, (scene[by_ground], self._tile[by_ground]), 1)
        by_content = self._owned & ~self._ground.grounded[:, None]
        weights[scene[by_content], self._tile[by_content]] = 1
        return weights

    def tile(self, offset: int, planes: Array) -> None:
        """Look at one decoded tile (band, y, x)."""
        if (at := self._at.get(offset)) is not None:
            self._measures.add(at, planes, counted=bool(self._weights[:, at].any()))

    def finish(self) -> Tally:
        """Return what the shard says."""
        weights, found = self._weights, self._measures

        def summed(values: Array) -> Array:
            flat = values.reshape(len(values), -1)
            return np.asarray(weights @ flat).reshape(len(weights), *values.shape[1:])

        shows = (weights > 0)[..., None]
        return Tally(
            scenes=self._scenes,
            used=int(self._stored.sum()),
            stored=len(self._offsets),
            count=summed(found.count),
            nan=summed(self._layout.tile**2 - found.count),
            minimum=np.where(shows, found.minimum, np.inf).min(axis=1, initial=np.inf),
            maximum=np.where(shows, found.maximum, -np.inf).max(axis=1, initial=-np.inf),
            total=summed(found.total),
            squares=summed(found.squares),
            histogram=summed(found.histogram),
            classes={band: summed(values) for band, values in found.classes.items()},
            patch_classes={band: self._by_patch(values) for band, values in found.classes.items()},
            pieces=found.pieces,
            uses=self._uses(),
        )

    def _by_patch(self, values: Array) -> Array:
        taken = np.where(self._stored[..., None], values[self._tile], 0) if len(values) else 0
        return np.asarray(np.broadcast_to(taken, (*self._tile.shape, values.shape[1])).sum(axis=1, dtype=np.int32))

    def _uses(self) -> Array:
        tile, across = self._layout.tile, self._layout.across
        slot, place = np.nonzero(self._owned)
        ground, factor = self._ground, reduction(tile)
        row = (ground.top[slot] + place // across * tile) // factor
        column = (ground.left[slot] + place % across * tile) // factor
        return np.stack([self._tile[slot, place], ground.scene[slot], row, column], axis=1).astype(np.int32)


class _Measures:
    """What is counted of each tile."""

    def __init__(self, job: TallyJob, layout: TileLayout, tiles: int) -> None:
        self._job = job
        dtype, bands = np.dtype(layout.dtype), layout.bands
        self._float, self._bytes = dtype.kind == "f", dtype.itemsize == 1
        exact = np.int64 if dtype.kind in "iu" and dtype.itemsize <= 2 else np.float64
        self.count = np.zeros((tiles, bands), np.int64)
        self.minimum = np.full((tiles, bands), np.inf)
        self.maximum = np.full((tiles, bands), -np.inf)
        self.total, self.squares = np.zeros((tiles, bands), exact), np.zeros((tiles, bands), exact)
        self.histogram = np.zeros((tiles, bands, BINS), np.int64)
        self.classes = {band: np.zeros((tiles, len(codes) + 1), np.int64) for band, codes in job.codes.items()}
        self._factor = reduction(layout.tile)
        side = layout.tile // self._factor
        self.pieces = np.zeros((tiles, side, side, len(job.drawn)), np.uint8)
        self._bands = np.arange(bands, dtype=np.int64)[:, None, None] * BINS

    def add(self, at: int, planes: Array, *, counted: bool) -> None:
        """Measure one tile; of one that counts for no scene only the classes, which its patches need."""
        for band, codes in self._job.codes.items():
            self.classes[band][at] = class_counts(planes[band], codes)
        if not counted:
            return
        values = planes.reshape(len(planes), -1)
        doubles = values.astype(np.float64)
        finite = np.isfinite(doubles) if self._float else None
        if finite is None or finite.all():
            finite = None
            self.count[at] = values.shape[1]
            self.minimum[at], self.maximum[at] = values.min(axis=1), values.max(axis=1)
        else:
            self.count[at] = finite.sum(axis=1)
            self.minimum[at] = np.where(finite, doubles, np.inf).min(axis=1)
            self.maximum[at] = np.where(finite, doubles, -np.inf).max(axis=1)
            doubles = np.where(finite, doubles, 0.0)
        # Whole numbers below 2**53: sums of doubles are exact for types of up to 16 bits.
        self.total[at] = doubles.sum(axis=1)
        self.squares[at] = np.einsum("ij,ij->i", doubles, doubles)
        self._bin(at, planes)
        self._draw(at, planes, doubles.reshape(planes.shape), finite)

    def _bin(self, at: int, planes: Array) -> None:
        low, high = self._job.histogram
        sample = planes[:, ::SAMPLED, ::SAMPLED]
        places = np.clip((sample - np.float64(low)) * (BINS / (high - low)), 0, BINS - 1)
        if self._float:
            kept = np.isfinite(sample)
            keys = np.where(kept, places, 0).astype(np.int64) + self._bands
            keys = keys[kept]
        else:
            keys = (places.astype(np.int64) + self._bands).ravel()
        self.histogram[at] = np.bincount(keys, minlength=self.histogram[at].size).reshape(-1, BINS)

    def _draw(self, at: int, planes: Array, doubles: Array, finite: Array | None) -> None:
        factor, shown = self._factor, self._job.shown
        if shown is None:
            middle = planes[self._job.drawn[0], factor // 2 :: factor, factor // 2 :: factor]
            self.pieces[at, ..., 0] = class_places(middle, self._job.codes[self._job.drawn[0]])
            return
        drawn = list(self._job.drawn)
        sums = _blocks(doubles[drawn], factor)
        counts: Any = factor**2
        if finite is not None:
            counts = _blocks(finite.reshape(planes.shape)[drawn].astype(np.float64), factor)
        means = sums / np.maximum(counts, 1)
        grey = np.clip(np.rint((means - shown[0]) * (254 / (shown[1] - shown[0]))), 0, 254) + 1
        self.pieces[at] = np.where(counts > 0, grey, 0).transpose(1, 2, 0)


def _blocks(values: Array, factor: int) -> Array:
    """Return the sums of the blocks of (band, y, x)."""
    bands, height, width = values.shape
    rows = values.reshape(bands, height // factor, factor, width).sum(axis=2)
    return np.asarray(rows.reshape(bands, height // factor, width // factor, factor).sum(axis=3))


def class_counts(plane: Array, codes: tuple[int, ...]) -> Array:
    """Return how many pixels each class has, and last all other values."""
    if plane.dtype == np.uint8:
        counts = np.bincount(plane.reshape(-1), minlength=256)
        found = np.array([counts[code] if 0 <= code < 256 else 0 for code in codes], np.int64)
    else:
        values, counts = np.unique(plane, return_counts=True)
        known = dict(zip(values.tolist(), counts.tolist(), strict=True))
        found = np.array([known.get(code, 0) for code in codes], np.int64)
    return np.append(found, plane.size - found.sum())


def class_places(plane: Array, codes: tuple[int, ...]) -> Array:
    """Return for each pixel the place of its class in the legend, counted from 1; 0 for other values."""
    order = np.argsort(codes)
    known = np.asarray(codes)[order]
    at = np.minimum(np.searchsorted(known, plane), len(known) - 1)
    return np.where(known[at] == plane, order[at] + 1, 0).astype(np.uint8)
