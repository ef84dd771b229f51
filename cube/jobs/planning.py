"""Which patches of a source to convert, and the plan of it: scanned and decided, nothing done yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

from cube.catalog.collection import read_template
from cube.convert.deciding import make_plan
from cube.convert.plan import Plan
from cube.errors import RequestError, TargetError
from cube.format.layout import meant
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
    scanned = scan(recipe, source, options, indexes=target.beside.child(INDEXES) if target else None, say=say)
    inventory = examine(recipe, _choose(recipe, scanned, choice))
    software = {"numcodecs": numcodecs.__version__}
    incomplete = choice.incomplete or recipe.source.incomplete
    return make_plan(recipe, inventory, incomplete=incomplete, software=software, spool=SPOOL_LIMIT)


def _choose(recipe: Recipe, inventory: Inventory, choice: Chosen) -> Inventory:
    if choice.where:
        inventory = inventory.take(np.flatnonzero(select(choice.where, _fields(recipe, inventory))))
    if choice.limit is not None:
        inventory = inventory.take(np.arange(min(choice.limit, len(inventory))))
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
