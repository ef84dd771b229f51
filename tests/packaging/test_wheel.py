"""The wheel, built from the source distribution and used outside the checkout in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("cube", "recipes", "catalog", "tests", "docs")
FILES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")
BUNDLED = ("recipes", "catalog")


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel, and an empty folder to run in."""

    programs: Path
    empty: Path

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment and return what it prints."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CUBE_", "VIRTUAL_"))}
        command = [str(self.programs / program), *arguments]
        got = subprocess.run(command, cwd=self.empty, env=kept, capture_output=True, text=True, check=False, timeout=240)
        assert got.returncode == 0, got.stderr
        return got.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution of a copy of the sources, and the wheel of that."""
    sources, out = tmp_path_factory.mktemp("sources") / "copy", tmp_path_factory.mktemp("dist")
    ignored = shutil.ignore_patterns("__pycache__", "node_modules", ".*")
    for name in PARTS:
        shutil.copytree(ROOT / name, sources / name, ignore=ignored)
    for name in FILES:
        shutil.copy2(ROOT / name, sources / name)
    hatch("sdist", sources, out)
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(out / "unpacked", filter="data")
    (unpacked,) = (out / "unpacked").iterdir()
    hatch("wheel", unpacked, out)
    (built,) = out.glob("*.whl")
    return built


def hatch(kind: str, sources: Path, out: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    got = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False, timeout=120)
    assert got.returncode == 0, got.stderr


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a new environment, which sees the dependencies of the running one, but no editable install."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    command += ["install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    got = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert got.returncode == 0, got.stderr
    (packages,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, but the .pth files in it, such as that of an editable install, are not.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return Installed(folder / "bin", tmp_path_factory.mktemp("empty"))


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


def test_package_is_that_of_the_wheel(installed: Installed) -> None:
    program = "import cube, cube.bundled; print(cube.__file__); print(cube.bundled.folder('recipes'))"
    module, recipes = installed.run("python", "-c", program).split()
    for path in (module, recipes):
        assert Path(path).resolve().is_relative_to(installed.programs.parent.resolve())


def test_command_lists_its_recipes(installed: Installed) -> None:
    names = [line.split()[0] for line in installed.run("cube", "recipes").splitlines()]
    assert names == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def test_demo_runs_from_an_empty_folder(installed: Installed) -> None:
    printed = installed.run("cube", "demo")
    assert printed.count("is sound:") == 2
    assert [path.name for path in installed.empty.iterdir()] == ["cube-demo"]
    made = {path.name for path in (installed.empty / "cube-demo").iterdir()}
    assert made == {"files", "demo.zarr", "demo.build", "demo.stac"}
    assert (installed.empty / "cube-demo" / "demo.stac" / "collection.json").is_file()
