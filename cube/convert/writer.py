"""Plan → shards, receipts, and the root metadata last. The only room that submits work that writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cube.convert.growing import end_growth, require_base
from cube.convert.growth import grown_root
from cube.convert.labels import Arrays, label_values
from cube.convert.plan import Plan
from cube.convert.preparation import claimed
from cube.convert.said import Said, add_statements
from cube.convert.statement import root_attributes
from cube.convert.tolerance import CERTAIN, TOLERANT, Outcome, Tolerance
from cube.convert.worker import run_batch
from cube.errors import CorruptError, TargetError
from cube.format.additions import definition_arrays
from cube.format.arrays import ArraySpec, group_document, metadata_bytes, values_digest
from cube.format.certificate import certificate, pixels_digest, seal
from cube.format.documents import parse_object
from cube.format.layout import constant_arrays, label_arrays, original_arrays
from cube.format.originals import HEADERS, ORIGINALS, header_spec
from cube.format.root import consolidated, read_root
from cube.format.small import write_array
from cube.format.target import ROOT, Target
from cube.records.claims import require_claim, stake_publication
from cube.records.presence import clear_unfinished
from cube.records.receipts import Receipt, read_receipt, receipt_key
from cube.source.statements import Statements, statement_counts
from cube.store.protocol import Store
from cube.work.clusters import Task, run
from cube.work.watch import SILENT, Watcher

if TYPE_CHECKING:
    from distributed import Client

Constant = tuple[ArraySpec, NDArray[Any]]
REPORT = "report.json"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a build wrote: one summary per batch, in order, and which of them an earlier run had left."""

    receipts: tuple[Receipt, ...]
    resumed: int
    """Batches found finished."""
    root: bytes = b""
    """Root document of a cube that has grown, to be put in the place of the old one once all was verified."""

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
    def new_bytes(self) -> int:
        """Bytes of all shards, without those that were taken over from a cube that has grown."""
        return self.shard_bytes - sum(int(receipt["taken_over"]) for receipt in self.receipts)

    @property
    def peak_bytes(self) -> int:
        """Most memory a worker had."""
        return max((int(receipt["peak_bytes"]) for receipt in self.receipts), default=0)

    @property
    def rejected(self) -> list[tuple[str, str, str]]:
        """Files that could not be used when they were read: path, reason, detail."""
        return [tuple(item) for receipt in self.receipts for item in receipt["rejected"]]

    def statements(self) -> dict[str, dict[str, int]]:
        """Return, by modality, what files say about their pixels beside them, in words, and how many say it."""
        names = self.receipts[0]["statements"] if self.receipts else ()
        counts: dict[str, Counter[Statements]] = {name: Counter() for name in names}
        for receipt in self.receipts:
            add_statements(counts, receipt)
        return statement_counts(counts)

    def tiles(self) -> dict[str, tuple[int, int]]:
        """Return, by modality, the tiles of all patches and how many of them are stored."""
        totals: dict[str, tuple[int, int]] = {}
        for receipt in self.receipts:
            for name, (used, stored) in receipt["tiles"].items():
                before = totals.get(name, (0, 0))
                totals[name] = before[0] + used, before[1] + stored
        return totals


def write_cube(
    plan: Plan, target: Target, client: Client | None, watcher: Watcher = SILENT, tolerance: Tolerance = TOLERANT
) -> Written:
    """Write a cube: what an earlier run finished is kept, the rest is written, the root comes last.

    Raises ``TargetError`` if the target holds another plan's cube, ``IncompleteError`` if a file is bad and the policy is
    ``fail``, ``UnusableError`` if all files are bad or more than the ``tolerance`` bears, ``StorageError`` if writing fails
    for good. Whatever is written stays and the next run goes on from it.
    """
    with claimed(plan, target):
        written = write_claimed(plan, target, client, watcher, tolerance)
        if written.root:
            replace_root(plan, target, written.root)
        return written


def write_claimed(
    plan: Plan, target: Target, client: Client | None, watcher: Watcher = SILENT, tolerance: Tolerance = TOLERANT
) -> Written:
    """Write a cube to a target that is held for its plan; of one that grows, all but the root. Raises as it does."""
    clear_unfinished(target)
    done = _finished(plan, target)
    watcher.start("writing", plan.patches)
    watcher.resume(sum(receipt["stop"] - receipt["start"] for receipt in done.values()))
    receipts, outcome = dict(done), Outcome(plan.inventory.rejected, grows=plan.base is not None)
    for receipt in done.values():
        outcome.add(receipt)
    outcome.require_borne(tolerance)
    left = [index for index in plan.indexes if index not in done]
    # Whole shards first: only then is the one that readers of the old cube may be reading replaced.
    new, cut_short = [i for i in left if not plan.cut_short(i)], [i for i in left if plan.cut_short(i)]
    for receipt in chain.from_iterable(run(client, run_batch, _tasks(plan, target, of)) for of in (new, cut_short) if of):
        receipts[receipt["index"]] = receipt
        watcher.count(receipt["stop"] - receipt["start"], receipt["bytes_in"], len(receipt["rejected"]))
        outcome.add(receipt)
        outcome.require_usable(CERTAIN)
        outcome.require_borne(tolerance)
    outcome.require_usable(1)
    outcome.require_borne(tolerance)
    root = b""
    if plan.base is not None:
        root = _grown(plan, target)
    elif left or not target.complete() or _found_damaged(target):
        publish_root(plan, target)
    if left or root:
        clear_unfinished(target)
    return Written(receipts=tuple(receipts[index] for index in sorted(receipts)), resumed=len(done), root=root)


