"""Python environments of their own: the wheel in an empty one, or foreign packages without this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("cube", "recipes", "catalog", "tests", "docs")
FILES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")


@dataclass(frozen=True)
class Environment:
    """An environment, and an empty folder to run in."""

    programs: Path
    empty: Path

    @property
    def python(self) -> Path:
        return self.programs / "python"

    def variables(self, **more: str) -> dict[str, str]:
        """Return the variables of this process but for those that lead Python elsewhere."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CUBE_", "VIRTUAL_"))}
        return {**kept, "PATH": f"{self.programs}{os.pathsep}{kept['PATH']}", **more}

    def run(self, program: str, *arguments: str, seconds: float = 280, **more: str) -> str:
        """Run a program of the environment and return what it prints; ``more`` are variables."""
        command = [str(self.programs / program), *arguments]
        variables = self.variables(**more)
        got = subprocess.run(
            command, cwd=self.empty, env=variables, capture_output=True, text=True, check=False, timeout=seconds
        )
        assert got.returncode == 0, got.stdout + got.stderr
        return got.stdout

    def install(self, *packages: str) -> None:
        """Install packages, in the versions this project is tested with where it names them."""
        command = [
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--constraint",
            str(ROOT / "constraints.txt"),
        ]
        self.run("python", *command, *packages, seconds=1200)


def new_environment(folder: Path, *, with_dependencies: bool, with_pip: bool = True) -> Environment:
    """Make an environment; it may see the dependencies of the running one, but no editable install."""
    venv.create(folder / "venv", symlinks=True, with_pip=with_pip)
    if with_dependencies:
        (packages,) = folder.glob("venv/lib/python*/site-packages")
        # A folder named in a .pth file is searched, but the .pth files in it, such as that of an editable install, are not.
        (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    (folder / "empty").mkdir()
    return Environment(folder / "venv" / "bin", folder / "empty")


def make_wheel(folder: Path) -> Path:
    """Build a source distribution of a copy of the sources, and the wheel of that."""
    sources, out = folder / "copy", folder / "dist"
    ignored = shutil.ignore_patterns("__pycache__", "node_modules", ".*")
    for name in PARTS:
        shutil.copytree(ROOT / name, sources / name, ignore=ignored)
    for name in FILES:
        shutil.copy2(ROOT / name, sources / name)
    _hatch("sdist", sources, out)
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(out / "unpacked", filter="data")
    (unpacked,) = (out / "unpacked").iterdir()
    _hatch("wheel", unpacked, out)
    (built,) = out.glob("*.whl")
    return built


def _hatch(kind: str, sources: Path, out: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    got = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False, timeout=120)
    assert got.returncode == 0, got.stderr
