"""Fixtures every test may use."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from making import LEFT_OUT, Built, Made, build, leave_out, make_patches, survey, write_recipe

from cube.format.target import Target, target_of


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of inputs that are no part of the project, beside the repository or where ``CUBE_SHARED`` says."""
    path = Path(os.environ.get("CUBE_SHARED") or Path(__file__).parents[2] / "shared")
    if not (path / "data").is_dir():
        leave_out("tests on real files: no folder `shared` beside the repository; CUBE_SHARED names another place")
    return path


@pytest.fixture(scope="session")
def stac_schemas() -> Path:
    """Folder of published STAC schemas, laid out as host/path; they are no part of the project."""
    path = Path(os.environ.get("CUBE_SHARED") or Path(__file__).parents[2] / "shared") / "stac-schemas"
    if not path.is_dir():
        leave_out("tests on STAC schemas: no folder `shared/stac-schemas` beside the repository; CUBE_SHARED names another")
    return path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that ``cube demo`` makes, by the real command, once for all test processes. Read only."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "the-demo"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            command = [sys.executable, "-m", "cube", "demo"]
            got = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert got.returncode == 0, got.stderr
            assert got.stdout.count("demo.zarr is sound:") == 2
            (folder / "done").touch()
    return folder / "cube-demo"


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """Recipe for the files of ``make_patches``: 32-px patches, 16-px tiles, 16 patches a shard."""
    return write_recipe(tmp_path / "tiny.yaml")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """25 patches of three scenes with gaps, made once. Read only: a test that changes files makes its own."""
    return make_patches(tmp_path_factory.mktemp("made") / "patches")


@pytest.fixture(scope="session")
def tiny_cube(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Cube of ``made``, built once: two shards per modality, the last cut short. Read only."""
    folder = tmp_path_factory.mktemp("tiny")
    return build(write_recipe(folder / "tiny.yaml"), made.folder, folder / "tiny.zarr")


@pytest.fixture(scope="session")
def tiny_published(tiny_cube: Built, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """A copy of ``tiny_cube`` with its catalog beside it. Read only."""
    from cube.catalog.describe import describe
    from cube.catalog.publish import publish

    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(tiny_cube.url, folder / "tiny.zarr")
    built = replace(tiny_cube, url=str(folder / "tiny.zarr"), target=target_of(str(folder / "tiny.zarr")))
    report, found = survey(built)
    publish(describe(built.target, built.plan.recipe, report, found), built.target, report)
    built.target.build.write("plan.json", json.dumps(built.plan.document()).encode())
    return built.target


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason in sorted(LEFT_OUT):
        terminalreporter.write_line(f"LEFT OUT: {reason}", yellow=True)
