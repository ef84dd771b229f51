"""Verifying the images of one batch against the files they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cube.errors import RejectedFile
from cube.format.arrays import ArraySpec
from cube.format.layout import meanings
from cube.format.originals import BYTES, kept
from cube.format.target import Target
from cube.format.tiles import pixels_digest_of
from cube.format.versions import SUPERSEDES, current_rows
from cube.query.choose import select_patches
from cube.source.expectations import Expectation
from cube.source.files import INDEXES, Source, open_source
from cube.source.georeference import Georeference
from cube.source.rasters import Raster, read_raster
from cube.source.stacks import parted, stacked
from cube.store.protocol import Entry
from cube.verify.report import Finding
from cube.verify.tasks import Examination, Slice

Array = NDArray[Any]


class SourceCheck:
    """Holds pixels, headers and places against the files."""

    def __init__(self, examination: Examination, labels: Slice, header_chunk: Array | None) -> None:
        self.examination, self.labels, self.header_chunk = examination, labels, header_chunk
        self.findings: list[Finding] = []
        self.files = 0
        """Files that were read."""

    def _found(self, where: str, what: str) -> None:
        self.findings.append(Finding("source", where, what))

    def check(self, source: Source) -> None:
        """Check every image of the batch."""
        for slot in range(len(self.labels.patch)):
            left_out = self.labels.unsourced is not None and self.labels.unsourced[slot]
            wanted = np.flatnonzero(self.labels.present[slot] & (not left_out))
            paths = [self._files(slot, int(place)) for place in wanted]
            most = max(self._expected(int(place)).file_bytes for place in range(len(self.examination.layouts)))
            read = iter(source.read_many([path for of_image in paths for path in of_image], most))
            for place, of_image in zip(wanted.tolist(), paths, strict=True):
                before, files = (len(self.findings), self.files), list(islice(read, len(of_image)))
                self._source(slot, place, files)
                if len(self.findings) > before[0] and not any(isinstance(data, OSError) for data in files):
                    del self.findings[before[0] :]  # it may have been damaged only on its way
                    self.files = before[1]
                    self._source(slot, place, list(source.read_many(of_image, most)))

    def _files(self, slot: int, place: int) -> list[str]:
        """Return the paths of the files of an image."""
        path = str(self.labels.path[slot, place])
        return parted(path) if self._expected(place).files > 1 else [path]

    def _source(self, slot: int, place: int, files: list[bytes | OSError]) -> None:
        path, expected, rasters = str(self.labels.path[slot, place]), self._expected(place), []
        try:
            for data in files:
                if isinstance(data, OSError):
                    raise data
                rasters.append(read_raster(data, expected.of_file))
            self._file(slot, place, path, rasters[0] if expected.files == 1 else stacked(rasters))
            self.files += len(files)
        except (RejectedFile, OSError) as error:
            self._found(f"{self.labels.patch[slot]}: {path}", f"cannot be read: {error}")

    def _expected(self, place: int) -> Expectation:
        name, layout = list(self.examination.layouts.items())[place]
        dtype, files = np.dtype(layout.dtype).name, layout.bands if name in self.examination.stacks else 1
        return Expectation(dtype=dtype, size=layout.size, bands=layout.bands, georeferenced=False, files=files)

    def _file(self, slot: int, place: int, path: str, raster: Raster) -> None:
        labels, where = self.labels, f"{self.labels.patch[slot]}: {path}"
        layout = list(self.examination.layouts.values())[place]
        shape = (layout.size, layout.size, layout.bands)
        if raster.pixels.shape != shape or raster.pixels.dtype != np.dtype(layout.dtype):
            self._found(where, f"is {raster.pixels.dtype} {raster.pixels.shape}, the cube has {layout.dtype} {shape}")
            return
        if pixels_digest_of(layout, raster.pixels) != labels.digest[slot, place].tobytes():
            self._found(where, "its pixels differ from the cube's")
        stored, kind = kept(raster.header, raster.tags, raster.pixel_start)
        header = None if self.header_chunk is None else self.header_chunk[slot, place, : len(stored)].tobytes()
        facts = [
            len(stored),
            raster.pixel_start if kind == BYTES else -1,
            raster.file_size,
            *([] if labels.kept is None else [kind]),
        ]
        kept_facts = (labels.header_size, labels.pixel_start, labels.file_size, labels.kept)
        told = [fact[slot, place] for fact in kept_facts if fact is not None]
        known = labels.header_digest[slot, place].tobytes()
        if stored != header or blake3(stored).digest() != known or facts != [int(value) for value in told]:
            self._found(where, "its bytes that are no pixels differ from the cube's")
        if labels.epsg is not None and labels.transform is not None:
            place_kept = Georeference(int(labels.epsg[slot]), tuple(labels.transform[slot].tolist()), labels.wkt[slot])
            most = max(layout.size for layout in self.examination.layouts.values())
            seen = raster.georeference.resampled(layout.size, most) if raster.georeference else None
            if not place_kept.agrees(seen):
                self._found(where, f"lies at {seen}, the cube says {place_kept}")


@dataclass(frozen=True)
class SourceFiles:
    """Source files to compare with."""

    given: str
    """The source as the caller wrote it."""
    files: Source
    paths: frozenset[str]
    """All there are."""
    where: str = ""
    """The filter of patches that are compared; all where it is empty."""

    def left_out(self, values: Mapping[str, Array], specs: Sequence[ArraySpec], seasons: Any) -> NDArray[np.bool_]:
        """Return which patches (patch) are not compared: others than are asked for, and those that others have replaced."""
        rows = np.arange(len(values["patch"]))
        if SUPERSEDES in values:
            rows = current_rows(values[SUPERSEDES])
        if self.where:
            names = [
                spec.path for spec in specs if spec.dimensions[0] == "patch" and spec.path in values and "/" not in spec.path
            ]
            rows = select_patches(values.__getitem__, names, self.where, shown=meanings(specs), seasons=seasons, among=rows)
        skipped = np.ones(len(values["patch"]), bool)
        skipped[rows] = False
        return skipped


def listed_source(given: str, options: Mapping[str, Any] | None, target: Target, where: str = "") -> SourceFiles:
    """List a source; what is known of its archives is kept beside the cube, or for this run where that is not ours to write."""
    files = open_source(given, options, indexes=target.beside.child(INDEXES))
    return SourceFiles(given, files, frozenset(entry.key for entry in files.listed() if isinstance(entry, Entry)), where)
