"""A cube, or some of its patches, from one place to another: tiles stay shared, everything is verified, the root comes last."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from blake3 import blake3
from distributed import Client

from cube.catalog.describe import CATALOG, COLLECTION, describe, publish, publish_files
from cube.convert.writer import REPORT
from cube.errors import CorruptError, RequestError, TargetError
from cube.format.arrays import ArraySpec, chunk_key
from cube.format.documents import parse_object, require_object
from cube.format.originals import HEADERS
from cube.format.root import read_root
from cube.format.small import write_array
from cube.format.target import ROOT, Target
from cube.jobs.subset import (
    Subset,
    array_specs,
    plan_subset,
    recipe_document,
    shard_tasks,
    subset_documents,
    write_shard,
)
from cube.recipes.recipe import Recipe
from cube.records.claims import COPY, stake, stake_publication, standing_claim
from cube.records.presence import clear_unfinished, living_build, present
from cube.store.protocol import Store
from cube.survey.surveyor import Survey, Surveyor
from cube.verify.report import Report
from cube.verify.verification import verify_unrooted
from cube.work.clusters import Task, run
from cube.work.watch import SILENT, Watcher

_STREAMS = 4
"""Objects that one task copies at the same time."""
_PIECE = 16 * 2**20
"""Bytes of one object that are under way at the same time."""
_LAST = {COLLECTION: 1, CATALOG: 2}
"""What of a catalog is written after everything that it names."""
_MOST_REJECTED = 10**7
"""Files of one reason that are believed."""
_ROUNDS = 3
"""What the verification finds damaged is written once more; damaged labels hide damaged pixels until then."""

Damaged = tuple[set[int], set[str]]
"""Batches, and keys of other objects."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What a copy did."""

    url: str
    patches: int
    objects: int
    """Objects written by this run; of a subset, those that hold pixels and headers."""
    bytes: int
    standing: int
    """Objects that an earlier run had left."""
    tiles: Mapping[str, tuple[int, int]]
    """Modality → tiles of all patches and how many of them are stored, of the shards this run wrote; of a subset only."""
    report: Report
    catalog: str
    """URL of the STAC collection; empty where there is none."""
    seconds: float

    def document(self) -> dict[str, Any]:
        """Return the copy as plain data."""
        named = ("url", "patches", "objects", "bytes", "standing", "tiles", "catalog", "seconds")
        return {**{name: getattr(self, name) for name in named}, "report": self.report.document()}


def copy_cube(
    source: Target, to: Target, client: Client | None = None, *, where: str = "", watcher: Watcher = SILENT
) -> Copied:
    """Copy a cube object by object, or the patches that ``where`` chooses as a cube of their own, tile by tile.

    What an earlier run has left stays. The copy is verified before its root is written; ``report`` of the result says
    whether it passed. Raises ``TargetError`` if the target holds something else, ``RequestError`` if the source holds no
    cube, ``CorruptError`` if it is found damaged, ``StorageError`` if reading or writing fails for good.
    """
    started = time.monotonic()
    data, document = read_root(source)
    subset = plan_subset(source, data, document, where) if where else None
    work: _Whole | _Part = _Part(source, to, subset) if subset else _Whole(source, to, data, document)
    if to.complete() and to.cube.read(ROOT) != work.root:
        raise TargetError(f"{to.url} holds another cube: choose another place, or remove that cube first")
    with present(to), to.storing():
        if not to.complete():  # the very same cube may have been built there
            _claim(to, work.id)
        clear_unfinished(to)
        report, survey = _written(work, client, watcher)
        catalog = ""
        if report.passed:
            if not to.complete():
                stake_publication(to, work.id)
                to.cube.secure(entry.key for entry in to.cube.list())
                to.cube.keep(ROOT, work.root)
            catalog = work.publish(report, survey)
        to.build.keep(REPORT, json.dumps(report.document(), indent=1).encode())
    return Copied(
        url=to.url,
        patches=work.patches,
        objects=len(work.moved),
        bytes=sum(work.moved.values()),
        standing=work.standing,
        tiles=work.tiles,
        report=report,
        catalog=catalog,
        seconds=time.monotonic() - started,
    )


def _claim(to: Target, name: str) -> None:
    claim = standing_claim(to.build)
    if claim is None:
        if to.build.exists("plan.json") or any(True for _ in to.cube.list()):
            raise TargetError(f"{to.url} is not empty and no copy that was begun here: choose another place")
        with to.writable():
            claim = stake(to.build, None, name)
    if claim.plan != name:
        who = living_build(to.build)
        remedy = f"it is being written by {who}" if who else f"`cube clean {to.url}` removes it"
        raise TargetError(f"{to.url} holds an unfinished build, or the copy of something else: choose another place; {remedy}")


