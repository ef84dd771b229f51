"""Some patches of a cube as a cube of their own: stored tiles are taken over byte for byte, and shared again.

``plan_subset`` reads labels and decides, ``write_shard`` writes one shard of every modality, on a Dask worker too, and
``subset_documents`` gives what stands beside the pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cube.errors import CorruptError, RequestError
from cube.format.arrays import (
    ArraySpec,
    chunk_key,
    decode_chunk,
    group_document,
    metadata_bytes,
    read_spec,
    values_digest,
)
from cube.format.certificate import certificate, pixels_digest, seal
from cube.format.documents import parse_object
from cube.format.layout import meanings, tile_layout
from cube.format.originals import HEADERS, ORIGINALS, header_keys, header_spec, pack_headers
from cube.format.root import consolidated, opening_line
from cube.format.small import read_array
from cube.format.target import Target
from cube.format.tiles import ABSENT, ShardWriter
from cube.format.versions import SUPERSEDES, current_rows
from cube.query.choose import select_patches
from cube.read.opened import open_certified
from cube.read.pixels import PixelReader, fetch
from cube.read.ranges import Tile
from cube.records.claims import COPY
from cube.store.protocol import Readable, Store

_RUN = 32
"""Patches whose tiles are fetched together."""

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Which patches of a cube make a new one, and all that is small of it."""

    id: str
    """Hash of the cube it is taken from and of the patches."""
    where: str
    rows: NDArray[np.int64]
    """Positions of the patches in the whole cube."""
    specs: tuple[ArraySpec, ...]
    """Arrays of the new cube."""
    values: Mapping[str, Array]
    """Every array but pixels and headers, as the new cube holds it."""
    root: Mapping[str, Any]
    """Root document of the whole cube."""

    @property
    def modalities(self) -> list[str]:
        """Names of the arrays of pixels."""
        return list(self.root["attributes"]["cube"]["modalities"])

    @property
    def tasks(self) -> int:
        """Number of shards of each modality."""
        spec = next(spec for spec in self.specs if spec.path == self.modalities[0])
        return spec.grid[0]


@dataclass(frozen=True, kw_only=True)
class Extract:
    """What all shards of one subset have in common. Small and picklable."""

    source: Readable
    to: Store
    specs: Mapping[str, ArraySpec]
    """Arrays of pixels and of headers in the whole cube."""
    saturated: Mapping[str, float]


def plan_subset(source: Target, data: bytes, root: Mapping[str, Any], where: str) -> Subset:
    """Choose patches by a filter and decide what the new cube is; reads labels and no pixel.

    ``data`` is the root document of the whole cube as it is stored. Raises ``FilterError`` for a filter that cannot be read
    or names what is not there, ``RequestError`` if it chooses no patch, ``CorruptError`` if labels are damaged.
    """
    specs = array_specs(root)
    facts = root["attributes"]["cube"]
    values = {}
    for spec in specs:
        if spec.path in facts["certificate"]["arrays"]:
            values[spec.path] = read_array(source.cube, spec)
            if values_digest(values[spec.path]) != facts["certificate"]["arrays"][spec.path]:
                raise CorruptError(f"{source.url}/{spec.path}: its values are not those certified; `cube verify` tells more")
    names = [spec.path for spec in specs if spec.dimensions[0] == "patch" and spec.path in values and "/" not in spec.path]
    rows = select_patches(
        values.__getitem__,
        names,
        where,
        shown=meanings(specs),
        seasons=facts["seasons"],
        shares=lambda field: open_certified(source.url, source.cube.options).shares(field),
        among=current_rows(values[SUPERSEDES]) if SUPERSEDES in values else None,
    )
    if not len(rows):
        raise RequestError(f"no patch of {source.url} is chosen by --where {where!r}")
    values.pop(SUPERSEDES, None)
    specs = [spec for spec in specs if spec.path != SUPERSEDES]
    per_patch = {spec.path for spec in specs if spec.dimensions[0] == "patch"}
    longest = int(values[f"{ORIGINALS}/header_size"][rows].max(initial=0))
    specs = [header_spec(spec, longest) if spec.path == HEADERS else spec for spec in specs]
    return Subset(
        id=COPY + blake3(b"cube subset 1" + blake3(data).digest() + rows.astype("<i8").tobytes()).hexdigest(16),
        where=where,
        rows=rows,
        specs=tuple(replace(s, shape=(len(rows), *s.shape[1:])) if s.path in per_patch else s for s in specs),
        values={path: array[rows] if path in per_patch else array for path, array in values.items()},
        root=root,
    )


def array_specs(root: Mapping[str, Any]) -> list[ArraySpec]:
    """Return the arrays that a root document lists."""
    listed = root["consolidated_metadata"]["metadata"].items()
    return [read_spec(path, item) for path, item in listed if item["node_type"] == "array"]


