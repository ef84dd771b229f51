"""What a recipe makes of some files of a source, one by one: for whoever writes a recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from cube.errors import RejectedFile
from cube.recipes.recipe import Recipe
from cube.recipes.sections import EPOCH
from cube.source.expectations import expectations
from cube.source.files import open_source
from cube.source.labels import labels_of
from cube.source.names import Names
from cube.source.rasters import read_raster
from cube.source.rejected import Rejected
from cube.source.tables import aliases, beside
from cube.store.protocol import Entry

_HELD = 100
"""Times as many files are held as are shown, while a source is listed."""
_STRANGE = 5
"""Files that fit nothing which are shown."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """What a recipe makes of one file."""

    path: str
    modality: str
    season: str
    patch: str
    """Id of its patch."""
    groups: Mapping[str, str]
    """Groups of the pattern as the file spells them."""
    labels: Mapping[str, Any]
    trouble: str = ""
    """Why it would be rejected; empty where it would not."""


@dataclass(kw_only=True)
class Inspection:
    """What a recipe makes of a source."""

    recipe: str
    source: str
    files: Counter[str] = field(default_factory=Counter)
    """Modality → files."""
    ignored: int = 0
    strange: int = 0
    """Files that fit neither the pattern nor what is ignored."""
    unknown: list[str] = field(default_factory=list)
    """Some of them."""
    examples: list[Example] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "files": dict(self.files)}


def inspect(recipe: Recipe, source: str, options: Mapping[str, Any] | None = None, *, count: int = 10) -> Inspection:
    """List a source, and read ``count`` of its files, of every modality some.

    Raises ``RequestError`` if there is no such folder, ``OSError`` if it does not answer.
    """
    names, found = Names(recipe), Inspection(recipe=recipe.name, source=source)
    files = open_source(source, options, ignored=names.ignored)
    kept: dict[str, list[tuple[Entry, dict[str, str]]]] = {name: [] for name in recipe.modalities}
    kinds, told = list(recipe.modalities), beside(recipe)
    for entry in files.listed():
        path = entry.path if isinstance(entry, Rejected) else entry.key
        if path in told:
            continue
        groups = None if isinstance(entry, Rejected) else names.read(path)
        if groups is not None and isinstance(entry, Entry):
            kind = kinds[names.modalities[groups["modality"]]]
            found.files[kind] += 1
            kept[kind].append((entry, groups))
            if len(kept[kind]) > _HELD * count:
                kept[kind] = _first(kept[kind], count)
        elif names.ignored(path):
            found.ignored += 1
        else:
            found.strange += 1
            found.unknown += [path] if found.strange <= _STRANGE else []
    seasons, otherwise = list(recipe.seasons), aliases(recipe, files)
    kept = {kind: _first(items, count) for kind, items in kept.items()}
    for kind, (entry, groups) in _in_turn(kept)[:count]:
        trouble, labels = _trouble(recipe, kind, entry, groups, files)
        days = [name for name in labels if recipe.labels[name].type == "date"]
        spelled = recipe.patch.id.format(**groups)
        example = Example(
            path=entry.key,
            modality=kind,
            season=seasons[names.seasons[groups["season"]]],
            patch=otherwise.get(spelled, spelled),
            groups={name: text for name, text in groups.items() if text},
            labels=labels | {name: (EPOCH + timedelta(days=labels[name])).isoformat() for name in days},
            trouble=trouble,
        )
        found.examples.append(example)
    return found


def _first(items: list[tuple[Entry, dict[str, str]]], count: int) -> list[tuple[Entry, dict[str, str]]]:
    """Return the first files by their paths, whatever order a source lists them in."""
    return sorted(items, key=lambda item: item[0].key)[:count]


def _in_turn(kept: Mapping[str, list[Any]]) -> list[tuple[str, Any]]:
    """Return the files of all modalities, one of each in turn."""
    most = max(map(len, kept.values()))
    return [(kind, items[place]) for place in range(most) for kind, items in kept.items() if place < len(items)]


def _trouble(recipe: Recipe, kind: str, entry: Entry, groups: dict[str, str], files: Any) -> tuple[str, dict[str, Any]]:
    """Return why a file would be rejected, and its labels."""
    try:
        labels = labels_of(recipe, groups)
    except ValueError as error:
        return f"unknown label: {error}", {}
    expectation = expectations(recipe)[kind].of_file
    (data,) = files.part([entry.key]).read_listed([entry])
    try:
        if isinstance(data, OSError):
            raise data
        expectation.check(read_raster(data, expectation))
    except RejectedFile as error:
        return f"{error.reason}: {error.detail}", labels
    except OSError as error:
        return f"unreadable: {error.strerror or error}", labels
    return "", labels
