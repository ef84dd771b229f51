"""The table of ``docs/scaling.md`` is the one its program prints, and its program's constants are those of the recipe."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from cube.convert.plan import READ_AHEAD
from cube.format.layout import original_arrays, pixel_arrays
from cube.recipes.recipe import read_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scaling() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks/scaling.py"))


def test_the_document_has_the_table_that_is_printed(scaling: dict[str, Any]) -> None:
    assert scaling["table"]() in (ROOT / "docs/scaling.md").read_text(encoding="utf-8")


def test_its_constants_are_those_of_the_recipe(scaling: dict[str, Any]) -> None:
    recipe = read_recipe("sen12ms")
    seasons = recipe.seasons.values()
    assert scaling["PATCHES"] == sum(season.patches or 0 for season in seasons)
    assert scaling["SCENES"] == sum(season.scenes or 0 for season in seasons)
    assert (scaling["BATCH"], scaling["MODALITIES"]) == (recipe.layout.shard, len(recipe.modalities))
    assert scaling["AHEAD"] == READ_AHEAD
    arrays = [*pixel_arrays(recipe, 1), *original_arrays(recipe, 1)]
    shared = {spec.path for spec in arrays if spec.chunks[0] == recipe.layout.shard}
    assert scaling["COSTS"].objects.keys() == {*shared, "receipt"}


def test_twice_the_workers_are_never_slower(scaling: dict[str, Any]) -> None:
    seconds = [scaling["Build"](workers).seconds for workers in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)]
    assert seconds == sorted(seconds, reverse=True)
    floor = scaling["PATCHES"] * scaling["MODALITIES"] / scaling["Cloud"]().get_rate
    assert scaling["Build"](100_000).writing == pytest.approx(floor)