def shard_tasks(subset: Subset, source: Target, to: Target, left: list[int]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the tasks that write some shards."""
    whole = {spec.path: spec for spec in array_specs(subset.root) if spec.path in (*subset.modalities, HEADERS)}
    extract = Extract(source=source.cube, to=to.cube, specs=whole, saturated=subset.root["attributes"]["cube"]["saturated"])
    slots = whole[HEADERS].chunks[0]
    for index in left:
        part = slice(index * slots, (index + 1) * slots)
        sizes = subset.values[f"{ORIGINALS}/header_size"]
        labels = subset.values["present"][part], subset.values["digest"][part], sizes[part]
        yield f"extract-{subset.id}-{index}", (extract, index, subset.rows[part], *labels)


def write_shard(extract: Extract, index: int, rows: Array, present: Array, digest: Array, sizes: Array) -> dict[str, Any]:
    """Write one shard of every modality and its chunk of headers; return the bytes of each object.

    ``rows`` (patch) are positions in the whole cube, ``present`` is (patch, modality), ``digest`` (patch, modality, byte), and
    ``sizes`` (patch, modality) are the bytes of the headers.
    Raises ``CorruptError`` where a tile is damaged or a patch is not what its digest says; no object appears then.
    """
    objects: dict[str, int] = {}
    tiles: dict[str, list[int]] = {}
    modalities = [path for path in extract.specs if path != HEADERS]
    for place, name in enumerate(modalities):
        spec, key = extract.specs[name], chunk_key(name, (index, 0, 0, 0))
        reader = PixelReader(extract.source, spec, tile_layout(spec, extract.saturated.get(name)))
        with extract.to.writing(key) as file:
            writer = ShardWriter(reader.layout, file.write)
            _adopt(reader, writer, rows, present[:, place], digest[:, place])
            writer.finish()
        objects[key] = writer.stored
        tiles[name] = [int((writer.index[..., 0] != ABSENT).sum()), len(writer.seen)]
    for key, data in pack_headers(
        extract.specs[HEADERS], index, read_headers(extract.source, extract.specs[HEADERS], rows, sizes)
    ):
        extract.to.write(key, data)
        objects[key] = len(data)
    extract.to.secure(objects)
    return {"index": index, "patches": len(rows), "objects": objects, "tiles": tiles}


def _adopt(reader: PixelReader, writer: ShardWriter, rows: Array, present: Array, digest: Array) -> None:
    for start in range(0, len(rows), _RUN):
        slots = np.flatnonzero(present[start : start + _RUN]) + start
        shards = (rows[slots] // reader.layout.slots).tolist()
        entries = reader.indexes.entries(rows[slots]).tolist()
        places = [[Tile(shard, *entry) for entry in patch] for shard, patch in zip(shards, entries, strict=True)]
        wanted = sorted({tile for patch in places for tile in patch})
        fetched = dict(zip(wanted, fetch([(reader, wanted)])[0], strict=True))
        for slot, patch in zip(slots.tolist(), places, strict=True):
            if writer.adopt(slot, fetched, patch) != digest[slot].tobytes():
                raise CorruptError(f"{reader.spec.path}: the pixels of patch {rows[slot]} are not those of its digest")


def read_headers(source: Readable, spec: ArraySpec, rows: Array, sizes: Array) -> dict[tuple[int, int], bytes]:
    """Return the headers of some patches, by patch and modality.

    ``rows`` (patch) are positions in the cube, ``sizes`` (patch, modality) the bytes of the headers. Raises ``CorruptError``
    for a damaged chunk.
    """
    headers: dict[tuple[int, int], bytes] = {}
    chunks, places = np.divmod(rows, spec.chunks[0])
    for chunk in np.unique(chunks).tolist():
        here = np.flatnonzero(chunks == chunk)
        parts = []
        for key in header_keys(spec, chunk, sizes[here].ravel().tolist()):
            try:
                parts.append(decode_chunk(spec, source.read(key)))
            except CorruptError as error:
                raise CorruptError(f"{key}: {error}") from None
        values = np.concatenate(parts, axis=-1)
        for row, kind in np.argwhere(sizes[here] > 0).tolist():
            headers[int(here[row]), kind] = values[places[here[row]], kind, : sizes[here[row], kind]].tobytes()
    return headers


def subset_documents(subset: Subset) -> tuple[dict[str, bytes], bytes]:
    """Return the metadata documents below the root by key, and the sealed root document."""
    attributes = dict(subset.root["attributes"])
    facts = attributes["cube"]
    documents = {spec.path: spec.document() for spec in subset.specs}
    documents[ORIGINALS] = group_document(subset.root["consolidated_metadata"]["metadata"][ORIGINALS]["attributes"])
    stored = {f"{path}/zarr.json": metadata_bytes(document) for path, document in documents.items()}
    values = subset.values
    certified = certificate(
        pixels_digest(values["patch"], values["digest"]), {path: values_digest(values[path]) for path in values}, stored
    )
    attributes["coordinates"] = " ".join(name for name in attributes["coordinates"].split() if name in documents)
    attributes["open_with"] = opening_line(values["season"])
    attributes["subset"] = {
        "where": subset.where,
        "of_patches": next(spec.shape[0] for spec in array_specs(subset.root) if spec.path == "patch"),
        "of_pixels": facts["certificate"]["pixels"],
    }
    facts = {name: value for name, value in facts.items() if name != "versions"}
    attributes["cube"] = {**facts, "plan": subset.id, "certificate": certified}
    return stored, seal({**group_document(attributes), "consolidated_metadata": consolidated(documents)})


def recipe_document(source: Target) -> str | None:
    """Return the recipe a cube was built with, as JSON; None where its build records are gone or damaged."""
    try:
        return json.dumps(parse_object(source.build.read("plan.json"))["recipe"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None
