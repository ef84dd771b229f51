"""Plan → shards, receipts, and the root metadata last. The only room that submits work that writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from cube.convert.labels import label_values
from cube.convert.plan import Plan
from cube.convert.preparation import claimed
from cube.convert.worker import Receipt, read_receipt, receipt_key, run_batch
from cube.errors import CorruptError, TargetError, UnusableError
from cube.format.arrays import group_document, metadata_bytes, values_digest
from cube.format.certificate import certificate, pixels_digest, seal
from cube.format.conventions import convention_attributes
from cube.format.layout import FORMAT, ORIGINALS, constant_arrays, label_arrays, original_arrays
from cube.format.small import write_array
from cube.format.target import ROOT, Target
from cube.records.claims import stake_publication
from cube.records.presence import clear_unfinished
from cube.store.protocol import Store
from cube.store.urls import open_store
from cube.work.clusters import Task, run
from cube.work.watch import SILENT, Watcher

_CERTAIN = 20
"""Rejected files, and none that was not, by which it is certain that no other will do."""
REPORT = "report.json"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a build wrote: one summary per batch, in order, and which of them an earlier run had left."""

    receipts: tuple[Receipt, ...]
    resumed: int
    """Batches found finished."""

    @property
    def stored_bytes(self) -> int:
        """Bytes of all shards and headers."""
        return sum(sum(receipt["objects"].values()) for receipt in self.receipts)

    @property
    def shard_bytes(self) -> int:
        """Bytes of all shards."""
        sizes = (receipt["objects"].items() for receipt in self.receipts)
        return sum(size for items in sizes for key, size in items if not key.startswith(ORIGINALS))

    @property
    def peak_bytes(self) -> int:
        """Most memory a worker had."""
        return max(int(receipt["peak_bytes"]) for receipt in self.receipts)

    @property
    def rejected(self) -> list[tuple[str, str, str]]:
        """Files that could not be used when they were read: path, reason, detail."""
        return [tuple(item) for receipt in self.receipts for item in receipt["rejected"]]

    def tiles(self) -> dict[str, tuple[int, int]]:
        """Return, by modality, the tiles of all patches and how many of them are stored."""
        totals: dict[str, tuple[int, int]] = {}
        for receipt in self.receipts:
            for name, (used, stored) in receipt["tiles"].items():
                before = totals.get(name, (0, 0))
                totals[name] = before[0] + used, before[1] + stored
        return totals


def write_cube(plan: Plan, target: Target, client: Client | None, watcher: Watcher = SILENT) -> Written:
    """Write a cube: what an earlier run finished is kept, the rest is written, the root comes last.

    Raises ``TargetError`` if the target holds another plan's cube, ``IncompleteError`` if a file is bad and the policy is
    ``fail``, ``UnusableError`` if all files are, ``StorageError`` if writing fails for good. Whatever is written stays and the
    next run goes on from it.
    """
    with claimed(plan, target):
        return _write(plan, target, client, watcher)


def _write(plan: Plan, target: Target, client: Client | None, watcher: Watcher) -> Written:
    clear_unfinished(target)
    done = _finished(plan, target)
    watcher.start("writing", plan.patches)
    watcher.resume(sum(receipt["stop"] - receipt["start"] for receipt in done.values()))
    receipts = dict(done)
    left = [index for index in range(plan.tasks) if index not in done]
    for receipt in run(client, run_batch, _tasks(plan, target, left)):
        receipts[receipt["index"]] = receipt
        watcher.count(receipt["stop"] - receipt["start"], receipt["bytes_in"], len(receipt["rejected"]))
        _require_usable(receipts.values(), least=_CERTAIN)
    _require_usable(receipts.values(), least=1)
    if left or not target.complete() or _found_damaged(target):
        publish_root(plan, target)
        clear_unfinished(target)
    return Written(receipts=tuple(receipts[index] for index in sorted(receipts)), resumed=len(done))


def _require_usable(receipts: Collection[Receipt], *, least: int) -> None:
    """Raise ``UnusableError`` if no image was stored, and at least so many files were rejected."""
    if any(used for receipt in receipts for used, _ in receipt["tiles"].values()):
        return
    rejected = [item for receipt in receipts for item in receipt["rejected"]]
    if len(rejected) < least:
        return
    counts = Counter(reason for _, reason, _ in rejected).most_common()
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts)
    path, reason, detail = rejected[0]
    raise UnusableError(
        f"nothing could be converted: no image was kept and {len(rejected):,} files were rejected ({reasons}), such as {path}: "
        f"{reason}: {detail}. Is it the right recipe, and are the files whole? Mend that and run again; no cube was made"
    )


def _found_damaged(target: Target) -> bool:
    """Tell whether the last verification of a build found something wrong."""
    try:
        return not json.loads(target.build.read(REPORT))["passed"]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return False


def forget_batches(plan: Plan, target: Target, indexes: Iterable[int]) -> None:
    """Remove the receipts of some batches, so that the next run writes them again."""
    for index in indexes:
        with suppress(FileNotFoundError):  # another run of the same plan may have been faster
            target.build.remove(receipt_key(plan.batch_digests[index]))


