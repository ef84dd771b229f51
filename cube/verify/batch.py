"""Verifying one batch of a cube: its shards, its headers and, on request, its source files. Runs on a Dask worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from blake3 import blake3

from cube.errors import CorruptError
from cube.format.arrays import chunk_key, decode_chunk
from cube.format.counting import Counts, count_pixels
from cube.format.originals import header_keys
from cube.format.tiles import (
    ABSENT,
    TileLayout,
    decode_tile,
    interleaved,
    patch_digest,
    read_index,
    tile_digest,
)
from cube.store.failures import undamaged
from cube.survey.tally import ShardTally, Tally
from cube.verify.report import Finding
from cube.verify.sources import SourceCheck
from cube.verify.tasks import TOLD_BY_PIXELS, Array, Examination, Slice

_SEGMENT = 16 * 2**20
"""Bytes of a shard read at once."""
_NEAR_SEGMENT = 2**20
"""The same on a disk, into memory that is used again: tiles are decoded from a processor's cache."""
_NAMED = 4
"""Patches named for one bad tile."""


@dataclass(frozen=True)
class Outcome:
    """What was seen of one batch."""

    index: int
    patches: int
    findings: tuple[Finding, ...]
    tiles: int
    distinct: int
    bytes_read: int
    files: int
    tallies: Mapping[str, Tally]
    """By modality, where a survey is taken."""


def examine_batch(examination: Examination, labels: Slice, sizes: Mapping[str, int]) -> Outcome:
    """Check one batch; ``sizes`` gives the bytes of its objects, and a missing one is left out."""
    check = _BatchCheck(examination, labels, sizes)
    for place, name in enumerate(examination.layouts):
        check.shard(place, name)
    check.defects()
    check.headers()
    if examination.source is not None:
        sources = SourceCheck(examination, labels, check.header_chunk)
        sources.check(examination.source)
        check.findings += sources.findings
        check.files = sources.files
    return Outcome(
        index=labels.index,
        patches=len(labels.patch),
        findings=tuple(check.findings),
        tiles=check.tiles,
        distinct=check.distinct,
        bytes_read=check.bytes_read,
        files=check.files,
        tallies=check.tallies,
    )


