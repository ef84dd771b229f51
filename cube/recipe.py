"""A recipe: all that is particular to one data set, read from YAML into a strict, frozen value.

Nothing else in the package knows what SEN12MS is. A recipe holds data only: it cannot run code and names no folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from hashlib import blake2b
from string import Formatter
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cube.recipe_file import Document, load_document, nearest

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Dtype = Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
Incomplete = Literal["fail", "reject", "keep"]
_CODEC = re.compile(r"(?P<name>lz4|zstd)-(?P<level>\d)(?P<bit>-bit)?")
_GROUPS = ("season", "modality", "scene", "patch")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(_Model):
    """How the files are named and what to do when some are missing."""

    pattern: str
    """Regular expression a file's name must match whole, with the groups season, modality, scene and patch."""
    path: str
    """Template of a file's path as published, made of the pattern's groups."""
    ignore: tuple[str, ...] = ()
    """Shell patterns of paths that are known not to be data (side-cars, system files)."""
    georeference: Literal["file", "none"]
    """``file``: every file carries a CRS and a transform. ``none``: none does."""
    incomplete: Incomplete = "reject"
    """What to do with a patch that lacks a file: stop, leave the patch out, or keep it with the gap marked."""

    @field_validator("pattern")
    @classmethod
    def _groups(cls, value: str) -> str:
        try:
            names = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if missing := [name for name in _GROUPS if name not in names]:
            raise ValueError(f"lacks the named groups {missing}; expected (?P<name>…) for each of {list(_GROUPS)}")
        return value


class Patch(_Model):
    """What one patch is."""

    id: str
    """Template of the unique id, made of the pattern's groups as the file names spell them."""
    id_length: Annotated[int, Field(ge=4, le=128)]
    """Room for an id in characters; fixed, so that a cube can grow."""
    size: Annotated[int, Field(ge=1, le=8192)]
    """Height and width in pixels."""


class Season(_Model):
    """One season, as files name it and as the calendar knows it."""

    token: str
    start: date
    end: date
    scenes: int | None = None
    """Scenes as published."""
    patches: int | None = None
    """Patches as published."""


class LegendClass(_Model):
    """One class of a legend."""

    value: int
    name: str
    color: Annotated[str, Field(pattern=r"^[0-9a-f]{6}$")]


class Band(_Model):
    """One band of a modality, in file order."""

    name: str
    common_name: str | None = None
    """Name in the STAC eo extension."""
    center_wavelength: float | None = None
    """Micrometres."""
    gsd: float | None = None
    """Metres, as sensed."""
    description: str | None = None
    legend: str | None = None
    """Name of a legend, for bands of classes."""


