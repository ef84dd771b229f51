"""A growth that was given up, undone: every object of the cube is again what it was before, to the byte."""

from __future__ import annotations

import numpy as np

from cube.convert.growth import require_documents
from cube.convert.standing import Standing, read_standing
from cube.convert.worker import kept_headers, resumed_writer
from cube.format.arrays import chunk_key, encode_chunk, metadata_bytes
from cube.format.originals import HEADERS, ORIGINALS, header_keys, pack_headers
from cube.format.target import ROOT, Target
from cube.records.plans import GROWTH, batches, remove_all, unwanted
from cube.store.protocol import Store


def undo_growth(target: Target) -> None:
    """Take away what a growth has written beside and into a cube whose root it has not replaced.

    Readers see the cube as it is throughout. Raises ``CorruptError`` where the cube itself is damaged.
    """
    standing = read_standing(target)
    require_documents(standing)
    for path, document in standing.document["consolidated_metadata"]["metadata"].items():
        _restore(target.cube, f"{path}/{ROOT}", metadata_bytes(document))
    for path, values in standing.values.items():
        spec = standing.specs[path]
        if spec.dimensions[0] == "patch":
            last, length = spec.grid[0] - 1, spec.chunks[0]
            _restore(target.cube, list(spec.object_keys())[last], encode_chunk(spec, values[last * length :]))
    if standing.patches % standing.slots:
        _restore_batch(target.cube, standing)
    wanted = {ROOT, *(f"{path}/{ROOT}" for path in standing.document["consolidated_metadata"]["metadata"])}
    wanted |= {key for spec in standing.specs.values() if spec.path != HEADERS for key in spec.object_keys()}
    wanted |= set(_header_keys(standing))
    remove_all(target.cube, [entry.key for entry in target.cube.list() if entry.key not in wanted])
    there = [entry.key for entry in target.build.list("receipts")]
    remove_all(target.build, unwanted(batches(target.build), there))
    remove_all(target.build, [GROWTH])


def _restore(store: Store, key: str, data: bytes) -> None:
    if store.read(key) != data:
        store.write(key, data)


def _header_keys(standing: Standing) -> list[str]:
    sizes, spec, slots = standing.values[f"{ORIGINALS}/header_size"], standing.specs[HEADERS], standing.slots
    parts = np.split(sizes, range(slots, len(sizes), slots))
    return [key for index, part in enumerate(parts) for key in header_keys(spec, index, part.ravel().tolist())]


def _restore_batch(cube: Store, standing: Standing) -> None:
    """Cut the shards and the headers of the last batch off behind the patches that the cube has."""
    index, kept = divmod(standing.patches, standing.slots)
    for name, layout in standing.layouts.items():
        key = chunk_key(name, (index, 0, 0, 0))
        parts: list[bytes] = []
        writer = resumed_writer(layout, cube, key, kept, parts.append)
        writer.finish()
        size = cube.entry(key).size
        if writer.stored != size or cube.read_range(key, size - layout.index_bytes, size) != parts[-1]:
            with cube.writing(key) as file:
                file.writelines(parts)
    spec = standing.specs[HEADERS]
    before = kept_headers(cube, spec, index, kept, standing.base().headers)
    for key, data in pack_headers(spec, index, {}, before):
        _restore(cube, key, data)
