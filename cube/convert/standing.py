"""A finished cube that is to grow, as its own store says it: no build record is needed for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.convert.deciding import apply_policy, job_of, plan_of
from cube.convert.plan import Base, Plan
from cube.errors import CorruptError, RequestError
from cube.format.additions import ADDITIONS
from cube.format.arrays import ArraySpec, values_digest
from cube.format.defects import DEFECTS
from cube.format.layout import all_arrays, tile_layout, tile_layouts
from cube.format.originals import HEADERS, ORIGINALS, header_keys
from cube.format.root import read_root
from cube.format.shape import read_specs
from cube.format.small import read_array
from cube.format.target import Target
from cube.recipes.recipe import Recipe, with_modalities
from cube.recipes.sections import Incomplete
from cube.source.inventory import Inventory

_AS_BUILT = "as built"
_LATER = {"kept", *DEFECTS}
"""Labels that cubes of earlier versions of the format lack, and go on to lack when they grow."""

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A finished cube: its root document, its arrays, and the values of the small ones."""

    url: str
    root: bytes
    document: Mapping[str, Any]
    specs: Mapping[str, ArraySpec]
    values: Mapping[str, Array]

    @property
    def patches(self) -> int:
        """All that it holds."""
        return len(self.values["patch"])

    @property
    def facts(self) -> dict[str, Any]:
        """The attribute ``cube`` of its root."""
        facts: dict[str, Any] = self.document["attributes"]["cube"]
        return facts

    @property
    def digest(self) -> str:
        """Digest of its root."""
        return str(self.facts["certificate"]["root"])

    @property
    def slots(self) -> int:
        """Patches of a shard."""
        return self.specs[HEADERS].chunks[0]

    @property
    def layouts(self) -> dict[str, Any]:
        """Modality → how its tiles lie."""
        return {name: tile_layout(self.specs[name], self.facts["saturated"].get(name)) for name in self.facts["modalities"]}

    def base(self) -> Base:
        """Return what a plan must know of it."""
        kept = self.patches % self.slots
        sizes = self.values[f"{ORIGINALS}/header_size"][self.patches - kept :]
        keys = header_keys(self.specs[HEADERS], 0, sizes.ravel().tolist()) if kept else []
        return Base(patches=self.patches, root=self.digest, headers=len(keys))


def read_standing(target: Target) -> Standing:
    """Read what a cube says of itself, and no pixel.

    Raises ``RequestError`` if there is no cube, ``CorruptError`` if its root or a label is not what was certified.
    """
    data, document = read_root(target)
    specs = read_specs(document, target.url)
    values = {}
    for path, digest in document["attributes"]["cube"]["certificate"]["arrays"].items():
        values[path] = read_array(target.cube, specs[path])
        if values_digest(values[path]) != digest:
            raise CorruptError(f"{target.url}/{path}: its values are not those certified; `cube verify` tells more")
    return Standing(url=target.url, root=data, document=document, specs=specs, values=values)


def fitted(recipe: Recipe, standing: Standing) -> Recipe:
    """Return the recipe with the modalities, chunks, rooms and codecs that the cube has, whatever the recipe says of those.

    Raises ``RequestError`` where the cube is not of this recipe: modalities, bands, seasons or labels are others.
    """
    facts = standing.facts
    if facts["recipe"] != recipe.name:
        raise RequestError(
            f"{standing.url} was built by recipe {facts['recipe']!r}, not {recipe.name!r}: give that one to grow it"
        )
    names = list(facts["modalities"])
    if set(names) - set(recipe.modalities):
        raise RequestError(f"{standing.url} has the modalities {', '.join(names)}, the recipe {', '.join(recipe.modalities)}")
    recipe = with_modalities(recipe, names)
    specs, layouts = standing.specs, standing.layouts
    largest = max(layouts.values(), key=lambda layout: layout.size)
    codecs = {name: specs[name].codec_text for name in layouts}
    profiles = recipe.layout.profiles
    known = [recipe.layout.profile, *profiles]
    profile = next((name for name in known if dict(profiles[name]) == codecs), _AS_BUILT)
    update = {
        "tile": largest.tile,
        "shard": standing.slots,
        "labels": specs["patch"].chunks[0],
        "header_bytes": specs[HEADERS].chunks[-1],
        "path_bytes": specs[f"{ORIGINALS}/path"].shape[-1],
        "profile": profile,
        "profiles": profiles if profile in profiles else {**profiles, _AS_BUILT: codecs},
    }
    room = int(specs["patch"].dtype.removeprefix("<U"))
    fit = recipe.model_copy(
        update={
            "layout": recipe.layout.model_copy(update=update),
            "patch": recipe.patch.model_copy(update={"id_length": room}),
        }
    )
    _require_alike(fit, standing)
    return fit


