"""One batch: files in, whole shards and a receipt out. Runs on a Dask worker."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cube.convert.plan import READ_AHEAD, Batch, Job
from cube.errors import CorruptError, CubeError, IncompleteError, RejectedFile, StorageError
from cube.format.arrays import ArraySpec, chunk_key, decode_chunk
from cube.format.originals import BYTES, kept, pack_headers
from cube.format.target import FULL, Target, remedy
from cube.format.tiles import DIGEST_SIZE, ShardWriter, TileLayout, read_index
from cube.records.claims import require_claim
from cube.records.receipts import Receipt, receipt_bytes, receipt_key
from cube.source.files import Source
from cube.source.georeference import Georeference
from cube.source.rasters import Raster, RasterReader
from cube.source.rejected import Rejected, rejection, require_answer
from cube.source.stacks import stacked
from cube.source.statements import MASK, NODATA, Statements
from cube.store.failures import undamaged
from cube.store.protocol import Entry, Range, Store

_COUNTED = ("nan_count", "zero_count", "saturated_count", "constant", "masked")
"""Columns (patch, modality) of what is counted of images."""


def run_batch(job: Job, batch: Batch, source: Source, target: Target, header: ArraySpec, plan: str) -> Receipt | CubeError:
    """Write one batch and return a summary of its receipt; an error that trying again cannot mend is returned."""
    try:
        return write_batch(job, batch, source, target, header, plan)
    except CubeError as error:
        return error
    except OSError as error:
        if error.errno in (*FULL, errno.EROFS):
            return StorageError(f"writing to {target.url} failed: {error.strerror}; {remedy(error)} and run again")
        raise


def write_batch(job: Job, batch: Batch, source: Source, target: Target, header: ArraySpec, plan: str = "") -> Receipt:
    """Write one batch's shards, its chunk of headers, then its receipt; running it twice writes the same bytes twice.

    The receipt outlasts a loss of power, and so does all it names. Nothing appears, and ``TargetError`` is raised, if the
    target is no longer claimed for ``plan``.
    """
    started, cpu = time.time(), time.process_time()
    columns = _Columns(job, len(batch.patch))
    objects: dict[str, int] = {}
    with ExitStack() as stack:
        writers = {}
        for name, layout in job.layouts.items():
            key = chunk_key(name, (batch.index, 0, 0, 0))
            sink = stack.enter_context(target.cube.writing(key))
            writers[name] = resumed_writer(layout, target.cube, key, batch.kept, sink.write)
        known = {name: len(writer.seen) for name, writer in writers.items()}
        taken_over = sum(writer.stored for writer in writers.values())
        for slot, (rasters, rejected) in enumerate(read_patches(job, batch, source)):
            columns.rejected += rejected
            for name, raster in rasters.items():
                columns.record(slot, name, raster, *writers[name].add(batch.kept + slot, raster.pixels))
        for writer in writers.values():
            writer.finish()
        if plan:
            require_claim(target, plan)
    for name, writer in writers.items():
        objects[chunk_key(name, (batch.index, 0, 0, 0))] = writer.stored
    before = kept_headers(target.cube, header, batch.index, batch.kept, batch.headers)
    headers = {(batch.kept + slot, place): data for (slot, place), data in columns.headers.items()}
    for key, data in pack_headers(header, batch.index, headers, before):
        target.cube.write(key, data)
        objects[key] = len(data)
    tiles = {name: [int((w.index[batch.kept :, :, 1] < 2**63).sum()), len(w.seen) - known[name]] for name, w in writers.items()}
    receipt = _summary(batch, columns, tiles) | {
        "started": started,
        "seconds": time.time() - started,
        "cpu_seconds": time.process_time() - cpu,
        "objects": objects,
        "taken_over": taken_over,
    }
    whole = {**receipt, "columns": columns.document()}
    target.cube.secure(objects)
    target.build.keep(receipt_key(batch.digest), receipt_bytes(whole))
    return receipt


def resumed_writer(layout: TileLayout, cube: Store, key: str, kept: int, sink: Callable[[Any], Any]) -> ShardWriter:
    """Return what writes a shard; the first ``kept`` slots are those of the one that stands.

    Raises ``CorruptError`` naming it if it is damaged.
    """
    writer = ShardWriter(layout, sink)
    if kept:
        try:
            # From the end on: another run of the same plan may put a longer shard there at any moment.
            tail = partial(cube.read_ranges, [Range(key, -layout.index_bytes, None)])
            index = undamaged(partial(read_index, layout), tail()[0], lambda: tail()[0])
            writer.resume(index, kept, partial(cube.read_range, key))
        except CorruptError as error:
            raise CorruptError(f"{cube.url}/{key}: {error}; `cube verify` tells more") from None
    return writer


def kept_headers(cube: Store, header: ArraySpec, index: int, kept: int, chunks: int) -> list[NDArray[np.uint8]]:
    """Return the headers of the first ``kept`` patches of a batch, chunk by chunk."""
    keys = [chunk_key(header.path, (index, 0, place)) for place in range(chunks)]
    read = [undamaged(partial(decode_chunk, header), cube.read(key), partial(cube.read, key)) for key in keys]
    return [chunk[:kept] for chunk in read]


def _summary(batch: Batch, columns: _Columns, tiles: Mapping[str, list[int]]) -> Receipt:
    """Return what a receipt says of a batch beside its objects, its columns and the time it took."""
    return {
        "batch": batch.digest,
        "stamp": batch.stamp,
        "index": batch.index,
        "start": batch.start,
        "stop": batch.stop,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "peak_bytes": peak_memory(),
        "files": sum(size >= 0 for sizes in batch.sizes for size in sizes),
        "bytes_in": int(columns.files["size"].clip(min=0).sum()),
        "tiles": dict(tiles),
        "statements": columns.said(),
        "rejected": [[item.path, item.reason, item.detail] for item in columns.rejected],
    }


def _is_masked(raster: Raster) -> bool:
    """Tell whether the file of an image marks pixels of it as no data."""
    said = dict(raster.statements)
    if said.get(MASK):
        return True
    try:
        value = float(said.get(NODATA, ""))
    except ValueError:
        return False
    return bool(np.isnan(raster.pixels).any()) if np.isnan(value) else bool((raster.pixels == value).any())


class _Columns:
    """What a batch learns about each of its patches."""

    def __init__(self, job: Job, length: int) -> None:
        kinds = len(job.layouts)
        self.job, self.names = job, list(job.layouts)
        self.headers: dict[tuple[int, int], bytes] = {}
        self.statements = {name: Counter[Statements]() for name in job.layouts}
        self.georeferences: list[Georeference | None] = [None] * length
        self.integers = {name: np.zeros((length, kinds), np.int64) for name in _COUNTED}
        self.files = {name: np.full((length, kinds), -1, np.int64) for name in ("header_size", "pixel_start", "size")}
        self.files["kept"] = np.zeros((length, kinds), np.int64)
        self.digests = {name: np.zeros((length, kinds, DIGEST_SIZE), np.uint8) for name in ("digest", "header_digest")}
        self.rejected: list[Rejected] = []

    def record(self, slot: int, name: str, raster: Raster, digest: bytes, counts: Any) -> None:
        place = slot, self.names.index(name)
        header, self.files["kept"][place] = kept(raster.header, raster.tags, raster.pixel_start)
        self.headers[place] = header
        self.statements[name][raster.statements] += 1
        self.georeferences[slot] = _place(self.job, name, raster)
        for kind in ("nan", "zero", "saturated"):
            self.integers[f"{kind}_count"][place] = getattr(counts, kind)
        self.integers["constant"][place] = counts.constant
        self.integers["masked"][place] = _is_masked(raster)
        self.files["header_size"][place] = len(header)
        self.files["pixel_start"][place] = raster.pixel_start if self.files["kept"][place] == BYTES else -1
        self.files["size"][place] = raster.file_size
        self.digests["digest"][place] = np.frombuffer(digest, np.uint8)
        self.digests["header_digest"][place] = np.frombuffer(blake3(header).digest(), np.uint8)

    def document(self) -> dict[str, Any]:
        definitions = list(dict.fromkeys(place.wkt for place in self.georeferences if place and place.wkt))
        pointing = [definitions.index(place.wkt) if place and place.wkt else -1 for place in self.georeferences]
        epsg = [place.epsg if place else 0 for place in self.georeferences]
        transform = [list(place.transform) if place else None for place in self.georeferences]
        plain = {name: values.tolist() for name, values in {**self.integers, **self.files}.items()}
        hexed = {name: values.tobytes().hex() for name, values in self.digests.items()}
        return {"epsg": epsg, "crs": [definitions, pointing], "transform": transform, **plain, **hexed}

    def said(self) -> dict[str, list[tuple[Statements, int]]]:
        """Return, by modality, what its files say about their pixels and how many say it."""
        return {name: list(counts.items()) for name, counts in self.statements.items()}


def read_patches(job: Job, batch: Batch, source: Source) -> Iterator[tuple[dict[str, Raster], list[Rejected]]]:
    """Yield, patch by patch, the rasters to store by modality, and the files that could not be used.

    Raises ``IncompleteError`` at the first bad file if the policy is ``fail``, ``OSError`` if the source does not answer:
    that tells nothing of the file, so the task is to be tried again.
    """
    reader = RasterReader()
    for start in range(0, len(batch.patch), READ_AHEAD):
        rows = range(start, min(start + READ_AHEAD, len(batch.patch)))
        files = _answered(source, source.read_listed([entry for row in rows for entry in _listed(batch, row)]))
        for row in rows:
            rasters, rejected = _decode(job, batch.path[row], files, reader)
            yield _accept(job, batch, row, rasters, rejected), rejected


def _listed(batch: Batch, row: int) -> list[Entry]:
    """Return the files of one patch as the source was listed."""
    facts = zip(batch.path[row], batch.sizes[row], batch.stamps[row], strict=True)
    return [Entry(path, size, stamp) for path, size, stamp in facts if path]


def _answered(source: Source, files: Iterator[bytes | OSError]) -> Iterator[bytes | OSError]:
    """Yield files and errors that tell of one file; raise an error that tells of the store."""
    for data in files:
        yield require_answer(source, data) if isinstance(data, OSError) else data


def _decode(
    job: Job, paths: tuple[str, ...], files: Iterator[bytes | OSError], reader: RasterReader
) -> tuple[dict[str, Raster], list[Rejected]]:
    rasters: dict[str, Raster] = {}
    rejected: list[Rejected] = []
    left = iter(paths)
    for name, expectation in job.expectations.items():
        decoded = []
        for path in islice(left, expectation.files):
            if not path:
                continue
            data = next(files)
            try:
                if isinstance(data, OSError):
                    raise data
                expected = expectation.of_file
                decoded.append(expected.check(reader.read(data, expected)))
            except (RejectedFile, OSError) as error:
                rejected.append(rejection(path, error))
        try:
            if len(decoded) == expectation.files:
                rasters[name] = decoded[0] if expectation.files == 1 else stacked(decoded)
        except RejectedFile as error:
            rejected.append(rejection(path, error))
    return rasters, rejected


def _accept(job: Job, batch: Batch, row: int, rasters: dict[str, Raster], rejected: list[Rejected]) -> dict[str, Raster]:
    """Apply the policy for incomplete patches to one patch."""
    known = {name: _place(job, name, raster) for name, raster in rasters.items() if job.expectations[name].georeferenced}
    places = {name: place for name, place in known.items() if place}
    first = next(iter(places.values()), None)
    if not all(place.agrees(first) for place in places.values()):
        detail = "; ".join(f"{name} {place}" for name, place in places.items())
        rejected.append(Rejected(batch.patch[row], "different georeferences", detail))
        rasters = {}
    if not rejected:
        return rasters
    if job.incomplete == "fail":
        last = rejected[-1]
        raise IncompleteError(
            f"{last.path}: {last.reason}: {last.detail}. Mend the file and run again, "
            "or choose --incomplete reject or keep; what is written stays"
        )
    return rasters if job.incomplete == "keep" else {}


def _place(job: Job, name: str, raster: Raster) -> Georeference | None:
    """Return where an image lies, in pixels of the modality that has the most."""
    place, most = raster.georeference, max(layout.size for layout in job.layouts.values())
    return place.resampled(job.layouts[name].size, most) if place else None


def peak_memory() -> int:
    """Return the most resident memory this process has had, in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")), 0)
    except FileNotFoundError:
        return 0
