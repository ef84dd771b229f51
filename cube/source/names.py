"""How a recipe reads the names of files, and which bundled recipe reads the names that are there. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from functools import partial
from typing import Any

from cube.errors import RequestError
from cube.recipes.bundled import recipe_names
from cube.recipes.patterns import compiled, whole_match
from cube.recipes.recipe import Recipe, read_recipe

LARGEST = 2**31 - 1
"""Largest scene or patch number a cube can hold."""
_SAME = {"tiff": "tif", "jpeg": "jpg"}
_MADE = "demo"
"""The recipe of the made data set, whose files are named as those of another."""
_ENOUGH = 20_000
"""Files by which a source is recognised."""


class Names:
    """The names that a recipe knows."""

    def __init__(self, recipe: Recipe) -> None:
        self._match = partial(whole_match, recipe.source.pattern)
        self._exact = recipe.source.exact_extensions
        self._whole = recipe.source.match == "path"
        self.recipe = recipe
        self.seasons = {season.token: place for place, season in enumerate(recipe.seasons.values())}
        self.modalities = {item.token or name: place for place, (name, item) in enumerate(recipe.modalities.items())}
        groups = compiled(recipe.source.pattern).groupindex
        only = {"season": next(iter(self.seasons)), "modality": next(iter(self.modalities))}
        self._fixed = {name: token for name, token in only.items() if name not in groups}
        self._by_band = {} if "modality" in groups else _modalities_by_band(recipe)
        tokens = {name: item.token or name for name, item in recipe.modalities.items()}
        self._columns = {(tokens[name], band and band.spelled): place for place, (name, band) in enumerate(recipe.files)}
        self._of_bands = {tokens[name] for name, item in recipe.modalities.items() if item.one_file_per_band}

    def read(self, key: str) -> dict[str, str] | None:
        """Return the groups of a file's name, or path; None for one that the recipe does not know."""
        match = next(filter(None, map(self._matched, self._names(key))), None)
        if match is None:
            return None
        groups = {**self._fixed, **{name: value for name, value in match.groupdict().items() if value is not None}}
        if (modality := self._by_band.get(groups.get("band", ""))) is not None:
            groups["modality"] = modality
        return groups if self._known(groups) else None

    def column(self, groups: Mapping[str, str]) -> int:
        """Return which of the files of a patch this is, by the groups of its name."""
        return self._columns[groups["modality"], self._band(groups)]

    def _band(self, groups: Mapping[str, str]) -> str | None:
        return groups.get("band") if groups["modality"] in self._of_bands else None

    def _names(self, key: str) -> Iterator[str]:
        """Yield what a pattern may mean of a path: the name, or the path without none, one and more of its first folders."""
        if not self._whole:
            yield key.rpartition("/")[2]
            return
        while key:
            yield key
            key = key.partition("/")[2]

    def _matched(self, name: str) -> Any:
        """Match a name as it is, or with its extension as others spell it."""
        others = () if self._exact else _spellings(name)
        return self._match(name) or next(filter(None, map(self._match, others)), None)

    def ignored(self, key: str) -> bool:
        """Tell whether the recipe names a file as not being data, or it is of a modality that is not wanted."""
        if self.recipe.source.left_out:
            match = next(filter(None, map(self._match, self._names(key))), None)
            groups = match.groupdict() if match else {}
            if {groups.get("modality"), groups.get("band")} & set(self.recipe.source.left_out):
                return True
        return any(fnmatch(key, pattern) for pattern in self.recipe.source.ignore)

    def example(self) -> str:
        """Return a name such as is expected; the pattern itself where none can be made of it."""
        words = {"season": next(iter(self.seasons)), "modality": next(iter(self.modalities)), "scene": "1", "patch": "30"}
        if not self.recipe.source.path:
            return self.recipe.source.pattern
        try:
            made = self.recipe.source.path.format(**words)
        except KeyError:  # the pattern has groups of its own
            made = ""
        return made if self.read(made) else self.recipe.source.pattern

    def _known(self, groups: dict[str, str]) -> bool:
        if groups["season"] not in self.seasons or groups["modality"] not in self.modalities:
            return False
        if (groups["modality"], self._band(groups)) not in self._columns:
            return False
        numbers = [groups[name] for name in ("scene", "patch") if name in groups]
        return all(text.isdecimal() and int(text) <= LARGEST for text in numbers)


def _modalities_by_band(recipe: Recipe) -> dict[str, str]:
    """Return which modality each band is of, as names spell both, where bands alone tell them apart."""
    return {band.spelled: recipe.modalities[name].token or name for name, band in recipe.files if band is not None}


def _spellings(name: str) -> Iterator[str]:
    """Yield a name with its extension as others spell it."""
    stem, dot, extension = name.rpartition(".")
    if dot:
        lower = extension.lower()
        plain = _SAME.get(lower, lower)
        yield from (f"{stem}.{other}" for other in dict.fromkeys((lower, plain, plain.upper())) if other != extension)


def likely_recipes(keys: Iterable[str]) -> list[str]:
    """Return the bundled recipes that read the most of some files' names; none where no recipe reads any."""
    known = {name: Names(read_recipe(name)) for name in recipe_names() if name != _MADE}
    counts: Counter[str] = Counter()
    for _, key in zip(range(_ENOUGH), keys, strict=False):
        counts.update(name for name, names in known.items() if names.read(key))
    most = [name for name, count in counts.items() if count == max(counts.values())]
    by_path = [name for name in most if known[name].recipe.source.match == "path"]  # what reads folders, too, knows more
    return sorted(by_path or most)


def recognised(source: str, keys: Iterable[str]) -> str:
    """Return the one bundled recipe whose names a source has. Raises ``RequestError`` if there is none, or more than one."""
    likely = likely_recipes(keys)
    if len(likely) == 1:
        return likely[0]
    seen = f"its files fit {' and '.join(likely)} alike" if likely else "its files fit no bundled recipe"
    raise RequestError(f"{source}: {seen}: say which recipe is meant (`cube recipes` lists them)")
