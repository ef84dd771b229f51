"""A recipe: all that is particular to one data set, read from YAML into a strict, frozen value.

Nothing else in the package knows what SEN12MS is. A recipe holds data only: it cannot run code and names no folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from string import Formatter
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from cube.errors import RecipeError
from cube.recipes.bundled import nearest
from cube.recipes.patterns import compiled
from cube.recipes.reading import Document, load_document
from cube.recipes.sections import (
    CODEC,
    Codec,
    Defect,
    Demo,
    Label,
    Layout,
    LegendClass,
    Modality,
    Name,
    Patch,
    Period,
    Season,
    Section,
    Source,
    Splits,
)

WHOLE = "all"
"""The season of a data set that has none."""
_UNSPELLED = ""
"""How its files spell that."""
_GROUPS = ("season", "modality", "scene", "patch")
_TAKEN = frozenset(
    (
        *("patch", "season", "scene", "number", "split", "epsg", "crs_index", "crs_wkt", "transform", "lon", "lat"),
        *("kept", "present", "digest", "modality", "nan_count", "zero_count", "saturated_count", "class"),
        *("y", "x", "time", "band", "spatial_ref"),
    )
)
"""Names that no label can have: arrays of a cube, and fields of filters."""


class Recipe(Section):
    """All that is particular to one data set."""

    format: Literal[1, 2]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    source: Source
    patch: Patch
    seasons: Annotated[Mapping[Name, Season], Field(min_length=1)]
    """Where none are told, there is one, ``all``, of the period's days."""
    period: Period | None = None
    labels: Mapping[Name, Label] = {}
    """What becomes a label of each patch, beside season, scene and number."""
    modalities: Annotated[Mapping[Name, Modality], Field(min_length=1)]
    legends: Mapping[Name, tuple[LegendClass, ...]] = {}
    splits: Splits | None = None
    known_defects: tuple[Defect, ...] = ()
    layout: Layout
    catalog: str
    """Name of the collection template in ``catalog/templates``."""
    demo: Demo | None = None
    """What `cube demo` makes, for the recipe it uses."""

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        find = (_layout_problems, _group_problems, _template_problems, _modality_problems, _label_problems, _scene_problems)
        for problem in (problem for problems in find for problem in problems(self)):
            raise ValueError(problem)
        return self

    def codec(self, modality: str, profile: str) -> Codec:
        """Return the codec of a modality under a profile of this recipe."""
        match = CODEC.fullmatch(self.layout.profiles[profile][modality])
        assert match is not None
        name: Literal["lz4", "zstd"] = "lz4" if match["name"] == "lz4" else "zstd"
        shuffle: Literal["shuffle", "bitshuffle"] = "bitshuffle" if match["bit"] else "shuffle"
        return Codec(name=name, level=int(match["level"]), shuffle=shuffle)

    def split_of(self, season: str, scene: int) -> str:
        """Return the split of a scene; an empty string where the data set has no splits."""
        if self.splits is None:
            return ""
        key = f"{season}/{scene}"
        return next((name for name, scenes in self.splits.scenes.items() if key in scenes), self.splits.otherwise)

    @property
    def digest(self) -> str:
        """Hash of everything the recipe says."""
        return blake2b(self.model_dump_json().encode(), digest_size=16).hexdigest()


def read_recipe(name_or_path: str) -> Recipe:
    """Read a bundled recipe by name, or a recipe file by path.

    Raises ``RecipeError`` with file, line, what was expected and the nearest valid word.
    """
    document = load_document(name_or_path)
    try:
        return Recipe.model_validate_json(json.dumps(_with_seasons(document.data), default=str))
    except ValidationError as error:
        raise document.explain(error, Recipe) from None


def _with_seasons(data: dict[str, Any]) -> dict[str, Any]:
    """Give a data set without seasons the one that its period is."""
    if data.get("seasons") or not isinstance(data.get("period"), dict):
        return data
    return {**data, "seasons": {WHOLE: {"token": _UNSPELLED, **data["period"]}}}