def _grown(plan: Plan, target: Target) -> bytes:
    """Write the labels and the metadata of a cube with its new patches; return the root document that is to come."""
    require_claim(target, plan.digest)
    receipts = {index: receipt_key(plan.batch_digest(index)) for index in plan.indexes}
    return grown_root(plan, require_base(plan, target), _whole_receipts(target, receipts), target)


def replace_root(plan: Plan, target: Target, root: bytes) -> None:
    """Put the root of a cube that has grown in the place of the old one: only now can the new patches be seen.

    Raises ``TargetError`` if another run has changed the cube, or claimed it.
    """
    stake_publication(target, plan.digest)
    before, document = read_root(target)
    standing = plan.base is not None and document["attributes"]["cube"]["certificate"]["root"] == plan.base.root
    if not standing or not target.cube.replace(ROOT, root, before):
        raise TargetError(f"{target.url} was changed by another run while it grew: look at it, and run again")
    end_growth(target)


def _found_damaged(target: Target) -> bool:
    """Tell whether the last verification of a build found something wrong."""
    try:
        return not parse_object(target.build.read(REPORT))["passed"]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return False


def forget_batches(plan: Plan, target: Target, indexes: Iterable[int]) -> None:
    """Remove the receipts of some batches, so that the next run writes them again."""
    for index in set(indexes) & set(plan.indexes):
        with suppress(FileNotFoundError):  # another run of the same plan may have been faster
            target.build.remove(receipt_key(plan.batch_digest(index)))


def _finished(plan: Plan, target: Target) -> dict[int, Receipt]:
    """Return the receipts of an earlier run whose objects are all there with the sizes it wrote.

    Batches whose files were written anew since are not among them. Until the cube is complete, batches with rejected files
    are not either: the files may have been mended.
    """
    kept = {entry.key for entry in target.build.list("receipts")}
    keys = {index: key for index in plan.indexes if (key := receipt_key(plan.batch_digest(index))) in kept}
    if not keys:
        return {}
    there = {entry.key: entry.size for entry in target.cube.list()}
    done, complete = {}, (plan.base is None and target.complete())
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
    source = plan.inventory.opened
    header = next(spec for spec in plan.arrays if spec.path == HEADERS)
    for index in indexes:
        batch = plan.batch(index)
        yield f"write-{batch.digest}", (plan.job, batch, source.part(batch.files), target, header, plan.digest)


def publish_root(plan: Plan, target: Target) -> None:
    """Write coordinates, then each array's metadata, then the root: only now can the cube be opened.

    Raises ``TargetError`` if another plan has taken the target over.
    """
    stake_publication(target, plan.digest)
    receipts = {index: receipt_key(plan.batch_digest(index)) for index in plan.indexes}
    said = Said(plan.job.layouts)
    values = label_values(plan, said.heard(_whole_receipts(target, receipts)))
    digests = {}
    arrays, labels, constants = _final_arrays(plan, values, said)
    small = [*labels, *original_arrays(plan.recipe, plan.patches)]
    written = [(spec, values[spec.path]) for spec in small if spec.path in values]
    keys: list[str] = []
    for spec, array in (*written, *constants):
        typed = np.ascontiguousarray(array, dtype=spec.dtype)
        keys += write_array(target.cube, spec, typed)
        digests[spec.path] = values_digest(typed)
    pixels = pixels_digest(values["patch"], values["digest"])
    documents = {spec.path: spec.document() for spec in arrays}
    documents[ORIGINALS] = group_document({"description": "what the source files hold besides pixels"})
    stored = {f"{path}/zarr.json": metadata_bytes(document) for path, document in documents.items()}
    for key, data in stored.items():
        target.cube.write(key, data)
    target.cube.secure([*keys, *stored])
    coordinates = [spec.path for spec in (*labels, *(spec for spec, _ in constants))]
    attributes = root_attributes(plan, coordinates, certificate(pixels, digests, stored))
    target.cube.keep(ROOT, seal({**group_document(attributes), "consolidated_metadata": consolidated(documents)}))


def _final_arrays(plan: Plan, values: Arrays, said: Said) -> tuple[list[ArraySpec], list[ArraySpec], list[Constant]]:
    """Return all arrays of a cube, its labels and its constants, with what only the files told."""
    labels, constants = label_arrays(plan.recipe, plan.patches), constant_arrays(plan.recipe)
    more: list[ArraySpec] = []
    if "crs_wkt" in values:
        label, table = definition_arrays(plan.recipe, plan.patches, values["crs_wkt"].tolist())
        labels.append(label)
        constants.append(table)
        more = [label, table[0]]
    longest = int(values[f"{ORIGINALS}/header_size"].max(initial=0))
    arrays = [replace(spec, attributes={**spec.attributes, **said.attributes(spec.path)}) for spec in plan.arrays]
    return [header_spec(spec, longest) if spec.path == HEADERS else spec for spec in (*arrays, *more)], labels, constants
