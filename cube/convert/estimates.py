"""What a build will cost, measured on a sample of the user's own files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from cube.convert.plan import Batch, Job, Plan
from cube.convert.worker import read_patches
from cube.format.tiles import ShardWriter, TileLayout, decode_tile
from cube.source.files import Source
from cube.source.statements import Statements, statement_counts
from cube.store.objects import SPOOL_LIMIT
from cube.work.clusters import Task

_RUN = 100
"""Patches read in a row: enough to see how neighbours share tiles."""
_FIXED_SECONDS = 1.0
"""Coordinates, metadata and catalog (measured on two cores); starting the workers is not counted."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """How one modality shares tiles and compresses in a run of patches."""

    patches: int
    tiles: int
    distinct: int
    """Tiles stored."""
    distinct_half: int
    """Tiles stored after the first half of the run."""
    stored: int
    """Bytes of the tiles stored."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a run of patches showed."""

    patches: int
    shares: dict[str, Share]
    write_seconds: float
    verify_seconds: float
    idle_bytes: int
    """Resident memory of the process before it read anything."""
    rejected: int
    statements: dict[str, dict[str, int]]
    """What the files of each modality say about their pixels, in words, and how many say it."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a whole build is expected to take."""

    sampled: int
    """Patches read for it."""
    sharing: dict[str, float]
    """Modality → tiles of all patches per tile stored."""
    stored: dict[str, int]
    """Modality → bytes."""
    statements: dict[str, dict[str, int]]
    """What the sampled files of each modality say about their pixels, in words, and how many say it."""
    objects: int
    tasks: int
    rejected: int
    seconds: float | None
    """None where nothing was sampled."""
    peak_bytes: int
    """Memory of one worker."""
    spooled_bytes: int
    """The same where unfinished objects are held in memory, on their way to an object store."""
    workers: int

    @property
    def stored_bytes(self) -> int:
        """Bytes of all pixels."""
        return sum(self.stored.values())

    def document(self) -> dict[str, Any]:
        """Return the estimate as plain data."""
        return {**asdict(self), "stored_bytes": self.stored_bytes}


def measure(job: Job, batch: Batch, source: Source) -> Sample:
    """Read a run of patches, encode them and decode each tile again, keeping nothing. Runs on a Dask worker."""
    idle = _resident()
    trials = {name: _Trial(layout) for name, layout in job.layouts.items()}
    half, seen_half, rejected = len(batch.patch) // 2, dict.fromkeys(job.layouts, 0), 0
    said = {name: Counter[Statements]() for name in job.layouts}
    started = time.perf_counter()
    for slot, (rasters, bad) in enumerate(read_patches(job, batch, source)):
        rejected += len(bad)
        for name, raster in rasters.items():
            trials[name].add(slot, raster.pixels)
            said[name][raster.statements] += 1
        if slot < half:
            seen_half = {name: len(trial.writer.seen) for name, trial in trials.items()}
    whole = time.perf_counter() - started
    decoding = sum(trial.seconds for trial in trials.values())
    return Sample(
        patches=len(batch.patch),
        shares={name: trial.share(seen_half[name]) for name, trial in trials.items()},
        write_seconds=whole - decoding,
        verify_seconds=decoding,
        idle_bytes=idle,
        rejected=rejected,
        statements=statement_counts(said),
    )


class _Trial:
    """Encodes patches as a shard would and decodes each new tile at once."""

    def __init__(self, layout: TileLayout) -> None:
        self._parts: list[bytes] = []
        self.writer = ShardWriter(layout, self._parts.append)
        self.seconds = 0.0
        self._planes = np.empty((layout.bands, layout.tile, layout.tile), layout.dtype)
        self._compressor = layout.compressor()

    def add(self, slot: int, pixels: NDArray[Any]) -> None:
        self.writer.add(slot, pixels)
        started = time.perf_counter()
        for body, checksum in zip(self._parts[::2], self._parts[1::2], strict=True):
            decode_tile(self.writer.layout, self._compressor, body + checksum, self._planes)
        self._parts.clear()
        self.seconds += time.perf_counter() - started

    def share(self, distinct_half: int) -> Share:
        tiles = int((self.writer.index[..., 1] < 2**63).sum())
        return Share(
            patches=tiles // self.writer.layout.across**2,
            tiles=tiles,
            distinct=len(self.writer.seen),
            distinct_half=distinct_half,
            stored=self.writer.stored,
        )


