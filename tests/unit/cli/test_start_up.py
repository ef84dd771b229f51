"""A command loads what it needs and no more: help, lists and mistakes are answered at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cube.recipes.bundled import recipe_names, recipe_titles
from cube.recipes.recipe import read_recipe

HEAVY = {"xarray", "pandas", "dask", "distributed", "pyarrow", "rasterio", "rioxarray", "zarr", "s3fs", "fsspec", "pyproj"}
PROGRAM = """
import json, sys
from click.testing import CliRunner
from cube.cli.main import main
result = CliRunner().invoke(main, sys.argv[1:])
print(json.dumps([result.exit_code, result.output, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def run(*words: str) -> tuple[int, str, set[str]]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True)
    code, output, modules = json.loads(done.stdout)
    return code, output, set(modules)


@pytest.mark.parametrize(
    ("words", "code", "more"),
    [
        (["--help"], 0, {"numpy", "pydantic", "yaml"}),
        (["build", "--help"], 0, {"numpy", "pydantic", "yaml"}),
        (["--version"], 0, {"numpy", "pydantic", "yaml"}),
        (["recipes"], 0, {"numpy", "pydantic", "yaml"}),
        (["bild"], 2, {"numpy", "pydantic", "yaml"}),
        (["build", "sen12ms"], 2, {"numpy", "pydantic", "yaml"}),
        (["clean", "--ja"], 2, {"numpy", "pydantic", "yaml"}),
        (["plan", "sen12", "--source", "nowhere"], 2, {"numpy", "pydantic", "yaml"}),
        (["recipes", "sen12ms"], 0, set()),
    ],
)
def test_help_lists_and_mistakes_load_nothing_heavy(words: list[str], code: int, more: set[str]) -> None:
    answered, output, modules = run(*words)
    assert (answered, modules & (HEAVY | more)) == (code, set()), output


def test_what_a_cube_holds_is_told_without_xarray_and_dask(tiny_cube) -> None:
    code, output, modules = run("info", tiny_cube.target.url)
    assert code == 0, output
    assert modules & (HEAVY | {"pydantic"}) == set()


@pytest.mark.parametrize("name", ["Samples", "Batches", "Shuffle"])
def test_what_trains_loads_no_cluster_and_no_tables(name: str) -> None:
    program = f"import cube, sys; cube.{name}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & (HEAVY | {"pydantic", "click", "torch", "yaml"}) == set()


def test_titles_are_those_of_the_recipes() -> None:
    assert recipe_titles() == {name: read_recipe(name).title for name in recipe_names()}
