"""A cube that grows: the labels and metadata of the new one, and the root that is to take the place of the old one.

New patches come after all old ones and no row changes its meaning. What readers of the old cube may still fetch stays right at
every step: shards keep their old bytes, chunks of labels get more rows, metadata get longer shapes, and the root comes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from blake3 import blake3

from cube.convert.labels import Arrays, label_values
from cube.convert.plan import Plan
from cube.convert.said import Said
from cube.convert.standing import Standing
from cube.errors import CorruptError, RequestError
from cube.format.additions import ADDITIONS, definition_arrays, supersedes_array
from cube.format.arrays import ArraySpec, encode_chunk, group_document, metadata_bytes, values_digest
from cube.format.certificate import certificate, pixels_digest, seal
from cube.format.layout import FORMAT
from cube.format.originals import HEADERS, ORIGINALS, header_spec
from cube.format.root import consolidated, opening_line
from cube.format.target import ROOT, Target
from cube.format.versions import SUPERSEDES
from cube.records.receipts import Receipt
from cube.store.protocol import Store


def grown_root(plan: Plan, standing: Standing, receipts: Iterable[Receipt], target: Target) -> bytes:
    """Write the labels of a cube with its new patches, then each array's metadata; return the root that is to come.

    Raises ``RequestError`` if the definitions of the CRSs of new patches find no room.
    """
    said = Said(plan.job.layouts)
    new = label_values(plan, said.heard(receipts))
    values, specs = _joined(plan, standing, new)
    keys = []
    for spec in specs.values():
        if spec.path in values and spec.path not in standing.values:
            keys += _write_rows(target.cube, spec, values[spec.path], 0)
        elif spec.path in values:
            keys += _write_rows(target.cube, spec, values[spec.path], len(standing.values[spec.path]))
    longest = int(values[f"{ORIGINALS}/header_size"].max(initial=0))
    documents = {}
    for path, spec in specs.items():
        told = _all_say(spec, said) if path in plan.job.layouts else spec.attributes
        final = header_spec(spec, longest) if path == HEADERS else replace(spec, attributes=told)
        documents[path] = final.document()
    documents[ORIGINALS] = standing.document["consolidated_metadata"]["metadata"][ORIGINALS]
    stored = {f"{path}/{ROOT}": metadata_bytes(document) for path, document in documents.items()}
    known = standing.facts["certificate"]["metadata"]
    digests = {path: values_digest(array) for path, array in values.items()}
    certified = certificate(pixels_digest(values["patch"], values["digest"]), digests, stored)
    changed = {key: data for key, data in stored.items() if certified["metadata"][key] != known.get(key)}
    for key, data in changed.items():
        target.cube.write(key, data)
    target.cube.secure([*keys, *changed])
    attributes = _attributes(plan, standing, specs, values, certified)
    return seal({**group_document(attributes), "consolidated_metadata": consolidated(documents)})


def _joined(plan: Plan, standing: Standing, new: Arrays) -> tuple[Arrays, dict[str, ArraySpec]]:
    """Return the values of all small arrays, old rows first, and all arrays."""
    specs = {spec.path: spec for spec in plan.arrays}
    new = dict(new)
    values: Arrays = dict(standing.values)
    if "crs_wkt" in new or "crs_wkt" in values:
        values, new, more = _definitions(plan, standing, new)
        specs |= {spec.path: spec for spec in more}
    if SUPERSEDES in values or (plan.supersedes >= 0).any():
        specs[SUPERSEDES] = supersedes_array(plan.recipe, standing.patches + plan.patches)
        values.setdefault(SUPERSEDES, np.full(standing.patches, -1, np.int32))
        new[SUPERSEDES] = plan.supersedes
    for path, spec in specs.items():
        if spec.dimensions[0] == "patch" and path in values:
            added = np.ascontiguousarray(new[path], dtype=spec.dtype)
            values[path] = np.concatenate([values[path], added])
    return values, specs


def _definitions(plan: Plan, standing: Standing, new: Arrays) -> tuple[Arrays, Arrays, list[ArraySpec]]:
    """Give the CRSs without an EPSG code of new patches their places among those of the cube."""
    values = dict(standing.values)
    known = values["crs_wkt"].tolist() if "crs_wkt" in values else []
    here = new.pop("crs_wkt").tolist() if "crs_wkt" in new else []
    every = [*known, *(text for text in here if text not in known)]
    pointing = new.get("crs_index", np.full(plan.patches, -1, np.int64))
    places = np.array([*(every.index(text) for text in here), -1], np.int64)
    new["crs_index"] = places[pointing]
    label, (table, texts) = definition_arrays(plan.recipe, standing.patches + plan.patches, every)
    if not known:
        values["crs_index"] = np.full(standing.patches, -1, np.int32)
    elif every != known:
        old = standing.specs["crs_wkt"]
        if old.chunks != table.chunks or old.dtype != table.dtype:
            raise RequestError(
                f"{standing.url} has no room for the definitions of more CRSs that have no EPSG code, which new patches have: "
                "build a new cube of all files"
            )
    else:
        table, texts = standing.specs["crs_wkt"], values["crs_wkt"]
    values["crs_wkt"] = texts
    return values, new, [label, table]


def _all_say(spec: ArraySpec, said: Said) -> dict[str, Any]:
    """Return the attributes of an array of pixels, with what its files say of theirs only where old and new ones agree."""
    told = {name: value for name, value in spec.attributes.items() if name.startswith("file_")}
    agree = told == said.attributes(spec.path)
    return {name: value for name, value in spec.attributes.items() if agree or name not in told}


def _attributes(
    plan: Plan, standing: Standing, specs: Mapping[str, ArraySpec], values: Arrays, certified: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the attributes of the root."""
    attributes = {key: value for key, value in standing.document["attributes"].items() if key != "subset"}
    named = attributes["coordinates"].split()
    attributes["coordinates"] = " ".join([*named, *sorted((specs.keys() & ADDITIONS) - set(named))])
    attributes["open_with"] = opening_line(values["season"])
    facts = standing.facts
    before = {"patches": standing.patches, "pixels": facts["certificate"]["pixels"], "digest": standing.digest}
    attributes["cube"] = {
        **facts,
        "format": FORMAT,
        "plan": plan.digest,
        "software": dict(plan.software),
        "versions": [*facts.get("versions", []), before],
        "certificate": certified,
    }
    return attributes


def _write_rows(store: Store, spec: ArraySpec, values: Any, old: int) -> list[str]:
    """Write the chunks that hold rows from ``old`` on; return their keys."""
    length, keys = spec.chunks[0], list(spec.object_keys())
    if old == len(values):
        return []
    for place in range(old // length, len(keys)):
        store.write(keys[place], encode_chunk(spec, values[place * length : (place + 1) * length]))
    return keys[old // length :]


def require_documents(standing: Standing) -> None:
    """Raise ``CorruptError`` unless the root repeats the metadata that it certifies: it is all they can be restored from."""
    listed = standing.document["consolidated_metadata"]["metadata"]
    for key, digest in standing.facts["certificate"]["metadata"].items():
        path = key.removesuffix(f"/{ROOT}")
        if path not in listed or blake3(metadata_bytes(listed[path])).hexdigest() != digest:
            raise CorruptError(f"{standing.url}/{ROOT} repeats other metadata of {path} than it certifies")
