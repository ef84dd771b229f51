"""What a build leaves beside a cube for the next one that adds to it, and how the two are joined."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cube.catalog.publish import read_overviews
from cube.convert.plan import Plan
from cube.convert.writer import REPORT
from cube.format.documents import parse_object
from cube.format.root import read_root
from cube.format.target import Target
from cube.format.versions import versions_of
from cube.jobs.diff import INVENTORY
from cube.recipes.recipe import Recipe
from cube.survey.counted import COUNTED, Counted, packed, unpacked
from cube.survey.surveyor import Surveyor

Rejections = list[tuple[str, str, str]]


def counted_before(plan: Plan, target: Target) -> Counted | None:
    """Return what was counted of the cube that a plan adds to, with the pictures of its catalog; None where it is not there."""
    if plan.base is None:
        return None
    try:
        data = target.build.read(COUNTED)
    except FileNotFoundError:
        return None
    facts = read_root(target)[1]["attributes"]["cube"]
    # That of an earlier version stands where a growth was killed when its root stood and its catalog did not.
    states = versions_of(facts, plan.base.patches)[::-1]
    known = ((unpacked(data, plan.recipe, state.pixels), state.patches) for state in states)
    counted = next((found for found, patches in known if found is not None and found.patches == patches), None)
    if counted is None:
        return None
    pictures = read_overviews(target.stac, counted.scenes, list(plan.recipe.modalities))
    return counted.illustrated(pictures) if pictures is not None else None


def keep_counted(recipe: Recipe, surveyor: Surveyor, target: Target) -> None:
    """Keep what was counted of a cube, for the survey of what it grows into."""
    pixels = read_root(target)[1]["attributes"]["cube"]["certificate"]["pixels"]
    target.build.write(COUNTED, packed(surveyor.counted(), recipe, pixels))


def rejected_before(plan: Plan, target: Target) -> Rejections:
    """Return what the report of the cube that a plan adds to says was left out; what has come since is left out of that."""
    if plan.base is None:
        return []
    try:
        items = parse_object(target.build.read(REPORT))["rejected"]
        known = [(str(path), str(reason), str(detail)) for path, reason, detail in items]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return []
    here = {*plan.inventory.path.ravel().tolist(), *plan.inventory.patch.tolist()}
    return [item for item in known if item[0] not in here]


def statements_before(plan: Plan, target: Target) -> dict[str, dict[str, int]]:
    """Return, by modality, what files of the cube that a plan adds to say in words, and how many say it."""
    if plan.base is None:
        return {}
    try:
        said = parse_object(target.build.read(REPORT))["statements"]
        return {str(name): {str(words): int(count) for words, count in of.items()} for name, of in said.items()}
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def joined_statements(*parts: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Add up what files say in words, by modality."""
    whole: dict[str, dict[str, int]] = {}
    for part in parts:
        for name, of in part.items():
            for words, count in of.items():
                known = whole.setdefault(name, {})
                known[words] = known.get(words, 0) + count
    return whole


def inventory_after(plan: Plan, target: Target) -> bytes:
    """Return the files of a whole cube as a Parquet file: those of the cube before, as far as they are known, then the new."""
    new = plan.inventory.parquet()
    if plan.base is None:
        return new
    try:
        before = pq.read_table(io.BytesIO(target.build.read(INVENTORY)))
        whole = pa.concat_tables([before, pq.read_table(io.BytesIO(new))], promote_options="permissive")
    except (FileNotFoundError, pa.ArrowException):
        return new
    sink = pa.BufferOutputStream()
    pq.write_table(whole, sink, compression="zstd")
    return bytes(sink.getvalue())


def united(first: Iterable[tuple[str, str, str]], second: Iterable[tuple[str, str, str]]) -> Rejections:
    """Return all rejections, each once."""
    return list(dict.fromkeys([*first, *second]))


def is_described(target: Target, digest: str) -> bool:
    """Tell whether the catalog beside a cube is of the cube with this root."""
    try:
        return bool(parse_object(target.stac.read("collection.json"))["patchcube:digest"] == digest)
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return False


def keep_json(target: Target, name: str, document: Any) -> None:
    """Keep a document with the build records."""
    target.build.keep(name, json.dumps(document, indent=1, allow_nan=False).encode())