def _finished(plan: Plan, target: Target) -> dict[int, Receipt]:
    """Return the receipts of an earlier run whose objects are all there with the sizes it wrote.

    Batches whose files were written anew since are not among them. Until the cube is complete, batches with rejected files
    are not either: the files may have been mended.
    """
    kept = {entry.key for entry in target.build.list("receipts")}
    keys = {i: receipt_key(digest) for i, digest in enumerate(plan.batch_digests) if receipt_key(digest) in kept}
    if not keys:
        return {}
    there = {entry.key: entry.size for entry in target.cube.list()}
    done, complete = {}, target.complete()
    for index, receipt in _read_receipts(target.build, keys):
        if receipt is None or any(there.get(key) != size for key, size in receipt["objects"].items()):
            continue
        if receipt["stamp"] != plan.stamp(index):
            if complete:
                raise _built_from_others(target)
            continue
        if complete or not receipt["rejected"]:
            done[index] = {name: value for name, value in receipt.items() if name != "columns"}
    return done


def _built_from_others(target: Target) -> TargetError:
    return TargetError(
        f"{target.url} was built from other files than these, or they were written anew since: "
        "`cube verify T --source S` compares them; to build again, choose another --to"
    )


def _read_receipts(build: Store, keys: dict[int, str]) -> Iterator[tuple[int, Receipt | None]]:
    """Yield the receipts of batches; None for one that is damaged."""
    for index, data in zip(keys, build.read_many(list(keys.values())), strict=True):
        if isinstance(data, OSError):
            raise data
        yield index, read_receipt(data) or read_receipt(build.read(keys[index]))  # damaged on its way, or for good


def _whole_receipts(target: Target, keys: dict[int, str]) -> Iterator[Receipt]:
    for index, receipt in _read_receipts(target.build, keys):
        if receipt is None:
            raise CorruptError(f"{target.build.url}/{keys[index]}: damaged since it was written; run again")
        yield receipt


def _tasks(plan: Plan, target: Target, indexes: list[int]) -> Iterator[Task]:
    source = open_store(plan.inventory.source, options=plan.inventory.options)
    header = next(spec for spec in plan.arrays if spec.path == f"{ORIGINALS}/header")
    for index in indexes:
        batch = plan.batch(index)
        yield f"write-{batch.digest}", (plan.job, batch, source, target, header, plan.digest)


def publish_root(plan: Plan, target: Target) -> None:
    """Write coordinates, then each array's metadata, then the root: only now can the cube be opened.

    Raises ``TargetError`` if another plan has taken the target over.
    """
    stake_publication(target, plan.digest)
    keys = {index: receipt_key(digest) for index, digest in enumerate(plan.batch_digests)}
    values = label_values(plan, _whole_receipts(target, keys))
    digests = {}
    small = [*label_arrays(plan.recipe, plan.patches), *original_arrays(plan.recipe, plan.patches)]
    written = [(spec, values[spec.path]) for spec in small if spec.path in values]
    for spec, array in (*written, *constant_arrays(plan.recipe)):
        typed = np.ascontiguousarray(array, dtype=spec.dtype)
        write_array(target.cube, spec, typed)
        digests[spec.path] = values_digest(typed)
    pixels = pixels_digest(values["patch"], values["digest"])
    documents = {spec.path: spec.document() for spec in plan.arrays}
    documents[ORIGINALS] = group_document({"description": "what the source files hold besides pixels"})
    stored = {f"{path}/zarr.json": metadata_bytes(document) for path, document in documents.items()}
    for key, data in stored.items():
        target.cube.write(key, data)
    attributes = root_attributes(plan, certificate(pixels, digests, stored))
    target.cube.write(ROOT, seal({**group_document(attributes), "consolidated_metadata": consolidated(documents)}))


def consolidated(documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the metadata of all arrays and groups as the root document repeats them."""
    return {"kind": "inline", "must_understand": False, "metadata": documents}


def opening_line(seasons: NDArray[Any]) -> str:
    """Return the line that opens the first season of a cube well, by the season (patch) of every patch.

    A slice is read many times faster than the list of positions that ``sel`` makes; an index keeps its label in memory, where
    ``groupby`` needs it; without its encoding what is chunked anew can be written.
    """
    first = int((seasons == seasons[0]).sum())
    return f'xr.open_zarr(URL, chunks=None).isel(patch=slice(0, {first})).set_xindex("season").drop_encoding().chunk(patch=128)'


def root_attributes(plan: Plan, certified: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the root group."""
    recipe = plan.recipe
    labels = [spec.path for spec in label_arrays(recipe, plan.patches)]
    constants = [spec.path for spec, _ in constant_arrays(recipe)]
    layout = recipe.layout
    return {
        "title": recipe.title,
        "Conventions": "CF-1.11",
        **convention_attributes(recipe),
        "coordinates": " ".join((*labels, *constants)),
        "open_with": opening_line(plan.inventory.season),
        "notice": "Equal tiles share their bytes: copy the objects of this store as they are, never rewrite them.",
        "cube": {
            "format": FORMAT,
            "recipe": recipe.name,
            "plan": plan.digest,
            "modalities": {name: [band.name for band in m.bands] for name, m in recipe.modalities.items()},
            "seasons": {
                name: {"start": season.start.isoformat(), "end": season.end.isoformat()}
                for name, season in recipe.seasons.items()
            },
            "tile": layout.tile,
            "saturated": {name: m.saturated for name, m in recipe.modalities.items() if m.saturated is not None},
            "software": dict(plan.software),
            "certificate": certified,
        },
    }