def _written(work: _Whole | _Part, client: Client | None, watcher: Watcher) -> tuple[Report, Survey | None]:
    """Write what is missing, verify, write once more what was found damaged; take a survey where the catalog needs one."""
    damaged: Damaged = set(), set()
    for _ in range(_ROUNDS):
        watcher.start("copying", work.patches)
        work.write(client, damaged, watcher)
        surveyor = work.surveyor()
        report = verify_unrooted(work.to, work.root, client, watcher=watcher, surveyor=surveyor)
        if report.passed:
            break
        named = {finding.where.rpartition(" in ")[2] for finding in report.findings}
        damaged = set(report.damaged), named
    return report, surveyor.survey() if surveyor is not None and report.passed else None


def _recipe_of(source: Target) -> Recipe | None:
    """Return the recipe of a cube, where that is still known."""
    document = recipe_document(source)
    try:
        return None if document is None else Recipe.model_validate_json(document)
    except ValueError:
        return None


class _Whole:
    """Every object of a cube, as it is."""

    def __init__(self, source: Target, to: Target, root: bytes, document: Mapping[str, Any]) -> None:
        self.source, self.to, self.root = source, to, root
        self.id = f"{COPY}{blake3(root).hexdigest(16)}"
        self.moved: dict[str, int] = {}
        self.standing = 0
        self.tiles: dict[str, tuple[int, int]] = {}
        specs = array_specs(document)
        facts = document["attributes"]["cube"]
        self._batched = [spec for spec in specs if spec.path in (*facts["modalities"], HEADERS)]
        self.patches = self._batched[0].shape[0]
        self._slots = self._batched[0].chunks[0]
        self._small = {key for spec in specs if spec not in self._batched for key in spec.object_keys()}
        self._small |= facts["certificate"]["metadata"].keys()

    def write(self, client: Client | None, damaged: Damaged, watcher: Watcher) -> None:
        """Copy the objects that are not there with their size, and those found damaged."""
        batches = [batch_keys(self._batched, index) for index in range(self._batched[0].grid[0])]
        sizes = self._sizes({key for keys in batches for key in keys} | self._small)
        there = {entry.key: entry.size for entry in self.to.cube.list()}
        again = {key for index in damaged[0] for key in batches[index] if key in sizes}
        again |= {key for key in self._small for name in damaged[1] if key == name or key.startswith(f"{name}/c/")}
        left = {key for key, size in sizes.items() if there.get(key) != size} | again
        self.standing = max(0, len(sizes) - len(left) - len(self.moved))
        groups = {len(batches): sorted(self._small), **dict(enumerate(batches))}
        for place, copied in run(client, copy_objects, self._tasks(groups, left, sizes)):
            self.moved |= copied
            watcher.count(max(0, min(self._slots, self.patches - place * self._slots)), sum(copied.values()))

    def _sizes(self, keys: set[str]) -> dict[str, int]:
        sizes = {entry.key: entry.size for entry in self.source.cube.list() if entry.key in keys}
        if not sizes:
            raise RequestError(
                f"{self.source.url} cannot be listed, so it cannot be copied whole; --where copies without a listing"
            )
        further = {key for key in keys if key.startswith(f"{HEADERS}/c/") and not key.endswith("/0")}  # stored where needed
        if missing := sorted(keys - sizes.keys() - further):
            raise CorruptError(f"{self.source.url} lacks {len(missing):,} objects, such as {missing[0]}: see `cube verify`")
        return sizes

    def _tasks(self, groups: Mapping[int, list[str]], left: set[str], sizes: Mapping[str, int]) -> Iterator[Task]:
        for place, keys in groups.items():
            if wanted := {key: sizes[key] for key in keys if key in left}:
                yield f"{self.id}-{place}", (place, self.source.cube, self.to.cube, wanted)

    def surveyor(self) -> Surveyor | None:
        """Return what the catalog of a cube of another name is made by."""
        recipe = None if self._same_name() else _recipe_of(self.source)
        return None if recipe is None else Surveyor(recipe)

    def _same_name(self) -> bool:
        return self.source.cube.url.rpartition("/")[2] == self.to.cube.url.rpartition("/")[2]

    def publish(self, report: Report, survey: Survey | None) -> str:
        """Copy the catalog, its root last; a cube of another name gets one of its own, for the old one names the old."""
        keys = sorted((entry.key for entry in self.source.stac.list()), key=lambda key: _LAST.get(key, 0))
        if COLLECTION not in keys:
            return ""
        if not self._same_name():
            document = require_object(self.source.stac.read(COLLECTION), f"{self.source.stac.url}/{COLLECTION}")
            return _described(self.source, self.to, report, survey, rejected=_reasons(document))
        publish_files(self.to.stac, ((key, self.source.stac.read(key)) for key in keys))
        return f"{self.to.stac.url}/{COLLECTION}"


