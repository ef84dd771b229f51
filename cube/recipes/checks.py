"""What does not fit together in a recipe whose parts are sound one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import Formatter
from typing import TYPE_CHECKING, Any

import numpy as np

from cube.recipes import WHOLE
from cube.recipes.bundled import nearest
from cube.recipes.patterns import compiled

if TYPE_CHECKING:
    from cube.recipes.recipe import Recipe

_GROUPS = ("season", "modality", "scene", "patch")
_MOST_CLASSES = 63
"""Bits of a number that is not negative."""
_TAKEN = frozenset(
    (
        *("patch", "season", "scene", "number", "split", "epsg", "crs_index", "crs_wkt", "transform", "lon", "lat"),
        *("nan", "saturated", "constant", "empty", "masked", "known_defect", "supersedes"),
        *("kept", "present", "digest", "modality", "nan_count", "zero_count", "saturated_count", "class"),
        *("y", "x", "time", "band", "spatial_ref"),
    )
)
"""Names that no label can have: arrays of a cube, and fields of filters."""


def problems(recipe: Recipe) -> Iterator[str]:
    """Yield what is wrong, each with its place in the recipe."""
    find = (_layout_problems, _group_problems, _template_problems, _modality_problems, _label_problems, _scene_problems)
    return (problem for problems_of in find for problem in problems_of(recipe))


def _layout_problems(recipe: Recipe) -> list[str]:
    layout, size, problems = recipe.layout, recipe.patch.size, []
    if size % layout.tile:
        problems.append(f"layout.tile: {layout.tile} does not divide patch.size {size}")
    sides = {name: recipe.side(name) for name in recipe.modalities}
    if max(sides.values()) != size:
        problems.append(f"patch.size: is {size}, expected that of the modality with the most pixels, {max(sides.values())}")
    for name, side in sides.items():
        if layout.tile * side % size:
            problems.append(
                f"modalities.{name}.size: a tile of {layout.tile} of {size} pixels is no whole number of pixels of {side}"
            )
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
        by_band = all(modality.one_file_per_band for modality in recipe.modalities.values())
        several = {
            "season": len(recipe.seasons) > 1 or recipe.period is None,
            "modality": len(recipe.modalities) > 1 and not by_band,
            "band": any(modality.one_file_per_band for modality in recipe.modalities.values()),
        }
        needed = [name for name in (*needed, "band") if several.get(name)]
    elif recipe.period or recipe.labels or recipe.patch.aliases or recipe.source.match != "name" or _new(recipe):
        return ["format: period, labels, aliases, sizes, one_file_per_band and source.match need format 2"]
    problems = []
    if missing := [name for name in needed if name not in groups]:
        expected = f"expected (?P<name>…) for each of {needed}"
        problems.append(f"source.pattern: lacks the named groups {missing}; {expected}")
    if recipe.period and recipe.seasons.keys() != {WHOLE}:
        problems.append("period: a data set has seasons or a period, not both")
    return problems


def _new(recipe: Recipe) -> bool:
    return any(modality.size or modality.one_file_per_band for modality in recipe.modalities.values())


def _label_problems(recipe: Recipe) -> list[str]:
    groups, problems = sorted(compiled(recipe.source.pattern).groupindex), []
    for name, label in recipe.labels.items():
        origins = [origin for origin in (label.table, label.lists, label.group, label.template) if origin]
        if name in _TAKEN and not (name == "split" and recipe.splits is None):
            problems.append(f"labels.{name}: the name is taken: choose another, and give its group")
        elif name in recipe.modalities or name in recipe.legends:
            problems.append(f"labels.{name}: a modality or a legend has this name")
        elif len(origins) > 1 or bool(label.table) != bool(label.key):
            problems.append(f"labels.{name}: comes from a group, a template, a table with its key, or from lists")
        elif not (label.table or label.lists or label.template) and (label.group or name) not in groups:
            problems.append(f"labels.{name}: the pattern has no group {label.group or name!r}{nearest(name, groups)}")
        elif (label.type in ("class", "classes")) != bool(label.values):
            problems.append(f"labels.{name}: values go with the types class and classes, and these need them")
        elif label.type == "classes" and len(set(label.classes.values())) > _MOST_CLASSES:
            problems.append(f"labels.{name}: of classes there can be {_MOST_CLASSES}, here are {len(label.classes)}")
    return problems


def _template_problems(recipe: Recipe) -> list[str]:
    problems = []
    known = set(compiled(recipe.source.pattern).groupindex)
    templates = {"patch.id": recipe.patch.id, "source.path": recipe.source.path}
    templates |= {f"labels.{name}.template": label.template for name, label in recipe.labels.items()}
    for place, template in templates.items():
        try:
            parts = [part for part in Formatter().parse(template) if part[1] is not None]
        except ValueError as error:
            problems.append(f"{place}: not a template: {error}")
            continue
        if not template and place != "patch.id":
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
    told = "modality" in compiled(recipe.source.pattern).groupindex
    modalities = recipe.modalities.values()
    for kind, tokens in (
        ("seasons", [season.token for season in recipe.seasons.values()]),
        ("modalities", [modality.token for modality in modalities] if told else []),
        ("bands", [] if told else [band.spelled for of in modalities if of.one_file_per_band for band in of.bands]),
    ):
        if len(set(tokens)) != len(tokens):
            problems.append(f"{kind}: the tokens {tokens} are not all different")
    if told and not all(modality.token for modality in modalities):
        problems.append("modalities: the pattern has a group modality, so each needs the token by which names spell it")
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
