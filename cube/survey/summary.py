"""What a survey found, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Key = tuple[str, int]
"""Season and scene."""


@dataclass(frozen=True, kw_only=True)
class BandStatistics:
    """One band, every distinct pixel counted once."""

    count: int
    """Pixels that are numbers."""
    nan: int
    """Pixels that are not, or infinite; they are in nothing else."""
    minimum: float | None
    maximum: float | None
    mean: float | None
    stddev: float | None
    """Population standard deviation; like the others None where ``count`` is 0."""
    histogram: tuple[int, ...]
    """Sampled pixels by bin: of every eighth row and column of a tile, of 8-bit bands all. The range is the recipe's; the
    outer bins hold what lies beyond."""


class PatchClasses(NamedTuple):
    """How much of each patch each class of one legend covers."""

    codes: tuple[int, ...]
    shares: NDArray[np.float32]
    """(patch, class): 0 to 1, of all pixels of the patch; NaN where it has no such image."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Statistics of a cube or of one of its scenes."""

    bands: Mapping[str, tuple[BandStatistics, ...]]
    """Modality → its bands."""
    classes: Mapping[str, Mapping[str, float]]
    """Legend → class name → share of the distinct pixels; only classes that occur."""

    def document(self) -> dict[str, Any]:
        """Return the summary as plain data."""
        bands = {name: [vars(band) | {"histogram": list(band.histogram)} for band in of] for name, of in self.bands.items()}
        return {"bands": bands, "classes": {name: dict(shares) for name, shares in self.classes.items()}}


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the pixels of a cube say."""

    whole: Summary
    scenes: Mapping[Key, Summary]
    """In the order of the cube."""
    grounded: Mapping[Key, bool]
    """Whether each piece of ground counted once; otherwise each distinct tile of a shard did."""
    drawn: Mapping[Key, bool]
    """Whether the overviews are maps; otherwise they show the patches side by side."""
    tiles: Mapping[str, tuple[int, int]]
    """Modality → tiles of all patches, and tiles stored for them."""
    patch_classes: Mapping[str, PatchClasses]
    """By legend, in the recipe's order; only legends that a band has."""
    overviews: Mapping[Key, Mapping[str, bytes]]
    """Scene → modality → PNG, 0 transparent."""
    reduction: Mapping[str, int]
    """Modality → its pixels along one side that one pixel of an overview stands for."""

    def document(self) -> dict[str, Any]:
        """Return the figures as plain data, without pictures and patches."""
        scenes = {f"{season}-{scene}": summary.document() for (season, scene), summary in self.scenes.items()}
        return {"whole": self.whole.document(), "scenes": scenes}