def _require_alike(recipe: Recipe, standing: Standing) -> None:
    """Raise ``RequestError`` unless the recipe makes the arrays that the cube has."""
    told = {name: {"start": str(season.start), "end": str(season.end)} for name, season in recipe.seasons.items()}
    modalities = {name: [band.name for band in modality.bands] for name, modality in recipe.modalities.items()}
    for what, here, there in (
        ("seasons", told, standing.facts["seasons"]),
        ("modalities", modalities, standing.facts["modalities"]),
        ("tiles", tile_layouts(recipe), standing.layouts),
    ):
        if here != there:
            raise RequestError(f"{standing.url} has {what} {there}, the recipe {here}: a cube that grows keeps them")
    wanted = {spec.path: spec for spec in all_arrays(recipe, standing.patches)}
    wanted = {path: spec for path, spec in wanted.items() if path in standing.specs or path not in _LATER}
    others = sorted(wanted.keys() ^ (standing.specs.keys() - ADDITIONS))
    if others:
        raise RequestError(
            f"{standing.url} and recipe {recipe.name!r} differ in {', '.join(others)}: a cube that grows keeps its labels; "
            "build a new one"
        )
    for path, spec in wanted.items():
        if _facts(spec) != _facts(standing.specs[path]):
            raise RequestError(
                f"{standing.url}: {path} is {_facts(standing.specs[path])}, by the recipe {_facts(spec)}: a cube that grows "
                "keeps types, chunks and codecs; build a new one"
            )


def _facts(spec: ArraySpec) -> tuple[Any, ...]:
    """Return what must stay of an array; headers have as many chunks as they need."""
    rest = spec.shape[1:-1] if spec.path == HEADERS else spec.shape[1:]
    return (
        np.dtype(spec.dtype).str,
        spec.dimensions,
        spec.chunks,
        rest,
        spec.inner,
        str(spec.fill),
        spec.codec,
        spec.level,
        spec.shuffle,
        spec.block,
    )


def known_rows(standing: Standing, patches: Sequence[str] | Array) -> NDArray[np.intp]:
    """Return (patch): where each id stands in a cube; -1 where it does not."""
    ids = standing.values["patch"]
    order = np.argsort(ids, kind="stable")
    wanted = np.asarray(patches, str)
    at = np.searchsorted(ids, wanted, side="right", sorter=order) - 1
    rows = order[np.maximum(at, 0)]
    return np.where(ids[rows] == wanted, rows, -1)


def plan_growth(
    recipe: Recipe,
    inventory: Inventory,
    standing: Standing,
    *,
    incomplete: Incomplete,
    software: Mapping[str, str],
    spool: int = 0,
) -> Plan:
    """Decide everything to add the patches of an inventory to a cube, which a :func:`fitted` recipe describes.

    Those that it has already take the place of the rows that stand there. There may be none. Raises ``IncompleteError`` and
    ``RequestError`` as ``make_plan`` does.
    """
    inventory = apply_policy(inventory, incomplete)
    total = standing.patches + len(inventory)
    arrays = [
        replace(spec, shape=(total, *spec.shape[1:])) if spec.dimensions[0] == "patch" else spec
        for spec in standing.specs.values()
    ]
    rows = known_rows(standing, inventory.patch)
    job = job_of(recipe, incomplete)
    return plan_of(recipe, inventory, arrays, job, software, spool=spool, base=standing.base(), supersedes=rows)