class _BatchCheck:
    def __init__(self, examination: Examination, labels: Slice, sizes: Mapping[str, int]) -> None:
        self.examination, self.labels, self.sizes = examination, labels, sizes
        self.findings: list[Finding] = []
        self.tiles = self.distinct = self.bytes_read = self.files = 0
        self.header_chunk: Array | None = None
        self.tallies: dict[str, Tally] = {}
        self.seen = {name: np.zeros(len(labels.patch), np.int64) for name in TOLD_BY_PIXELS}
        self._classes = {place for place, name in enumerate(examination.layouts) if name in examination.classes}
        self.unseen = np.zeros(len(labels.patch), bool)

    def found(self, check: str, where: str, what: str) -> None:
        self.findings.append(Finding(check, where, what))

    def shard(self, place: int, name: str) -> None:
        """Check one shard: index, extents, every distinct tile, and the digest of every patch."""
        layout = self.examination.layouts[name]
        key = chunk_key(name, (self.labels.index, 0, 0, 0))
        if (size := self.sizes.get(key)) is None:
            return
        try:
            if self.examination.growing:  # it may have grown since it was listed
                size = self.examination.cube.entry(key).size
            read = partial(self._read, key, max(0, size - layout.index_bytes), size)
            index = undamaged(lambda tail: read_index(layout, bytes(tail), size), read(), read)
            tally = self._tally(place, name, layout, index)
            digests, counts = self._decode(key, layout, index, tally)
        except (CorruptError, OSError) as error:
            self.found("shards", key, _said(error))
            return
        self._extents(key, layout, index, size)
        self._presence(key, index, place)
        self._patches(key, place, layout, index, digests, counts)
        self.tiles += int((index[..., 0] != ABSENT).sum())
        self.distinct += len(counts)
        if tally is not None:
            self.tallies[name] = tally.finish()

    def _tally(self, place: int, name: str, layout: TileLayout, index: Array) -> ShardTally | None:
        ground = self.labels.ground
        return None if ground is None else ShardTally(self.examination.tallied[name], layout, ground, place, index)

    def _extents(self, key: str, layout: TileLayout, index: Array, size: int) -> None:
        used = np.unique(index[index[..., 0] != ABSENT], axis=0)
        starts, stops = used[:, 0], used.sum(axis=1)
        whole = np.concatenate([[np.uint64(0)], stops]), np.concatenate([starts, [np.uint64(size - layout.index_bytes)]])
        if not np.array_equal(*whole):
            self.found("shards", key, "its tiles leave gaps or overlap")

    def _presence(self, key: str, index: Array, place: int) -> None:
        stored = index[..., 0] != ABSENT
        count = len(self.labels.patch)
        wanted = np.zeros(len(index), bool)
        wanted[:count] = self.labels.present[:, place]
        looked_at = slice(count if self.examination.growing else None)
        for slot in np.flatnonzero((stored != wanted[:, None])[looked_at].any(axis=1)):
            name = self.labels.patch[slot] if slot < count else f"slot {slot}"
            said = "present" if wanted[slot] else "absent"
            self.found("presence", f"{name} in {key}", f"said to be {said}, {stored[slot].sum()} of its tiles are stored")

    def _decode(
        self, key: str, layout: TileLayout, index: Array, tally: ShardTally | None
    ) -> tuple[dict[int, bytes], dict[int, Counts]]:
        """Decode every distinct tile once; return digests and counts by offset."""
        digests: dict[int, bytes] = {}
        counts: dict[int, Counts] = {}
        twins: dict[bytes, int] = {}
        compressor, tile_key = layout.compressor(), layout.tile_key
        planes = np.empty((layout.bands, layout.tile, layout.tile), layout.dtype)
        tile = np.empty((layout.tile, layout.tile, layout.bands), layout.dtype)
        for offset, length, data in self._segments(key, index):
            try:
                read = partial(self._read, key, offset, offset + length)
                undamaged(partial(decode_tile, layout, compressor, out=planes), data, read)
            except CorruptError as error:
                self.found("shards", f"{self._users(index, offset)} in {key}", str(error))
                continue
            digests[offset] = tile_digest(tile_key, interleaved(planes, tile))
            counts[offset] = count_pixels(planes, layout.saturated)
            if tally is not None:
                tally.tile(offset, planes)
            if twins.setdefault(digests[offset], offset) != offset:
                what = "equal tiles are stored more than once; the pixels may be right, but the shard was rewritten"
                self.found("sharing", key, what)
        return digests, counts

    def _read(self, key: str, start: int, stop: int) -> memoryview:
        return memoryview(self.examination.cube.read_range(key, start, stop))

    def _segments(self, key: str, index: Array) -> Iterator[tuple[int, int, memoryview]]:
        """Yield offset, length and bytes of every distinct tile, reading the shard in bounded pieces."""
        used = np.unique(index[index[..., 0] != ABSENT], axis=0).tolist()
        at, store = 0, self.examination.cube
        most = _NEAR_SEGMENT if store.near else _SEGMENT
        room = memoryview(bytearray(most if store.near else 0))
        with store.opened() as files:
            while at < len(used):
                start, stop, last = used[at][0], sum(used[at]), at
                while last + 1 < len(used) and sum(used[last + 1]) - start <= most:
                    last += 1
                    stop = max(stop, sum(used[last]))
                if stop - start <= len(room):
                    data = room[: files.read_into(key, start, room[: stop - start])]
                else:
                    data = self._read(key, start, stop)
                self.bytes_read += len(data)
                for offset, length in used[at : last + 1]:
                    yield offset, length, data[offset - start : offset - start + length]
                at = last + 1

    def _users(self, index: Array, offset: int) -> str:
        slots = np.flatnonzero((index[..., 0] == offset).any(axis=1))
        names = [str(self.labels.patch[slot]) for slot in slots if slot < len(self.labels.patch)]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return ", ".join(names[:_NAMED]) + more

    def _patches(
        self, key: str, place: int, layout: TileLayout, index: Array, digests: dict[int, bytes], counts: dict[int, Counts]
    ) -> None:
        patch_key = layout.patch_key
        for slot, name in enumerate(self.labels.patch):
            offsets = [int(offset) for offset in index[slot, :, 0]]
            if not self.labels.present[slot, place]:
                self._absent(slot, place)
                continue
            if any(offset not in digests for offset in offsets):
                self.unseen[slot] = True
                continue
            seen = patch_digest(patch_key, [digests[offset] for offset in offsets])
            if seen != self.labels.digest[slot, place].tobytes():
                self.found("pixels", f"{name} in {key}", "its pixels do not match its digest")
            total = sum((counts[offset] for offset in offsets), Counts())
            self._count(slot, layout, total, classes=place in self._classes)
            if [total.nan, total.zero, total.saturated] != self.labels.counts[slot, place].tolist():
                self.found("counts", f"{name} in {key}", f"its pixels give {total}, its labels say otherwise")

    def _count(self, slot: int, layout: TileLayout, total: Counts, *, classes: bool) -> None:
        whole = layout.size**2 * layout.bands
        facts = total.nan, total.saturated, 0 if classes else total.constant, total.nan + total.zero == whole
        for name, count in zip(TOLD_BY_PIXELS, facts, strict=True):
            self.seen[name][slot] += count

    def defects(self) -> None:
        """Check the labels that sum up what may be wrong with the images of a patch."""
        whole = all(chunk_key(name, (self.labels.index, 0, 0, 0)) in self.sizes for name in self.examination.layouts)
        for name, told in self.labels.defects.items() if whole and not self.findings else ():
            for slot in np.flatnonzero((told != self.seen[name]) & ~self.unseen).tolist():
                what = f"its images give {name} {self.seen[name][slot]}, its label says {told[slot]}"
                self.found("counts", str(self.labels.patch[slot]), what)

    def _absent(self, slot: int, place: int) -> None:
        """Check that the labels of an image that is not there say nothing of it."""
        labels = self.labels
        facts = (labels.digest, labels.counts, *([] if labels.kept is None else [labels.kept]))
        files = (labels.header_size, labels.pixel_start, labels.file_size)
        if any(np.any(fact[slot, place]) for fact in facts) or any(file[slot, place] != -1 for file in files):
            self.found("presence", str(labels.patch[slot]), "said to be absent, but its labels tell of an image")

    def headers(self) -> None:
        """Check the kept headers against their digests."""
        spec, labels = self.examination.header, self.labels
        keys = header_keys(spec, labels.index, labels.header_size.ravel().tolist())
        key, chunks = keys[0], []
        if not all(name in self.sizes for name in keys):
            return
        for name in keys:
            try:
                read = partial(self.examination.cube.read, name)
                chunks.append(undamaged(partial(decode_chunk, spec), read(), read))
            except (CorruptError, OSError) as error:
                self.found("originals", name, _said(error))
                return
        chunk = np.concatenate(chunks, axis=-1)
        self.header_chunk = chunk
        for slot, place in np.ndindex(labels.header_size.shape):
            size = max(0, int(labels.header_size[slot, place]))
            header = chunk[slot, place, :size].tobytes()
            known = labels.header_digest[slot, place].tobytes()
            wrong = known != (blake3(header).digest() if labels.header_size[slot, place] >= 0 else bytes(len(known)))
            if wrong or chunk[slot, place, size:].any():
                self.found("originals", f"{labels.patch[slot]} in {key}", "its header does not match its digest")


def _said(error: CorruptError | OSError) -> str:
    return str(error) if isinstance(error, CorruptError) else f"cannot be read: {error.strerror or error}"