class _Part:
    """Some patches of a cube as a cube of their own."""

    def __init__(self, source: Target, to: Target, subset: Subset) -> None:
        self.source, self.to, self.subset = source, to, subset
        self.id = subset.id
        self._stored, self.root = subset_documents(subset)
        self.moved: dict[str, int] = {}
        self.standing = 0
        self.tiles: dict[str, tuple[int, int]] = {}
        self.patches = len(subset.rows)

    def write(self, client: Client | None, damaged: Damaged, watcher: Watcher) -> None:
        """Write the shards that have no receipt, or are damaged, then everything small."""
        there = {entry.key: entry.size for entry in self.to.cube.list()}
        done = {index: objects for index, objects in self._receipts() if index not in damaged[0]}
        stands = {index for index, objects in done.items() if all(there.get(key) == size for key, size in objects.items())}
        self.standing = max(self.standing, sum(len(done[index]) for index in stands) - len(self.moved))
        left = [index for index in range(self.subset.tasks) if index not in stands]
        for receipt in run(client, write_shard, shard_tasks(self.subset, self.source, self.to, left)):
            self.to.build.keep(self._key(receipt["index"]), json.dumps(receipt).encode())
            self.moved |= receipt["objects"]
            for name, (used, stored) in receipt["tiles"].items():
                before = self.tiles.get(name, (0, 0))
                self.tiles[name] = before[0] + used, before[1] + stored
            watcher.count(receipt["patches"], sum(receipt["objects"].values()))
        for spec in self.subset.specs:
            if spec.path in self.subset.values:
                write_array(self.to.cube, spec, self.subset.values[spec.path])
        for key, data in self._stored.items():
            self.to.cube.write(key, data)

    def _key(self, index: int) -> str:
        return f"receipts/{self.id}-{index}.json"

    def _receipts(self) -> Iterator[tuple[int, dict[str, int]]]:
        """Yield the shards that an earlier run finished, and the bytes of their objects."""
        kept = {entry.key for entry in self.to.build.list("receipts")}
        indexes = [index for index in range(self.subset.tasks) if self._key(index) in kept]
        for index, data in zip(indexes, self.to.build.read_many([self._key(index) for index in indexes]), strict=True):
            if isinstance(data, OSError):
                raise data
            with suppress(ValueError, LookupError, TypeError, AttributeError):  # a damaged one: its shard is written again
                objects = parse_object(data)["objects"]
                yield index, {str(key): int(size) for key, size in objects.items()}

    def surveyor(self) -> Surveyor | None:
        """Return what the catalog is made by."""
        recipe = _recipe_of(self.source)
        return None if recipe is None else Surveyor(recipe)

    def publish(self, report: Report, survey: Survey | None) -> str:
        """Describe the new cube."""
        return _described(self.source, self.to, report, survey)


def _reasons(collection: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reason of every file that a catalog counts as rejected; a count that is none counts nothing."""
    counted = collection.get("patchcube:rejected")
    for reason, count in counted.items() if isinstance(counted, dict) else ():
        if isinstance(count, int):
            yield from repeat(reason, min(count, _MOST_REJECTED))


def _described(source: Target, to: Target, report: Report, survey: Survey | None, *, rejected: Iterable[str] = ()) -> str:
    """Publish a catalog by the recipe of the source, where that is still known."""
    recipe = _recipe_of(source)
    if recipe is None or survey is None:
        return ""
    return publish(describe(to, recipe, report, survey, rejected=rejected), to, report)


def batch_keys(specs: Iterable[ArraySpec], index: int) -> list[str]:
    """Return the keys of the shards of one batch, and of all its headers that there may be."""
    return [
        chunk_key(spec.path, (index, *(0 for _ in spec.shape[2:]), last)) for spec in specs for last in range(spec.grid[-1])
    ]


def copy_objects(place: int, source: Store, to: Store, sizes: Mapping[str, int]) -> tuple[int, dict[str, int]]:
    """Copy objects byte for byte, a few at a time; return ``place`` and their sizes. Runs on a Dask worker."""
    with ThreadPoolExecutor(_STREAMS, thread_name_prefix="cube-copy") as pool:
        for _ in pool.map(_copier(source, to), sizes.items()):
            pass
    return place, dict(sizes)


def _copier(source: Store, to: Store) -> Callable[[tuple[str, int]], None]:
    def copy(item: tuple[str, int]) -> None:
        key, size = item
        with to.writing(key) as file:
            for start in range(0, size, _PIECE):
                stop = min(size, start + _PIECE)
                piece = source.read_range(key, start, stop)
                if len(piece) != stop - start:
                    raise OSError(f"{source.url}/{key}: {stop - start:,} bytes were asked for, {len(piece):,} came")
                file.write(piece)

    return copy
