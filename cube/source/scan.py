"""Scanning a source: list, recognise and pair its files. Opens no file, except that ``examine`` reads odd-sized ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from cube.errors import RejectedFile, RequestError
from cube.recipes.recipe import Recipe
from cube.source.expectations import expectations
from cube.source.files import Source, open_source
from cube.source.inventory import Inventory
from cube.source.names import Names, likely_recipes, recognised
from cube.source.pairing import pair
from cube.source.rasters import read_raster
from cube.source.rejected import Rejected, rejection, require_answer
from cube.source.tables import aliases, beside, with_tables
from cube.store.protocol import Entry, Store

_USUAL_SHARE = 0.9
"""Share of a modality's files that must have one size for another size to be odd."""


def scan(
    recipe: Recipe,
    source: str,
    options: Mapping[str, Any] | None = None,
    *,
    indexes: Store | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Inventory:
    """List a folder, a prefix or an archive, reached by fsspec ``options``, and pair its files into patches.

    ``indexes`` keeps what inflating archives has told; ``say`` is told what takes long. Raises ``RequestError`` if nothing
    there fits the recipe's pattern.
    """
    files = open_source(source, options, indexes=indexes, ignored=Names(recipe).ignored, say=say)
    told = beside(recipe)
    images: Iterable[Entry | Rejected] = (
        entry for entry in files.listed() if not (isinstance(entry, Entry) and entry.key in told)
    )
    if recipe.patch.aliases:
        images = list(images)  # only what is listed can be read from every kind of source
    inventory = pair(recipe, source, images, partial(_equal, files), aliases(recipe, files))
    if not len(inventory):
        raise RequestError(
            f"{source}: no file fits the pattern of recipe {recipe.name!r} ({len(inventory.rejected)} have other names, "
            f"{inventory.ignored} are ignored); expected names such as {Names(recipe).example()}{_likeness(recipe, inventory)}"
        )
    return replace(with_tables(recipe, whole_stacks(inventory), files), files=files)


def whole_stacks(inventory: Inventory) -> Inventory:
    """Return the inventory without the bands of images of which others are missing; each such image is named."""
    bad: dict[tuple[int, int], Rejected] = {}
    for span in inventory.spans if inventory.bands else ():
        there = inventory.size[:, span] >= 0
        for row in np.flatnonzero(there.any(axis=1) & ~there.all(axis=1)).tolist():
            lacks = ", ".join(inventory.columns[span.start + int(place)] for place in np.flatnonzero(~there[row]))
            detail = f"lacks {lacks}, so the image has not all its bands"
            bad[row, span.start] = Rejected(str(inventory.patch[row]), "incomplete", detail)
    return inventory.without_files(bad) if bad else inventory


def recognise(source: str, options: Mapping[str, Any] | None = None, *, indexes: Store | None = None) -> str:
    """Return the one bundled recipe whose names the files of a source have.

    Raises ``RequestError`` if there is no such folder, or not exactly one such recipe.
    """
    listed = open_source(source, options, indexes=indexes).listed()
    return recognised(source, (entry.key for entry in listed if isinstance(entry, Entry)))


def _likeness(recipe: Recipe, inventory: Inventory) -> str:
    likely = set(likely_recipes(item.path for item in inventory.rejected)) - {recipe.name}
    return f"; these look like {' or '.join(sorted(likely))}" if likely else ""


def _equal(files: Source, entries: list[Entry]) -> bool:
    """Tell whether files are the same to the byte."""
    if len({entry.size for entry in entries}) > 1:
        return False
    first, *others = files.read_listed(entries)
    return isinstance(first, bytes) and all(first == other for other in others)


def examine(recipe: Recipe, inventory: Inventory) -> Inventory:
    """Read the files whose size is odd among their kind, and reject those that are damaged.

    Files of one modality mostly have one size (uncompressed TIFFs); where they have not, nothing is read here and the
    workers find what is wrong.
    """
    store = inventory.opened
    bad: dict[tuple[int, int], Rejected] = {}
    expected = expectations(recipe)
    for place, expectation in enumerate(expected[name].of_file for name, _ in recipe.files):
        sizes = inventory.size[:, place]
        present = np.flatnonzero(sizes >= 0)
        values, counts = np.unique(sizes[present], return_counts=True)
        if not len(values) or counts.max() < _USUAL_SHARE * len(present):
            continue
        for row in present[sizes[present] != values[counts.argmax()]]:
            path = str(inventory.path[row, place])
            (data,) = store.read_listed([Entry(path, int(sizes[row]), str(inventory.stamp[row, place]))])
            try:
                if isinstance(data, OSError):
                    raise data
                expectation.check(read_raster(data, expectation))
            except RejectedFile as error:
                bad[int(row), place] = rejection(path, error)
            except OSError as error:
                bad[int(row), place] = rejection(path, require_answer(store, error))
    return inventory.without_files(bad)
