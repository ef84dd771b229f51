"""What a copy is made of: every object of a cube, or some patches as a cube of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import repeat
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from cube.catalog.describe import CATALOG, describe
from cube.catalog.publish import publish, publish_files
from cube.errors import CorruptError, RequestError
from cube.format.arrays import ArraySpec, chunk_key
from cube.format.documents import parse_object, require_object
from cube.format.originals import HEADERS
from cube.format.small import write_array
from cube.format.target import COLLECTION, Target
from cube.jobs.subset import (
    Subset,
    array_specs,
    recipe_document,
    shard_tasks,
    subset_documents,
    write_shard,
)
from cube.recipes.recipe import Recipe
from cube.records.claims import COPY
from cube.store.protocol import Readable, Store
from cube.survey.summary import Survey
from cube.survey.surveyor import Surveyor
from cube.verify.report import Report
from cube.work.clusters import Task, run
from cube.work.watch import Watcher

if TYPE_CHECKING:
    from distributed import Client

_STREAMS = 4
"""Objects that one task copies at the same time."""
_PIECE = 16 * 2**20
"""Bytes of one object that are under way at the same time."""
_LAST = {COLLECTION: 1, CATALOG: 2}
"""What of a catalog is written after everything that it names."""
_MOST_REJECTED = 10**7
"""Files of one reason that are believed."""
Damaged = tuple[set[int], set[str]]
"""Batches, and keys of other objects."""


def _recipe_of(source: Target) -> Recipe | None:
    """Return the recipe of a cube, where that is still known."""
    document = recipe_document(source)
    try:
        return None if document is None else Recipe.model_validate_json(document)
    except ValueError:
        return None


class Whole:
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


class Part:
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


def copy_objects(place: int, source: Readable, to: Store, sizes: Mapping[str, int]) -> tuple[int, dict[str, int]]:
    """Copy objects byte for byte, a few at a time; return ``place`` and their sizes. Runs on a Dask worker."""
    with ThreadPoolExecutor(_STREAMS, thread_name_prefix="cube-copy") as pool:
        for _ in pool.map(_copier(source, to), sizes.items()):
            pass
    return place, dict(sizes)


def _copier(source: Readable, to: Store) -> Callable[[tuple[str, int]], None]:
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
