"""A cube that grows while somebody looks: every object that is written is told of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cube.convert.plan import Plan
from cube.convert.preparation import claimed
from cube.convert.writer import replace_root, write_claimed
from cube.format.target import Target
from cube.jobs.planning import Chosen, plan_build
from cube.recipes.recipe import Recipe
from cube.source.inventory import Inventory
from cube.store.protocol import Store

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

    def replace(self, key: str, data: bytes, before: bytes) -> bool:
        done = self.store.replace(key, data, before)
        self.look(key)
        return done

    @contextmanager
    def writing(self, key: str) -> Iterator[Any]:
        with self.store.writing(key) as file:
            yield file
        self.look(key)


def grow(
    recipe: Recipe, source: str, target: Target, *, look: Look = lambda key: None, throw_away: bool = False, where: str = ""
) -> Plan:
    """Add the patches of a source that a cube does not have, in this process; return the plan."""
    plan = plan_build(recipe, source, Chosen(grow=True, where=where), target=target)
    watched = replace(target, cube=Watched(target.cube, look))
    with claimed(plan, watched, replace=throw_away):
        replace_root(plan, watched, write_claimed(plan, watched, None).root)
    return plan


def joined(parts: list[Inventory]) -> Inventory:
    """Return the inventory of all parts, one after the other."""
    columns = ("patch", "season", "scene", "number", "path", "size", "stamp")
    whole: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
    return replace(parts[0], **whole, files=None)
