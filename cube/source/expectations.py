"""What every patch file of a modality must be, and what a recipe expects of its files. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cube.errors import RejectedFile
from cube.recipes.recipe import Recipe
from cube.source.tiff_header import Claim

if TYPE_CHECKING:
    from cube.source.rasters import Raster

_SPARE_BYTES, _BLOCK_BYTES = 2**22, 2**24
"""Bytes that a file of the smallest image may have, and a tile of it when decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What every file of one modality must be."""

    dtype: str
    """NumPy name, such as ``uint16``."""
    size: int
    """Height and width in pixels."""
    bands: int
    georeferenced: bool
    """Whether a file must carry a CRS and a transform."""
    files: int = 1
    """Files of one image: as many as bands where each is a file of its own."""

    @property
    def of_file(self) -> Expectation:
        """What each file of an image must be."""
        return self if self.files == 1 else replace(self, bands=self.bands // self.files, files=1)

    @property
    def pixel_bytes(self) -> int:
        """Decoded bytes of one image."""
        return self.size**2 * self.bands * np.dtype(self.dtype).itemsize

    @property
    def file_bytes(self) -> int:
        """Most bytes of a file: twice its pixels, for those compress badly or come with overviews, and room for all else."""
        return 2 * self.pixel_bytes + _SPARE_BYTES

    @property
    def block_bytes(self) -> int:
        """Most bytes of one decoded tile: blocks of a small image may be larger than the image."""
        return max(4 * self.pixel_bytes, _BLOCK_BYTES)

    @property
    def decoding_bytes(self) -> int:
        """Most memory that decoding one file takes: its bytes, one tile, and its pixels in both orders."""
        return self.file_bytes + self.block_bytes + 2 * self.pixel_bytes

    def check_size(self, size: int) -> None:
        """Raise ``RejectedFile`` if a file has more bytes than any file of this kind needs."""
        if size > self.file_bytes:
            kind = f"{self.size} × {self.size} pixels of {self.bands} bands of {self.dtype}"
            raise RejectedFile("too large", f"{size:,} bytes, more than {self.file_bytes:,} for {kind}")

    def check_claim(self, claim: Claim) -> None:
        """Raise ``RejectedFile``, saying what differs, if a header claims other pixels than are expected."""
        for reason, seen, wanted in (
            ("wrong dtype", claim.dtype or self.dtype, self.dtype),
            ("wrong size", f"{claim.width} × {claim.height} pixels", f"{self.size} × {self.size} pixels"),
            ("wrong bands", f"{claim.bands} bands", f"{self.bands} bands"),
        ):
            if seen != wanted:
                raise RejectedFile(reason, f"{seen}, expected {wanted}")
        if claim.block_bytes > self.block_bytes:
            raise RejectedFile("too large", f"its tiles are of {claim.block_bytes:,} bytes, more than {self.block_bytes:,}")

    def check(self, raster: Raster) -> Raster:
        """Return the raster if it is as expected; otherwise raise ``RejectedFile`` saying what differs."""
        height, width, bands = raster.pixels.shape
        if (height, width, bands) != (self.size, self.size, self.bands) or raster.pixels.dtype.name != self.dtype:
            self.check_claim(Claim(width, height, bands, raster.pixels.dtype.name))
        if self.georeferenced and raster.georeference is None:
            raise RejectedFile("no georeference", "the file carries no CRS and transform, expected both")
        return raster


def expectations(recipe: Recipe) -> dict[str, Expectation]:
    """Return what every file of each modality must be."""
    return {
        name: Expectation(
            dtype=modality.dtype,
            size=recipe.side(name),
            bands=len(modality.bands),
            georeferenced=recipe.source.georeference == "file",
            files=len(modality.bands) if modality.one_file_per_band else 1,
        )
        for name, modality in recipe.modalities.items()
    }