class Modality(_Model):
    """One kind of image that every patch has: one file per patch, one array in the cube."""

    token: str
    """How file names spell it."""
    title: str
    dtype: Dtype
    fill: int | float | Literal["nan"]
    """What a reader sees where a patch lacks this modality; such patches are marked ``present = False``."""
    units: str
    """CF units."""
    saturated: int | float | None = None
    """Value at which the sensor or the processing saturates; counted per patch."""
    scale: float | None = None
    """Factor from stored values to physical ones, if any; never applied."""
    typical_ratio: Annotated[float, Field(gt=0)]
    """Raw bytes to stored bytes, measured on other data, for estimates made without reading a file."""
    bands: Annotated[tuple[Band, ...], Field(min_length=1)]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Little-endian NumPy type of a pixel."""
        return np.dtype(self.dtype).newbyteorder("<")


class Splits(_Model):
    """The official split, by scene."""

    otherwise: str
    """Split of every scene not named below."""
    scenes: Mapping[str, tuple[str, ...]] = {}
    """Split to scenes, each as ``season/scene``."""


class Defect(_Model):
    """One published defect, reported when the patch is part of a build."""

    patch: str
    """Id of the patch."""
    modality: str
    note: str


class Codec(_Model):
    """One Blosc setting."""

    name: Literal["lz4", "zstd"]
    level: int
    shuffle: Literal["shuffle", "bitshuffle"]


class Layout(_Model):
    """How the pixels lie on disk."""

    tile: Annotated[int, Field(ge=8)]
    """Height and width of a tile in pixels: the stride at which patches overlap."""
    shard: Annotated[int, Field(ge=1, le=65536)]
    """Patches in a shard."""
    labels: Annotated[int, Field(ge=1)]
    """Chunk length of the per-patch coordinates; fixed, so that a cube can grow."""
    header_bytes: Annotated[int, Field(ge=64)]
    """Room for the non-pixel bytes of one file."""
    path_bytes: Annotated[int, Field(ge=16)]
    """Room for the path of one file."""
    memory_limit_mb: Annotated[int, Field(ge=64)]
    """Most memory one worker may need."""
    profile: str
    """Name of the default profile."""
    profiles: Mapping[str, Mapping[str, str]]
    """Profile to modality to codec, such as ``zstd-3`` or ``lz4-5-bit`` (Blosc codec, level, bit shuffle)."""

    @field_validator("profiles")
    @classmethod
    def _codecs(cls, value: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
        for profile, codecs in value.items():
            for modality, text in codecs.items():
                if not _CODEC.fullmatch(text):
                    raise ValueError(
                        f"codec {text!r} of profile {profile}, modality {modality}: expected lz4 or zstd, a level, "
                        "and -bit for bit shuffle, such as zstd-3 or lz4-5-bit"
                    )
        return value


class DemoScene(_Model):
    """One made scene."""

    season: str
    scene: int
    epsg: int
    x: float
    y: float
    """Upper left corner of the first patch, in CRS units."""
    missing: tuple[int, ...] = ()
    """Patch numbers left out."""


class DemoFile(_Model):
    """One file of the made data set."""

    season: str
    scene: int
    patch: int
    modality: str


class Demo(_Model):
    """The data set that ``cube demo`` makes."""

    rows: int
    columns: int
    grid_width: int
    """Patches in a row of the numbering."""
    scenes: Annotated[tuple[DemoScene, ...], Field(min_length=1)]
    broken: DemoFile
    """The file that is cut off in the middle."""


class Recipe(_Model):
    """All that is particular to one data set."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    source: Source
    patch: Patch
    seasons: Annotated[Mapping[Name, Season], Field(min_length=1)]
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
        for problem in (*_layout_problems(self), *_reference_problems(self)):
            raise ValueError(problem)
        return self

    def codec(self, modality: str, profile: str) -> Codec:
        """Return the codec of a modality under a profile of this recipe."""
        match = _CODEC.fullmatch(self.layout.profiles[profile][modality])
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
        return Recipe.model_validate_json(json.dumps(document.data, default=str))
    except ValidationError as error:
        raise document.explain(error, Recipe) from None


def with_profile(recipe: Recipe, profile: str) -> Recipe:
    """Return the recipe with another default profile."""
    document = Document.of(recipe.name, {**recipe.model_dump(mode="json")})
    data = {**document.data, "layout": {**document.data["layout"], "profile": profile}}
    try:
        return Recipe.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise document.explain(error, Recipe) from None


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


def _reference_problems(recipe: Recipe) -> list[str]:
    problems = []
    known = set(re.compile(recipe.source.pattern).groupindex)
    for place, template in (("patch.id", recipe.patch.id), ("source.path", recipe.source.path)):
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
        if fields - known:
            problems.append(f"{place}: uses {sorted(fields - known)}, but the pattern has {sorted(known)}")
    for kind, tokens in (
        ("seasons", [season.token for season in recipe.seasons.values()]),
        ("modalities", [modality.token for modality in recipe.modalities.values()]),
    ):
        if len(set(tokens)) != len(tokens):
            problems.append(f"{kind}: the tokens {tokens} are not all different")
    for name, modality in recipe.modalities.items():
        problems += [
            f"modalities.{name}: legend {band.legend!r} is not one of {sorted(recipe.legends)}"
            for band in modality.bands
            if band.legend is not None and band.legend not in recipe.legends
        ]
    for split, scenes in (recipe.splits.scenes if recipe.splits else {}).items():
        problems += [
            f"splits.scenes.{split}: {scene!r} is not season/scene with a season of {sorted(recipe.seasons)}"
            for scene in scenes
            if scene.partition("/")[0] not in recipe.seasons or not scene.partition("/")[2].isdigit()
        ]
    return problems
