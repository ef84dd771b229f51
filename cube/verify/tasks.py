"""What a worker is given of a verification: some patches of every label, and what all batches have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.format.arrays import ArraySpec, chunk_key
from cube.format.originals import HEADERS, ORIGINALS, PIXELS, header_keys
from cube.format.tiles import TileLayout
from cube.source.files import Source
from cube.source.stacks import parted
from cube.store.protocol import Readable
from cube.survey.ground import GroundSlice
from cube.survey.surveyor import Surveyor
from cube.survey.tally import TallyJob
from cube.work.clusters import Task

TOLD_BY_PIXELS = ("nan", "saturated", "constant", "empty")
COUNTS = ("nan_count", "zero_count", "saturated_count")


Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What the cube's labels say of the patches of one batch."""

    index: int
    patch: Array
    present: Array
    """(patch, modality)"""
    digest: Array
    """(patch, modality, byte)"""
    counts: Array
    """(patch, modality, [nan, zero, saturated])"""
    defects: Mapping[str, Array]
    """Those of the labels of defects that pixels tell: ``nan``, ``saturated``, ``constant`` and ``empty`` (patch)."""
    header_size: Array
    header_digest: Array
    pixel_start: Array
    file_size: Array
    path: Array
    """(patch, modality) text"""
    epsg: Array | None
    wkt: list[str]
    """(patch): definition of a CRS without an EPSG code; empty where there is none."""
    kept: Array | None
    """(patch, modality): what comes back of the file; None in cubes of earlier versions."""
    transform: Array | None
    unsourced: Array | None = None
    """(patch): whether it is not compared with source files; None where all are, or nothing is."""
    ground: GroundSlice | None = None
    """What a survey must know; None where none is taken."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What all batches of one verification have in common. Small and picklable."""

    cube: Readable
    layouts: Mapping[str, TileLayout]
    header: ArraySpec
    source: Source | None = None
    stacks: frozenset[str] = frozenset()
    """Modalities of which each band is a file of its own."""
    tallied: Mapping[str, TallyJob] = field(default_factory=dict)
    """What a survey counts, by modality; nothing where none is taken."""
    classes: frozenset[str] = frozenset()
    """Modalities of which a band holds classes."""
    growing: bool = False
    """Whether patches beyond those of the cube may be there already."""


Arrays = dict[str, NDArray[Any]]


def batch_tasks(
    examination: Examination,
    values: Arrays,
    sizes: Mapping[str, int],
    surveyor: Surveyor | None,
    since: int,
    unsourced: Array | None,
) -> Iterator[Task]:
    """Yield a task for each batch that has patches from ``since`` on: its labels, and the sizes of the objects listed."""
    slots = examination.header.chunks[0]
    for index in range(since // slots, -(-len(values["patch"]) // slots)) if since < len(values["patch"]) else ():
        rows = slice(index * slots, (index + 1) * slots)
        labels = _slice(values, index, rows, surveyor.slice(rows) if surveyor is not None else None, unsourced)
        keys = [chunk_key(name, (index, 0, 0, 0)) for name in examination.layouts]
        keys += header_keys(examination.header, index, labels.header_size.ravel().tolist())
        known = {key: sizes[key] for key in keys if key in sizes}
        source = examination.source
        if source is not None:
            source = source.part(file_paths(examination, labels.path))
        yield f"verify-{examination.cube.url}-{index}", (replace(examination, source=source), labels, known)


def file_paths(examination: Examination, paths: NDArray[Any]) -> Iterator[str]:
    """Yield the paths of all files of images (patch, modality)."""
    for name, column in zip(examination.layouts, paths.T.tolist(), strict=True):
        for path in filter(None, column):
            yield from parted(path) if name in examination.stacks else (path,)


def stored_keys(spec: ArraySpec, values: Arrays, sizes: Mapping[str, int]) -> Iterable[str]:
    """Return the keys of all objects of an array; of headers there are as many as they are long."""
    if spec.path != HEADERS:
        return spec.object_keys()
    if (known := values.get(f"{ORIGINALS}/header_size")) is None:
        return (key for key in spec.object_keys() if key in sizes)
    slots = spec.chunks[0]
    lengths = (known[index * slots :][:slots].ravel().tolist() for index in range(spec.grid[0]))
    return (key for index, sizes_of in enumerate(lengths) for key in header_keys(spec, index, sizes_of))


def unpacked_paths(packed: NDArray[np.uint8]) -> NDArray[Any]:
    """Return (patch, modality) texts from (patch, modality, byte) padded with zeros."""
    texts = [bytes(text).rstrip(b"\0").decode() for text in packed.reshape(-1, packed.shape[-1])]
    return np.array(texts, object).reshape(packed.shape[:-1])


def _slice(values: Arrays, index: int, rows: slice, ground: GroundSlice | None, unsourced: Array | None) -> Slice:
    return Slice(
        index=index,
        patch=values["patch"][rows],
        present=values["present"][rows],
        digest=values["digest"][rows],
        counts=np.stack([values[name][rows] for name in COUNTS], axis=-1),
        defects={name: values[name][rows] for name in TOLD_BY_PIXELS if name in values},
        header_size=values[f"{ORIGINALS}/header_size"][rows],
        header_digest=values[f"{ORIGINALS}/digest"][rows],
        pixel_start=values[f"{ORIGINALS}/pixel_start"][rows],
        file_size=values[f"{ORIGINALS}/size"][rows],
        path=unpacked_paths(values[f"{ORIGINALS}/path"][rows]),
        epsg=values["epsg"][rows] if "epsg" in values else None,
        wkt=_definitions(values, rows),
        kept=values["kept"][rows] if "kept" in values else None,
        transform=values["transform"][rows] if "transform" in values else None,
        unsourced=unsourced[rows] if unsourced is not None else None,
        ground=ground,
    )


def _definitions(values: Arrays, rows: slice) -> list[str]:
    """Return the definition of the CRS of each patch; empty where it has none."""
    if "crs_index" not in values or "crs_wkt" not in values:
        return [""] * len(values["patch"][rows])
    known = [*values["crs_wkt"].tolist(), ""]
    return [known[place] for place in values["crs_index"][rows].tolist()]


def restored_text(values: Arrays, examination: Examination) -> str:
    """Return how many files come back byte for byte, and how many do not."""
    of_image = [layout.bands if name in examination.stacks else 1 for name, layout in examination.layouts.items()]
    told = (values[f"{ORIGINALS}/header_size"] >= 0, values[f"{ORIGINALS}/pixel_start"] >= 0)
    files, exact = (int((known * np.array(of_image)).sum()) for known in told)
    bare = int(((values["kept"] == PIXELS) * np.array(of_image)).sum()) if "kept" in values else 0
    parts = [f"{files:,} headers: {exact:,} files come back byte for byte"]
    parts += [f"{files - exact - bare:,} with equal pixels, place and tags"] if files > exact + bare else []
    return ", ".join([*parts, *([f"{bare:,} with equal pixels and place only"] if bare else [])])
