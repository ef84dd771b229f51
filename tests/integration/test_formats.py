"""Cubes of every version of the format: they open, verify, give their files back, and grow."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr
from making import BANDS, Made, Scene, make_patches

import cube
from cube.errors import RequestError
from cube.format.layout import FORMAT
from cube.format.target import target_of
from cube.jobs.diff import difference
from cube.read.opened import open_certified
from cube.verify.verification import verify_cube

FORMATS = Path(__file__).parents[1] / "formats"
MORE = (Scene("fall", 9, rows=2, columns=2), Scene("spring", 4, rows=1, columns=3))


@pytest.fixture(scope="module")
def making() -> ModuleType:
    spec = importlib.util.spec_from_file_location("formats", FORMATS / "make.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def first(making: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_patches(tmp_path_factory.mktemp("first") / "files", making.SCENES)


@pytest.fixture(params=sorted(path.stem for path in FORMATS.glob("*.zip")))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A format and a cube of it."""
    with zipfile.ZipFile(FORMATS / f"{request.param}.zip") as archive:
        archive.extractall(tmp_path)
    return request.param, tmp_path / "x.zarr"


def test_the_format_that_is_written_has_a_cube() -> None:
    assert (FORMATS / f"{FORMAT}.zip").exists()


def test_every_format_is_read_and_verified(old: tuple[str, Path], first: Made, tmp_path: Path) -> None:
    version, path = old
    assert json.loads((path / "zarr.json").read_bytes())["attributes"]["cube"]["format"] == version
    for opened in (cube.open_cube(str(path)), xr.open_zarr(path, chunks=None)):
        assert opened["patch"].values.tolist() == first.ids
        for name in BANDS:
            np.testing.assert_array_equal(opened[name].values, first.array(name))
    samples = cube.Samples(str(path))
    np.testing.assert_array_equal(samples.read([7, 0])["s2"], first.array("s2")[[7, 0]])
    report = verify_cube(target_of(str(path)), source=str(first.folder))
    assert report.findings == []
    assert cube.open_scene(str(path), season="spring", scene=1)["s2"].shape == (13, 48, 64)
    if version in ("1.0", "1.1"):
        with pytest.raises(RequestError, match=r"is of a format before 1\.2"):
            cube.export(str(path), tmp_path / "back")
        return
    cube.export(str(path), tmp_path / "back")
    back = {str(file.relative_to(tmp_path / "back")): file.read_bytes() for file in (tmp_path / "back").rglob("*.tif")}
    assert back == {str(file.relative_to(first.folder)): file.read_bytes() for file in first.files.values()}


def test_every_format_grows(old: tuple[str, Path], first: Made, making: ModuleType, tmp_path: Path) -> None:
    _, path = old
    (tmp_path / "tiny.yaml").write_text(making.RECIPE, encoding="utf-8")
    together = make_patches(tmp_path / "files", (*MORE, *making.SCENES))
    opened = xr.open_zarr(path, chunks=None)
    built = cube.build(tmp_path / "tiny.yaml", together.folder, path, grow=True)
    assert built.report.passed, built.report.findings
    assert (built.plan.known, built.plan.patches) == (8, 7)
    assert verify_cube(target_of(str(path)), source=str(together.folder)).findings == []
    now = cube.open_cube(str(path))
    assert now["patch"].values[: len(first.ids)].tolist() == first.ids
    assert cube.open_cube(str(path), version=1)["patch"].values.tolist() == opened["patch"].values.tolist() == first.ids
    np.testing.assert_array_equal(opened["s1"].values, first.array("s1"))
    for name in BANDS:
        np.testing.assert_array_equal(now[name].sel(patch=together.ids).values, together.array(name))
    once = cube.build(tmp_path / "tiny.yaml", together.folder, tmp_path / "once.zarr")
    assert not difference(open_certified(once.report.url), open_certified(str(path))).any
