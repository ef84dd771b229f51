"""Nothing particular to a data set is written in the code: what the recipes say stands in the recipes alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import cube
from cube.recipes.bundled import recipe_names
from cube.recipes.recipe import WHOLE, Recipe, read_recipe

LIKE_ANOTHERS = Path(cube.__file__).with_name("torchgeo.py")
"""A class that has the constants of another library's class, which is for one data set."""
MODULES = sorted(path for path in Path(cube.__file__).parent.rglob("*.py") if path != LIKE_ANOTHERS)
SHORT = 2
"""Longest word that may stand in the code by chance."""
SMALL = 100
"""Whole numbers below mean many things."""
NUMBERS = {128, 255, 256, 400, 1024, 8192, 65535, 65536}
"""So do these."""
OF_THE_PROGRAM = {"demo"}
"""The data set the program makes itself is named by its command."""


def words_of(recipe: Recipe) -> Iterator[str]:
    yield from (recipe.name, recipe.title, *recipe.seasons, *recipe.modalities, *recipe.legends)
    yield from (season.token for season in recipe.seasons.values())
    yield from re.split(r"[^A-Za-z0-9]+", " ".join(season.token for season in recipe.seasons.values()))
    yield from re.findall(r"[A-Za-z]{3,}(?=\()|^[A-Za-z]{3,}", recipe.source.pattern)
    for modality in recipe.modalities.values():
        yield from (modality.token, modality.title)
        for band in modality.bands:
            yield from (band.name, band.common_name or "")
    for classes in recipe.legends.values():
        yield from (item.name for item in classes)
    yield from (defect.patch for defect in recipe.known_defects)
    yield from (recipe.splits.scenes if recipe.splits else ())


def numbers_of(recipe: Recipe) -> Iterator[float]:
    for season in recipe.seasons.values():
        yield from (season.scenes or 0, season.patches or 0, *map(int, re.findall(r"\d+", season.token)))
    for scene in recipe.demo.scenes if recipe.demo else ():
        yield from (scene.epsg, scene.x, scene.y)
    for modality in recipe.modalities.values():
        yield from (modality.saturated or 0, modality.scale or 0)


RECIPES = [read_recipe(name) for name in recipe_names()]
TOTALS = {sum(season.patches or 0 for season in recipe.seasons.values()) for recipe in RECIPES}
ALLOWED_WORDS = {"red", "green", "blue", "cirrus", "nir", "test", "train", "validation", "Water", "map", "rgb", WHOLE}
"""Common names of the STAC eo extension, by which bands are found, words of any language, and the season of those without."""
WORDS = {word for recipe in RECIPES for word in words_of(recipe) if len(word) > SHORT} - ALLOWED_WORDS - OF_THE_PROGRAM
VALUES = {value for recipe in RECIPES for value in numbers_of(recipe)} | TOTALS
VALUES -= {*range(SMALL), *NUMBERS}


def constants(source: str) -> Iterator[tuple[int, str | float]]:
    """Yield line and value of every constant that is no docstring."""
    tree = ast.parse(source)
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in texts:
            if isinstance(node.value, bytes):
                yield node.lineno, node.value.decode("latin-1")
            elif isinstance(node.value, str | int | float) and not isinstance(node.value, bool):
                yield node.lineno, node.value


def particular(source: str) -> list[str]:
    """Return what in a source is particular to a data set."""
    found = []
    for line, value in constants(source):
        if isinstance(value, str):
            named = [
                word for word in sorted(WORDS) if re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", value, re.I)
            ]
            found += [f"line {line}: {word!r} in {value!r}" for word in named]
        elif value in VALUES:
            found.append(f"line {line}: {value!r}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=[path.name for path in MODULES])
def test_no_constant_is_particular_to_a_data_set(path: Path) -> None:
    assert particular(path.read_text(encoding="utf-8")) == []


def test_enough_is_forbidden() -> None:
    for word in ("sen12ms", "SEN12MS", "sen1-2", "sen12ms-cr", "ROIs", "1158", "1158_spring", "spring", "winter", "B04", "B8A"):
        assert word in WORDS
    for word in ("IGBP", "LCCS_LU", "s2_cloudy", "Croplands", "ROIs1868_summer_146_p202"):
        assert word in WORDS
    assert {180662, 282384, 40883, 1158, 2017, 32737, 0.0001} <= VALUES


@pytest.mark.parametrize(
    "source",
    [
        "x = 'spring'",
        "x = f'{y} of SEN12MS'",
        "x = 1158",
        "def f(a='ROIs{b}'): pass",
        "x = {'B04': 1}",
        "n = 180662",
        "b'winter'[0]",
    ],
)
def test_what_is_particular_is_found(source: str) -> None:
    assert particular(source)


@pytest.mark.parametrize("source", ['"""Of SEN12MS."""', "x = 'offspring'", "x = 'a red band'", "x = 256", "# spring"])
def test_what_is_not_is_left_alone(source: str) -> None:
    assert not particular(source)
