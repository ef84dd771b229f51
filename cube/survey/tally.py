"""What the tiles of one shard say, counted while they are decoded: statistics, classes and small pictures. Runs on a worker.

Each distinct tile is looked at once; how often it counts, and where, follows from the ground its patches show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cube.format.tiles import ABSENT, TileLayout
from cube.survey.blocks import Array, blocks, stretched
from cube.survey.ground import GroundSlice

BINS = 64
"""Bins of a histogram."""
SAMPLED = 8
"""A histogram counts the pixels of every eighth row and column of a tile; of bytes it counts all."""


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
        self._weights = self._weigh(local, slice(None)) - self._weigh(local, slice(ground.counted))
        measures = _ByteMeasures if layout.dtype == "<u1" else _Measures
        self._measures: _Measures | _ByteMeasures = measures(job, layout, len(self._offsets))
        self._at = {int(offset): place for place, offset in enumerate(self._offsets)}

    def _weigh(self, local: Array, rows: slice) -> Array:
        """Return (scene, tile): how many pieces of ground of a scene a tile shows in some patches."""
        weights = np.zeros((len(self._scenes), len(self._offsets)), np.int64)
        tile, owned, grounded = self._tile[rows], self._owned[rows], self._ground.grounded[rows, None]
        scene = np.broadcast_to(local[rows, None], tile.shape)
        np.add.at(weights, (scene[owned & grounded], tile[owned & grounded]), 1)
        weights[scene[owned & ~grounded], tile[owned & ~grounded]] = 1
        return weights

    def tile(self, offset: int, planes: Array) -> None:
        """Look at one decoded tile (band, y, x)."""
        if (at := self._at.get(offset)) is not None:
            self._measures.add(at, planes, counted=bool(self._weights[:, at].any()))

    def finish(self) -> Tally:
        """Return what the shard says."""
        weights, found = self._weights, self._measures

        def summed(values: Array) -> Array:
            return np.asarray(np.tensordot(weights, values, axes=1))

        shows, before = (weights > 0)[..., None], self._stored[: self._ground.counted]
        return Tally(
            scenes=self._scenes,
            used=int(self._stored[self._ground.counted :].sum()),
            stored=len(self._offsets) - len(np.unique(self._tile[: self._ground.counted][before])),
            count=summed(found.count),
            nan=summed(self._layout.tile**2 - found.count),
            minimum=np.where(shows, found.minimum, np.inf).min(axis=1, initial=np.inf),
            maximum=np.where(shows, found.maximum, -np.inf).max(axis=1, initial=-np.inf),
            total=summed(found.total),
            squares=summed(found.squares),
            histogram=summed(found.histogram()),
            classes={band: summed(values) for band, values in found.classes.items()},
            patch_classes={band: self._by_patch(values) for band, values in found.classes.items()},
            pieces=found.pieces(),
            uses=self._uses(),
        )

    def _by_patch(self, values: Array) -> Array:
        tile, stored = (part[self._ground.counted :] for part in (self._tile, self._stored))
        taken = np.where(stored[..., None], values[tile], 0) if len(values) else 0
        return np.asarray(np.broadcast_to(taken, (*tile.shape, values.shape[1])).sum(axis=1, dtype=np.int32))

    def _uses(self) -> Array:
        tile, across = self._layout.tile, self._layout.across
        slot, place = np.nonzero(self._owned[self._ground.counted :])
        slot = slot + self._ground.counted
        ground, factor, side = self._ground, reduction(tile), self._layout.size
        row = (ground.top[slot] * side // ground.side + place // across * tile) // factor
        column = (ground.left[slot] * side // ground.side + place % across * tile) // factor
        return np.stack([self._tile[slot, place], ground.scene[slot], row, column], axis=1).astype(np.int32)


class _Measures:
    """What is counted of each tile of numbers. What can wait is done for all tiles together."""

    def __init__(self, job: TallyJob, layout: TileLayout, tiles: int) -> None:
        dtype, shape, side = np.dtype(layout.dtype), (tiles, layout.bands), layout.tile
        exact = np.int64 if dtype.kind in "iu" and dtype.itemsize <= 2 else np.float64
        self.count = np.zeros(shape, np.int64)
        self.minimum, self.maximum = np.full(shape, np.inf), np.full(shape, -np.inf)
        self.total, self.squares = np.zeros(shape, exact), np.zeros(shape, exact)
        self.classes = {band: np.zeros((tiles, len(codes) + 1), np.int64) for band, codes in job.codes.items()}
        self._job, self._float, self._factor = job, dtype.kind == "f", reduction(side)
        self._samples = np.full((*shape, -(-side // SAMPLED), -(-side // SAMPLED)), np.nan)
        small = tiles, len(job.drawn), side // self._factor, side // self._factor
        self._sums, self._counts = np.zeros(small), np.zeros(small)
        self._doubles = np.empty((layout.bands, side, side))
        self._rows = self._doubles.reshape(layout.bands, self._factor, -1)
        self._ones = np.ones(self._rows.shape[2])

    def add(self, at: int, planes: Array, *, counted: bool) -> None:
        """Measure one tile; of one that counts for no scene only the classes, which its patches need."""
        for band, codes in self._job.codes.items():
            found = [np.count_nonzero(planes[band] == code) for code in codes]
            self.classes[band][at] = [*found, planes[band].size - sum(found)]
        if not counted:
            return
        np.copyto(self._doubles, planes)
        finite = np.isfinite(planes) if self._float else None
        if finite is None or finite.all():
            values = planes.reshape(len(planes), -1)
            self.count[at], self._counts[at] = values.shape[1], self._factor**2
            self.minimum[at], self.maximum[at] = values.min(axis=1), values.max(axis=1)
        else:
            self._skip(at, planes, finite)
        # Whole numbers below 2**53: sums of doubles are exact for types of up to 16 bits. Short rows keep BLAS on one thread.
        self.total[at] = np.vecdot(self._rows, self._ones).sum(axis=1)
        self.squares[at] = np.vecdot(self._rows, self._rows).sum(axis=1)
        self._samples[at] = planes[:, ::SAMPLED, ::SAMPLED]
        for channel, band in enumerate(self._job.drawn):
            self._sums[at, channel] = blocks(self._doubles[band], self._factor)

    def _skip(self, at: int, planes: Array, finite: Array) -> None:
        """Leave out what is no number."""
        self.count[at] = finite.sum(axis=(1, 2))
        self.minimum[at] = np.where(finite, planes, np.inf).min(axis=(1, 2))
        self.maximum[at] = np.where(finite, planes, -np.inf).max(axis=(1, 2))
        self._doubles[~finite] = 0.0
        self._counts[at] = [blocks(finite[band].astype(np.float64), self._factor) for band in self._job.drawn]

    def histogram(self) -> Array:
        """Return (tile, band, bin)."""
        tiles, bands = self.count.shape
        kept = np.isfinite(self._samples)
        places = _bins(np.where(kept, self._samples, 0.0), self._job.histogram)
        places += np.arange(tiles * bands).reshape(tiles, bands, 1, 1) * BINS
        return np.bincount(places[kept], minlength=tiles * bands * BINS).reshape(tiles, bands, BINS)

    def pieces(self) -> Array:
        """Return (tile, y, x, channel)."""
        assert self._job.shown is not None
        return stretched(self._sums, self._counts, self._job.shown)


class _ByteMeasures:
    """What is counted of each tile of bytes: how often each value occurs says everything."""

    def __init__(self, job: TallyJob, layout: TileLayout, tiles: int) -> None:
        self._job, self._factor, side = job, reduction(layout.tile), layout.tile
        self._values = np.zeros((tiles, layout.bands, 256), np.int64)
        self._small = np.zeros((tiles, len(job.drawn), side // self._factor, side // self._factor))
        self._keys = np.arange(layout.bands)[:, None, None] * 256

    def add(self, at: int, planes: Array, *, counted: bool) -> None:
        """Measure one tile; one that counts for no scene is needed for the classes of its patches."""
        # Land cover is enlarged from coarse cells: most rows equal the one above, and one of them speaks for all.
        starts = np.flatnonzero(np.append(True, (planes[:, 1:] != planes[:, :-1]).any(axis=(0, 2))))
        rows = planes[:, starts]
        lengths = np.broadcast_to(np.diff(starts, append=planes.shape[1])[:, None], rows.shape)
        counts = np.bincount((rows + self._keys).reshape(-1), lengths.reshape(-1), self._values[at].size)
        self._values[at] = counts.reshape(-1, 256)
        middle, step = self._factor // 2, self._factor
        for channel, band in enumerate(self._job.drawn if counted else ()):
            plane = planes[band]
            nearest = self._job.shown is None
            self._small[at, channel] = plane[middle::step, middle::step] if nearest else blocks(plane, step)

    @property
    def count(self) -> Array:
        """(tile, band): pixels."""
        return np.asarray(self._values.sum(axis=2))

    @property
    def minimum(self) -> Array:
        """(tile, band)."""
        return np.asarray((self._values > 0).argmax(axis=2), np.float64)

    @property
    def maximum(self) -> Array:
        """(tile, band)."""
        return np.asarray(255.0 - (self._values[..., ::-1] > 0).argmax(axis=2))

    @property
    def total(self) -> Array:
        """(tile, band)."""
        return np.asarray(self._values @ np.arange(256))

    @property
    def squares(self) -> Array:
        """(tile, band)."""
        return np.asarray(self._values @ np.arange(256) ** 2)

    @property
    def classes(self) -> dict[int, Array]:
        """Band → (tile, class)."""
        found = {}
        for band, codes in self._job.codes.items():
            listed = np.array([code if 0 <= code < 256 else 256 for code in codes])
            counts = np.pad(self._values[:, band], ((0, 0), (0, 1)))[:, listed]
            found[band] = np.append(counts, self.count[:, [band]] - counts.sum(axis=1, keepdims=True), axis=1)
        return found

    def histogram(self) -> Array:
        """Return (tile, band, bin)."""
        edges = np.searchsorted(_bins(np.arange(256), self._job.histogram), np.arange(BINS + 1))
        below = np.pad(self._values.cumsum(axis=2), ((0, 0), (0, 0), (1, 0)))
        return np.asarray(below[..., edges[1:]] - below[..., edges[:-1]])

    def pieces(self) -> Array:
        """Return (tile, y, x, channel)."""
        if self._job.shown is not None:
            return stretched(self._small, np.full(self._small.shape, self._factor**2), self._job.shown)
        places = np.zeros(256, np.uint8)
        for place, code in enumerate(self._job.codes[self._job.drawn[0]], 1):
            places[code] = place
        return places[self._small.astype(np.uint8)].transpose(0, 2, 3, 1)


def _bins(values: Array, between: tuple[float, float]) -> Array:
    low, high = between
    return np.asarray(np.clip((values - low) * (BINS / (high - low)), 0, BINS - 1), np.int64)
