"""A cube that grows, by the rules of the format: for tests, made of the package's own pieces.

New patches come after all old ones. What a reader of the old cube may still fetch is never changed: old tiles keep their
bytes and their places, old slots keep their entries, coordinate chunks only get more rows. The root comes last.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cube.convert.labels import label_values
from cube.convert.plan import Batch, Plan, make_plan
from cube.convert.worker import _Columns, read_patches, write_batch
from cube.convert.writer import root_attributes
from cube.errors import TargetError
from cube.format.arrays import (
    ArraySpec,
    chunk_key,
    decode_chunk,
    encode_chunk,
    group_document,
    metadata_bytes,
    read_spec,
    values_digest,
)
from cube.format.certificate import certificate, pixels_digest, seal
from cube.format.layout import constant_arrays, label_arrays
from cube.format.originals import ORIGINALS
from cube.format.root import read_root
from cube.format.target import ROOT, Target
from cube.format.tiles import ShardWriter
from cube.recipes.recipe import Recipe
from cube.records.receipts import Receipt, receipt_key
from cube.source.inventory import Inventory
from cube.source.scan import examine, scan
from cube.store.protocol import Store
from cube.store.urls import open_store

Look = Callable[[str], None]
"""Called with the key of every object of the cube that has been written."""


@dataclass(frozen=True)
class Watched:
    """A store that tells of every object it has written."""

    store: Store
    look: Look

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def write(self, key: str, data: bytes) -> None:
        self.store.write(key, data)
        self.look(key)

    @contextmanager
    def writing(self, key: str) -> Iterator[Any]:
        with self.store.writing(key) as file:
            yield file
        self.look(key)


@dataclass(frozen=True)
class Standing:
    """A finished cube, as its own store says it: no build record is needed to let it grow."""

    root: bytes
    specs: dict[str, ArraySpec]
    digests: dict[str, str]
    """Small array → certified hash of its values."""
    values: dict[str, np.ndarray]
    """Per-patch array, headers excepted → values."""

    @property
    def patches(self) -> int:
        return len(self.values["patch"])

    @classmethod
    def of(cls, target: Target) -> Standing:
        root, document = read_root(target)
        listed = document["consolidated_metadata"]["metadata"].items()
        specs = {path: read_spec(path, item) for path, item in listed if item["node_type"] == "array"}
        digests = document["attributes"]["cube"]["certificate"]["arrays"]
        small = [specs[path] for path in digests if specs[path].dimensions[0] == "patch"]
        return cls(root, specs, digests, {spec.path: _read(target.cube, spec) for spec in small})

    def inventory(self, recipe: Recipe, new: Inventory) -> Inventory:
        """Return the patches of the cube, then the new ones."""
        values = self.values
        paths = [[bytes(text).rstrip(b"\0").decode() for text in row] for row in values[f"{ORIGINALS}/path"]]
        sizes = values[f"{ORIGINALS}/size"]
        seasons = [list(recipe.seasons).index(name) for name in values["season"]]
        return replace(
            new,
            patch=np.concatenate([values["patch"].astype(object), new.patch]),
            season=np.concatenate([np.array(seasons, np.int8), new.season]),
            scene=np.concatenate([values["scene"], new.scene]),
            number=np.concatenate([values["number"], new.number]),
            path=np.concatenate([np.where(sizes >= 0, np.array(paths, object), ""), new.path]),
            size=np.concatenate([sizes, new.size]),
            stamp=np.concatenate([np.full(sizes.shape, "", object), new.stamp]),
        )


def _read(store: Store, spec: ArraySpec) -> np.ndarray:
    keys = [chunk_key(spec.path, (place, *(0 for _ in spec.shape[1:]))) for place in range(spec.grid[0])]
    return np.concatenate([decode_chunk(spec, store.read(key)) for key in keys])[: spec.shape[0]]


def grow(recipe: Recipe, source: str, target: Target, *, look: Look = lambda key: None) -> Plan:
    """Append the patches of a source that a cube does not have, and return the plan of the grown cube."""
    standing = Standing.of(target)
    found = examine(recipe, scan(recipe, source))
    new = found.take(np.flatnonzero(~np.isin(found.patch.astype(str), standing.values["patch"])))
    settings: dict[str, Any] = {"incomplete": recipe.source.incomplete, "software": _software(standing.root)}
    fresh = make_plan(recipe, new, **settings)
    plan = make_plan(recipe, standing.inventory(recipe, fresh.inventory), **settings)
    assert plan.patches == standing.patches + fresh.patches
    _clear(plan, target)
    watched = replace(target, cube=Watched(target.cube, look))
    receipts = [*_added(plan, standing, source, watched), *_continued(plan, standing, source, watched)]
    receipts.sort(key=lambda receipt: int(receipt["index"]))
    _publish(plan, standing, label_values(fresh, receipts), watched)
    return plan


def _software(root: bytes) -> dict[str, str]:
    software: dict[str, str] = json.loads(root)["attributes"]["cube"]["software"]
    return software


def _clear(plan: Plan, target: Target) -> None:
    """Remove what a growth left behind that was given up."""
    known = {ROOT, f"{ORIGINALS}/zarr.json"}
    for spec in plan.arrays:
        known |= {f"{spec.path}/zarr.json", *spec.object_keys()}
    for entry in list(target.cube.list()):
        if entry.key not in known:
            target.cube.remove(entry.key)


def _header(plan: Plan) -> ArraySpec:
    return next(spec for spec in plan.arrays if spec.path == f"{ORIGINALS}/header")


def _added(plan: Plan, standing: Standing, source: str, target: Target) -> Iterator[Receipt]:
    """Write the shards that hold new patches only."""
    for index in range(math.ceil(standing.patches / plan.recipe.layout.shard), plan.tasks):
        batch = plan.batch(index)
        write_batch(plan.job, batch, open_store(source), target, _header(plan))
        yield json.loads(target.build.read(receipt_key(batch.digest)))


def _continued(plan: Plan, standing: Standing, source: str, target: Target) -> Iterator[Receipt]:
    """Go on with the shards that are cut short."""
    index, kept = divmod(standing.patches, plan.recipe.layout.shard)
    if kept:
        batch = plan.batch(index)
        new = replace(batch, start=batch.start + kept, patch=batch.patch[kept:], path=batch.path[kept:])
        yield {"index": index, "columns": _continue(plan, new, kept, open_store(source), target)}


def _continue(plan: Plan, batch: Batch, kept: int, source: Store, target: Target) -> dict[str, Any]:
    columns = _Columns(plan.job, len(batch.patch))
    with ExitStack() as stack:
        writers = {}
        for name, layout in plan.job.layouts.items():
            key = chunk_key(name, (batch.index, 0, 0, 0))
            before = target.cube.read(key)
            writers[name] = ShardWriter(layout, stack.enter_context(target.cube.writing(key)).write)
            writers[name].resume(before, kept)
        for slot, (rasters, _) in enumerate(read_patches(plan.job, batch, source)):
            for name, raster in rasters.items():
                columns.record(slot, name, raster, *writers[name].add(kept + slot, raster.pixels))
        for writer in writers.values():
            writer.finish()
    header = _header(plan)
    key = chunk_key(header.path, (batch.index, 0, 0))
    headers = decode_chunk(header, target.cube.read(key)).copy()
    for (slot, place), data in columns.headers.items():
        headers[kept + slot, place, : len(data)] = np.frombuffer(data, np.uint8)
    target.cube.write(key, encode_chunk(header, headers))
    return columns.document()


def _publish(plan: Plan, standing: Standing, new: dict[str, np.ndarray], target: Target) -> None:
    """Write coordinate chunks, then each array's metadata, then the root if it is still the one that was read."""
    values, digests = {}, dict(standing.digests)
    grown = [spec for spec in plan.arrays if spec.dimensions[0] == "patch"]
    for spec in grown:
        if spec.path in standing.values:
            added = np.ascontiguousarray(new[spec.path], dtype=spec.dtype)
            values[spec.path] = np.concatenate([standing.values[spec.path], added])
            digests[spec.path] = values_digest(values[spec.path])
            _write_rows(target.cube, spec, values[spec.path], standing.patches)
    documents = {spec.path: spec.document() for spec in plan.arrays}
    documents[ORIGINALS] = json.loads(target.cube.read(f"{ORIGINALS}/zarr.json"))
    stored = {f"{path}/zarr.json": metadata_bytes(document) for path, document in documents.items()}
    for spec in grown:
        target.cube.write(f"{spec.path}/zarr.json", stored[f"{spec.path}/zarr.json"])
    pixels = pixels_digest(values["patch"], values["digest"])
    listed = [*label_arrays(plan.recipe, plan.patches), *(spec for spec, _ in constant_arrays(plan.recipe))]
    attributes = root_attributes(plan, [spec.path for spec in listed], certificate(pixels, digests, stored))
    consolidated = {"kind": "inline", "must_understand": False, "metadata": documents}
    root = seal({**group_document(attributes), "consolidated_metadata": consolidated})
    if target.cube.read(ROOT) != standing.root:
        raise TargetError(f"{target.url} has been changed by someone else")
    target.cube.write(ROOT, root)


def _write_rows(store: Store, spec: ArraySpec, values: np.ndarray, old: int) -> None:
    """Write the chunks that hold rows from ``old`` on."""
    length = spec.chunks[0]
    for place in range(old // length, spec.grid[0]):
        key = chunk_key(spec.path, (place, *(0 for _ in spec.shape[1:])))
        store.write(key, encode_chunk(spec, values[place * length : (place + 1) * length]))