def with_profile(recipe: Recipe, profile: str) -> Recipe:
    """Return the recipe with another default profile."""
    document = Document.of(recipe.name, {**recipe.model_dump(mode="json")})
    data = {**document.data, "layout": {**document.data["layout"], "profile": profile}}
    try:
        return Recipe.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise document.explain(error, Recipe) from None


def with_modalities(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Return the recipe of some of its modalities, in its own order; files of the others are ignored.

    Raises ``RecipeError`` for one that it does not have, or for none.
    """
    if unknown := [name for name in names if name not in recipe.modalities]:
        raise RecipeError(f"{recipe.name} has no modality {unknown[0]!r}{nearest(unknown[0], recipe.modalities)}")
    if not names:
        raise RecipeError(f"no modality is named; {recipe.name} has {', '.join(recipe.modalities)}")
    if set(names) == set(recipe.modalities):
        return recipe
    data = recipe.model_dump(mode="json")
    left_out = [item["token"] for name, item in data["modalities"].items() if name not in names]
    data["modalities"] = {name: item for name, item in data["modalities"].items() if name in names}
    used = {band["legend"] for item in data["modalities"].values() for band in item["bands"]}
    data["legends"] = {name: item for name, item in data["legends"].items() if name in used}
    data["known_defects"] = [item for item in data["known_defects"] if item["modality"] in names]
    for profile, codecs in data["layout"]["profiles"].items():
        data["layout"]["profiles"][profile] = {name: codec for name, codec in codecs.items() if name in names}
    data["source"]["left_out"] = [*data["source"]["left_out"], *left_out]
    return Recipe.model_validate_json(json.dumps(data))


def _layout_problems(recipe: Recipe) -> list[str]:
    layout, size, problems = recipe.layout, recipe.patch.size, []
    if size % layout.tile:
        problems.append(f"layout.tile: {layout.tile} does not divide patch.size {size}")
    if layout.profile not in layout.profiles:
        problems.append(
            f"layout.profile: {layout.profile!r} is not a profile{nearest(layout.profile, sorted(layout.profiles))}"
        )
    for profile, codecs in layout.profiles.items():
        if set(codecs) != set(recipe.modalities):
            problems.append(f"layout.profiles.{profile}: names {sorted(codecs)}, expected {sorted(recipe.modalities)}")
    return problems


def _group_problems(recipe: Recipe) -> list[str]:
    """Hold the groups of the pattern against what the recipe says of them."""
    groups = set(compiled(recipe.source.pattern).groupindex)
    needed = list(_GROUPS)
    if recipe.format > 1:
        several = {"season": len(recipe.seasons) > 1 or recipe.period is None, "modality": len(recipe.modalities) > 1}
        needed = [name for name in needed if several.get(name)]
    elif recipe.period or recipe.labels or recipe.source.match != "name":
        return ["format: period, labels and source.match need format 2"]
    problems = []
    if missing := [name for name in needed if name not in groups]:
        expected = f"expected (?P<name>…) for each of {needed}"
        problems.append(f"source.pattern: lacks the named groups {missing}; {expected}")
    if recipe.period and recipe.seasons.keys() != {WHOLE}:
        problems.append("period: a data set has seasons or a period, not both")
    return problems


def _label_problems(recipe: Recipe) -> list[str]:
    groups, problems = sorted(compiled(recipe.source.pattern).groupindex), []
    for name, label in recipe.labels.items():
        if name in _TAKEN and not (name == "split" and recipe.splits is None):
            problems.append(f"labels.{name}: the name is taken: choose another, and give its group")
        elif name in recipe.modalities or name in recipe.legends:
            problems.append(f"labels.{name}: a modality or a legend has this name")
        elif bool(label.table) + bool(label.lists) + bool(label.group) > 1 or bool(label.table) != bool(label.key):
            problems.append(f"labels.{name}: comes from a group, from a table with its key, or from lists")
        elif not (label.table or label.lists) and (label.group or name) not in groups:
            problems.append(f"labels.{name}: the pattern has no group {label.group or name!r}{nearest(name, groups)}")
        elif (label.type == "class") != bool(label.values):
            problems.append(f"labels.{name}: values go with the type class, and a class needs them")
    return problems


def _template_problems(recipe: Recipe) -> list[str]:
    problems = []
    known = set(compiled(recipe.source.pattern).groupindex)
    for place, template in (("patch.id", recipe.patch.id), ("source.path", recipe.source.path)):
        try:
            parts = [part for part in Formatter().parse(template) if part[1] is not None]
        except ValueError as error:
            problems.append(f"{place}: not a template: {error}")
            continue
        if not template and place == "source.path":
            continue
        fields = {field for _, field, _, _ in parts}
        if any(spec or conversion for _, _, spec, conversion in parts):
            problems.append(f"{place}: not a template: expected plain names in braces, such as {{patch}}")
        elif fields - known:
            problems.append(f"{place}: uses {sorted(map(str, fields - known))}, but the pattern has {sorted(known)}")
        elif place == "source.path":
            problems += _path_problems(recipe, template, known)
    return problems


def _path_problems(recipe: Recipe, template: str, known: set[str]) -> list[str]:
    """Refuse a path that leads out of the source."""
    for season in recipe.seasons.values():
        for modality in recipe.modalities.values():
            values = {**dict.fromkeys(known, "1"), "season": season.token, "modality": modality.token}
            path = template.format(**values)
            if path.startswith("/") or ".." in path.split("/"):
                return [f"source.path: gives {path!r}, which leads out of the source"]
    return []


def _modality_problems(recipe: Recipe) -> list[str]:
    problems = []
    for kind, tokens in (
        ("seasons", [season.token for season in recipe.seasons.values()]),
        ("modalities", [modality.token for modality in recipe.modalities.values()]),
    ):
        if len(set(tokens)) != len(tokens):
            problems.append(f"{kind}: the tokens {tokens} are not all different")
    for name, modality in recipe.modalities.items():
        bands = [band.name for band in modality.bands]
        if len(set(bands)) != len(bands):
            problems.append(f"modalities.{name}.bands: the names {bands} are not all different")
        problems += [
            f"modalities.{name}: legend {band.legend!r} is not one of {sorted(recipe.legends)}"
            for band in modality.bands
            if band.legend is not None and band.legend not in recipe.legends
        ]
        problems += [
            f"modalities.{name}.{key}: {value!r} is no value of {modality.dtype}"
            for key, value in (("fill", modality.fill), ("saturated", modality.saturated))
            if value is not None and not _holds(np.dtype(modality.dtype), value)
        ]
    return problems


def _holds(dtype: np.dtype[Any], value: float | str) -> bool:
    """Tell whether a pixel of this type can have this value; not a number is spelled ``nan``."""
    if isinstance(value, str):
        return dtype.kind == "f"
    if dtype.kind == "f":
        return bool(abs(value) <= np.finfo(dtype).max)
    return isinstance(value, int) and bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)


def _scene_problems(recipe: Recipe) -> list[str]:
    problems: list[str] = []
    seen: dict[str, str] = {}
    for split, scenes in (recipe.splits.scenes if recipe.splits else {}).items():
        for scene in scenes:
            season, _, number = scene.partition("/")
            if season not in recipe.seasons or not re.fullmatch("0|[1-9][0-9]*", number):
                expected = f"season/scene with a season of {sorted(recipe.seasons)}"
                problems.append(f"splits.scenes.{split}: {scene!r} is not {expected}")
            if seen.setdefault(scene, split) != split:
                problems.append(f"splits.scenes.{split}: {scene!r} is of the split {seen[scene]!r} already")
    problems += [
        f"known_defects: the modality {defect.modality!r} is not one of {sorted(recipe.modalities)}"
        for defect in recipe.known_defects
        if defect.modality not in recipe.modalities
    ]
    return problems
