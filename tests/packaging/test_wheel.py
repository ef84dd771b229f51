"""The wheel, built from the source distribution and used outside the checkout in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from dask_processes import dask_scheduler, dask_worker
from environments import ROOT, Environment, make_wheel, new_environment
from making import Made, build, write_recipe

BUNDLED = ("recipes", "catalog")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel in a new environment, which sees the dependencies of the running one, but no editable install."""
    environment = new_environment(tmp_path_factory.mktemp("environment"), with_dependencies=True, with_pip=False)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(environment.python)]
    command += ["install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    got = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert got.returncode == 0, got.stderr
    return environment


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        metadata = next(file.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cube").glob("**/*.py")}
    assert modules <= names
    assert "cube/py.typed" in names
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"cube"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "# patchcube" in metadata


def test_recipes_and_templates_come_along(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        there = {name: file.read(name) for name in file.namelist() if name.startswith("cube/_bundled/")}
    wanted = {
        f"cube/_bundled/{path.relative_to(ROOT).as_posix()}": path.read_bytes()
        for name in BUNDLED
        for path in (ROOT / name).rglob("*")
        if path.is_file()
    }
    assert there == wanted


def test_package_is_that_of_the_wheel(installed: Environment) -> None:
    program = "import cube, cube.recipes.bundled; print(cube.__file__); print(cube.recipes.bundled.folder('recipes'))"
    module, recipes = installed.run("python", "-c", program).split()
    for path in (module, recipes):
        assert Path(path).resolve().is_relative_to(installed.programs.parent.resolve())


def test_command_lists_its_recipes(installed: Environment) -> None:
    names = [line.split()[0] for line in installed.run("cube", "recipes").splitlines()]
    assert names == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def test_demo_runs_from_an_empty_folder(installed: Environment) -> None:
    printed = installed.run("cube", "demo")
    assert printed.count("is sound:") == 2
    assert [path.name for path in installed.empty.iterdir()] == ["cube-demo"]
    made = {path.name for path in (installed.empty / "cube-demo").iterdir()}
    assert made == {"files", "demo.zarr", "demo.build", "demo.stac"}
    assert (installed.empty / "cube-demo" / "demo.stac" / "collection.json").is_file()


def test_workers_need_nothing_but_the_wheel(installed: Environment, made: Made, tmp_path: Path) -> None:
    """A scheduler and two workers of that environment, each a process of its own, make the cube that one process makes."""
    recipe = write_recipe(tmp_path / "tiny.yaml", shard=4)
    build(recipe, made.folder, tmp_path / "alone.zarr")
    variables = installed.variables()
    with ExitStack() as stack:
        address = stack.enter_context(dask_scheduler(python=installed.python, environment=variables, folder=installed.empty))
        workers = [
            stack.enter_context(dask_worker(address, python=installed.python, environment=variables, folder=installed.empty))
            for _ in range(2)
        ]
        words = ["build", str(recipe), "--source", str(made.folder), "--to", str(tmp_path / "a.zarr"), "--scheduler", address]
        done = subprocess.run([sys.executable, "-m", "cube", *words], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
    named = {
        path.read_text().partition('"worker": "')[2].partition('"')[0] for path in (tmp_path / "a.build/receipts").iterdir()
    }
    assert {int(name.rpartition(":")[2]) for name in named} <= {worker.pid for worker in workers}
    written, expected = (
        {path.relative_to(cube): path.read_bytes() for path in cube.rglob("*") if path.is_file()}
        for cube in (tmp_path / "a.zarr", tmp_path / "alone.zarr")
    )
    assert written == expected
