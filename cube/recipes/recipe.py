"""A recipe: all that is particular to one data set, read from YAML into a strict, frozen value.

Nothing else in the package knows what SEN12MS is. A recipe holds data only: it cannot run code and names no folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from cube.errors import RecipeError
from cube.recipes import WHOLE
from cube.recipes.bundled import nearest
from cube.recipes.checks import problems
from cube.recipes.made import Demo
from cube.recipes.patterns import compiled
from cube.recipes.reading import Document, load_document
from cube.recipes.sections import (
    CODEC,
    Band,
    Codec,
    Defect,
    Label,
    Layout,
    LegendClass,
    Modality,
    Name,
    Naming,
    Patch,
    Period,
    Season,
    Section,
    Splits,
)

_UNSPELLED = ""
"""How its files spell that."""


class Recipe(Section):
    """All that is particular to one data set."""

    format: Literal[1, 2]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    source: Naming
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
        for problem in problems(self):
            raise ValueError(problem)
        return self

    def side(self, modality: str) -> int:
        """Return height and width of a modality's images in pixels."""
        return self.modalities[modality].size or self.patch.size

    def tile(self, modality: str) -> int:
        """Return height and width of a modality's tiles in pixels: a tile is the same ground in every modality."""
        return self.layout.tile * self.side(modality) // self.patch.size

    @property
    def files(self) -> list[tuple[str, Band | None]]:
        """The files of a patch: modality, and the band where each is a file of its own."""
        return [
            (name, band)
            for name, modality in self.modalities.items()
            for band in (modality.bands if modality.one_file_per_band else (None,))
        ]

    def codec(self, modality: str, profile: str) -> Codec:
        """Return the codec of a modality under a profile of this recipe."""
        match = CODEC.fullmatch(self.layout.profiles[profile][modality])
        assert match is not None
        shuffle = "bitshuffle" if match["bit"] else "shuffle"
        return Codec.model_validate(
            {"name": match["name"], "level": int(match["level"]), "shuffle": shuffle, "block": int(match["block"] or 0) << 10}
        )

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
    by_band = "modality" not in compiled(recipe.source.pattern).groupindex
    left_out = [
        token
        for name, modality in recipe.modalities.items()
        if name not in names
        for token in ([band.spelled for band in modality.bands] if by_band else [modality.token])
    ]
    side = max(recipe.side(name) for name in names)
    data["layout"]["tile"] = recipe.layout.tile * side // recipe.patch.size
    data["patch"]["size"] = side
    data["modalities"] = {name: item for name, item in data["modalities"].items() if name in names}
    used = {band["legend"] for item in data["modalities"].values() for band in item["bands"]}
    data["legends"] = {name: item for name, item in data["legends"].items() if name in used}
    data["known_defects"] = [item for item in data["known_defects"] if item["modality"] in names]
    for profile, codecs in data["layout"]["profiles"].items():
        data["layout"]["profiles"][profile] = {name: codec for name, codec in codecs.items() if name in names}
    data["source"]["left_out"] = [*data["source"]["left_out"], *left_out]
    return Recipe.model_validate_json(json.dumps(data))
