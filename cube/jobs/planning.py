"""Which patches of a source to convert, and the plan of it: scanned and decided, nothing done yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
from numpy.typing import NDArray

from cube.catalog.collection import read_template
from cube.convert.comparing import replaced
from cube.convert.deciding import make_plan
from cube.convert.plan import Plan
from cube.convert.standing import Standing, fitted, known_rows, plan_growth, read_standing
from cube.errors import RequestError, TargetError
from cube.format.layout import meant
from cube.format.originals import ORIGINALS
from cube.format.target import Target
from cube.query.choose import days_of
from cube.query.filters import DATES, select
from cube.recipes.recipe import Recipe
from cube.recipes.sections import Incomplete
from cube.source.files import INDEXES
from cube.source.inventory import Inventory
from cube.source.scan import examine, scan
from cube.store.objects import SPOOL_LIMIT
from cube.store.urls import is_local


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which patches of a source to convert, and how to treat incomplete ones."""

    where: str = ""
    """Filter on season, scene, number, split, patch and the recipe's labels; all patches where empty."""
    limit: int | None = None
    """Only the first so many patches."""
    incomplete: Incomplete | None = None
    """The recipe's policy where None."""
    grow: bool = False
    """Add the patches that a finished cube lacks to it; a new cube is begun where there is none."""
    replace_patches: bool = False
    """And those that it has with other pixels, which take the place of what it has."""


def plan_build(
    recipe: Recipe,
    source: str,
    choice: Chosen,
    options: Mapping[str, Any] | None = None,
    *,
    target: Target | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Scan a source, reached by fsspec ``options``, and decide everything; reads no file but the odd-sized ones.

    What is learnt of archives is kept beside ``target``; ``say`` is told what takes long.

    Raises ``TargetError`` if ``target``, where the cube will be, lies inside the source.
    """
    to = target.url if target else ""
    if to and is_local(source) and is_local(to) and Path(source).resolve() in Path(to).resolve().parents:
        raise TargetError(f"{to} lies inside the source {source}: its own objects would be scanned; choose another --to")
    read_template(recipe.catalog)  # a missing template is better known before the work than after
    standing = read_standing(target) if choice.grow and target is not None and target.complete() else None
    recipe = recipe if standing is None else fitted(recipe, standing)
    scanned = scan(recipe, source, options, indexes=target.beside.child(INDEXES) if target else None, say=say)
    chosen = _choose(recipe, scanned, choice)
    settings: dict[str, Any] = {
        "incomplete": choice.incomplete or recipe.source.incomplete,
        "software": {"numcodecs": numcodecs.__version__},
        "spool": SPOOL_LIMIT,
    }
    if standing is None:
        return make_plan(recipe, examine(recipe, _first(chosen, choice)), **settings)
    chosen = examine(recipe, chosen)  # all of it: what is odd is told by the others
    rows = known_rows(standing, chosen.patch)
    wanted = rows < 0
    if choice.replace_patches:
        here = np.flatnonzero(rows >= 0)
        differ, bad = replaced(recipe, standing, chosen.take(here), rows[here], say)
        wanted[here[differ]] = True
        chosen = chosen.reject(bad)
    new = _first(chosen.take(np.flatnonzero(wanted)), choice)
    others = () if choice.replace_patches else _other_files(standing, chosen, rows)
    plan = plan_growth(recipe, new, standing, **settings)
    return replace(plan, known=int((rows >= 0).sum()), others=others)


def _other_files(standing: Standing, chosen: Inventory, rows: NDArray[np.intp]) -> tuple[str, ...]:
    """Return the ids of patches that a cube has, of files that have other sizes than those here, or of fewer."""
    here = np.flatnonzero(rows >= 0)
    spans = enumerate(chosen.spans)
    sizes = np.stack([np.where(chosen.has[:, k], chosen.size[:, span].sum(axis=1), -1) for k, span in spans], axis=1)
    there = standing.values[f"{ORIGINALS}/size"][rows[here]]
    differ = ((sizes[here] != there) & (sizes[here] >= 0)).any(axis=1)
    return tuple(chosen.patch[here[differ]].tolist())


def _first(inventory: Inventory, choice: Chosen) -> Inventory:
    return inventory if choice.limit is None else inventory.take(np.arange(min(choice.limit, len(inventory))))


def _choose(recipe: Recipe, inventory: Inventory, choice: Chosen) -> Inventory:
    if choice.where:
        inventory = inventory.take(np.flatnonzero(select(choice.where, _fields(recipe, inventory))))
    if not len(inventory):
        raise RequestError(f"no patch of {inventory.source} is chosen by --where {choice.where!r}")
    return inventory


def _fields(recipe: Recipe, inventory: Inventory) -> dict[str, Any]:
    """Return what a filter can ask of files that are not read yet."""
    seasons = np.array(inventory.seasons)[inventory.season]
    fields: dict[str, Any] = {
        "season": seasons,
        "scene": inventory.scene,
        "number": inventory.number,
        "patch": inventory.patch,
        **{name: days_of(seasons, _days(recipe), side) for name, side in DATES.items()},
    }
    if "split" not in recipe.labels:
        splits = {key: recipe.split_of(*key) for key in inventory.scene_keys()}
        keys = zip(seasons, inventory.scene, strict=True)
        fields["split"] = np.array([splits[str(season), int(scene)] for season, scene in keys])
    for name, values in inventory.labels.items():
        fields[name] = meant(recipe.labels[name], values)
    return fields


def _days(recipe: Recipe) -> dict[str, dict[str, str]]:
    return {name: {"start": str(season.start), "end": str(season.end)} for name, season in recipe.seasons.items()}