def sample_tasks(plan: Plan, patches: int) -> Iterable[Task]:
    """Return tasks that together read about so many patches, in runs spread over the plan's batches, or all of them."""
    everything = patches >= plan.patches
    runs = plan.tasks if everything else min(plan.tasks, max(1, patches // _RUN))
    length = plan.patches if everything else max(2, patches // runs)
    source = plan.inventory.opened
    for number in range(runs):
        batch = plan.batch(plan.indexes[number * plan.tasks // runs]).head(length)
        yield f"sample-{plan.digest}-{number}-{patches}", (plan.job, batch, source.part(batch.files))


def estimate(plan: Plan, samples: list[Sample], *, workers: int, local: bool, measured_base: bool = True) -> Estimate:
    """Return what the whole plan will take, from samples; by the recipe's typical ratios where there are none.

    ``local`` says that the cube goes to a disk, ``measured_base`` that the samples were taken in a worker.
    """
    names = list(plan.job.layouts)
    files = dict(zip(names, plan.inventory.has.sum(axis=0).tolist(), strict=True))
    sharing, stored = {}, {}
    for name in names:
        shares = [sample.shares[name] for sample in samples if sample.shares[name].patches]
        layout = plan.job.layouts[name]
        if shares:
            distinct = _distinct(shares, files[name], plan.tasks)
            sharing[name] = files[name] * layout.across**2 / distinct
            per_tile = sum(share.stored for share in shares) / sum(share.distinct for share in shares)
            stored[name] = round(distinct * per_tile + plan.tasks * layout.index_bytes)
        else:
            sharing[name] = 1.0
            stored[name] = plan.typical_bytes()[name]
    base = max((sample.idle_bytes for sample in samples), default=0) if measured_base else 0
    spooled = plan.peak_bytes(spool=SPOOL_LIMIT, base=base)
    return Estimate(
        sampled=sum(sample.patches for sample in samples),
        sharing=sharing,
        stored=stored,
        statements=_all_said(samples),
        objects=plan.objects,
        tasks=plan.tasks,
        rejected=len(plan.inventory.rejected),
        seconds=_seconds(plan, samples, workers),
        peak_bytes=plan.peak_bytes(spool=0, base=base) if local else spooled,
        spooled_bytes=spooled,
        workers=workers,
    )


def _all_said(samples: list[Sample]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for name, words, count in ((n, w, c) for sample in samples for n, of in sample.statements.items() for w, c in of.items()):
        of_name = totals.setdefault(name, {})
        of_name[words] = of_name.get(words, 0) + count
    return totals


def _distinct(shares: list[Share], files: int, tasks: int) -> float:
    """Return the tiles stored of so many files in so many runs; a count where the sample was all of them."""
    if sum(share.patches for share in shares) == files:
        return float(sum(share.distinct for share in shares))
    return tasks * float(np.mean([_extended(share, files / tasks) for share in shares]))


def _extended(share: Share, length: float) -> float:
    """Return the distinct tiles of a run of ``length`` patches that goes on as the second half of the sample did."""
    half = share.patches - share.patches // 2
    rate = (share.distinct - share.distinct_half) / half
    return max(1.0, share.distinct + (length - share.patches) * rate)


def _seconds(plan: Plan, samples: list[Sample], workers: int) -> float | None:
    patches = sum(sample.patches for sample in samples)
    if not patches:
        return None
    spent = sum(sample.write_seconds + sample.verify_seconds for sample in samples)
    lanes = min(max(1, workers), plan.tasks)
    return _FIXED_SECONDS + spent / patches * plan.patches / lanes


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)
