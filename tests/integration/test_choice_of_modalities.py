"""Some modalities alone, and sources of which nothing can be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner, Result
from making import Made, Scene, make_patches, write_recipe

from cube.cli.main import main

SCENE = Scene("spring", 7, rows=2, columns=4, first=30)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_patches(tmp_path / "files", [SCENE])


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    return str(write_recipe(tmp_path / "tiny.yaml", shard=4))


def cube(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def build(recipe: str, made: Made, to: Path, *more: str) -> Result:
    return cube("build", recipe, "--source", made.folder, "--to", to, "--workers", 0, "--sample", 0, "--json", *more)


@pytest.mark.parametrize(("named", "kept"), [("s1", ["s1"]), ("lc,s1", ["s1", "lc"]), ("s2", ["s2"])])
def test_only_some_modalities_are_converted(tmp_path: Path, recipe: str, made: Made, named: str, kept: list[str]) -> None:
    to = tmp_path / "a.zarr"
    result = build(recipe, made, to, "--modalities", named)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rejected"] == []
    opened = xr.open_zarr(to, chunks=None)
    assert list(opened.data_vars) == kept
    assert opened["modality"].values.tolist() == kept
    for name in kept:
        np.testing.assert_array_equal(opened[name].values, made.array(name))
    checked = cube("verify", to, "--source", made.folder, "--catalog", "--workers", 0, "--json")
    assert checked.exit_code == 0, checked.output


def test_only_one_modality_on_disk(tmp_path: Path, recipe: str, made: Made) -> None:
    for name in ("s2", "lc"):
        for path in made.folder.rglob(f"*_{name}_*.tif"):
            path.unlink()
    assert build(recipe, made, tmp_path / "a.zarr", "--modalities", "s1").exit_code == 0


def test_another_choice_is_another_plan(tmp_path: Path, recipe: str, made: Made) -> None:
    plans = [cube("plan", recipe, "--source", made.folder, "--json", *more).stdout for more in ((), ("--modalities", "s1"))]
    digests = [json.loads(plan)["plan"]["digest"] for plan in plans]
    assert digests[0] != digests[1]
    same = cube("plan", recipe, "--source", made.folder, "--json", "--modalities", "lc, s2,s1").stdout
    assert json.loads(same)["plan"]["digest"] == digests[0]


@pytest.mark.parametrize(
    ("named", "message"), [("s9", "has no modality 's9'; did you mean 's2'?"), (" ,", "no modality is named")]
)
def test_what_is_no_modality_is_named(recipe: str, made: Made, named: str, message: str) -> None:
    result = cube("plan", recipe, "--source", made.folder, "--modalities", named)
    assert (result.exit_code, message in result.stderr) == (2, True)


def test_a_source_of_which_nothing_can_be_used_makes_no_cube(tmp_path: Path, recipe: str, made: Made) -> None:
    for path in made.folder.rglob("*.tif"):
        with rasterio.open(path) as image:
            profile, pixels = image.profile, image.read()
        with rasterio.open(path, "w", **{**profile, "dtype": "float64"}) as image:
            image.write(pixels.astype("float64"))
    to = tmp_path / "a.zarr"
    for more in ((), ("--incomplete", "keep", "--replace")):
        result = build(recipe, made, to, *more)
        assert result.exit_code == 1
        assert "nothing could be converted: no image was kept and " in result.stderr
        assert "wrong dtype), such as ROIs1158_spring/" in result.stderr
        assert not (to / "zarr.json").exists()


def test_bad_files_among_good_ones_are_rejections(tmp_path: Path, recipe: str, made: Made) -> None:
    bad = [path for path in made.folder.rglob("*.tif") if "_p30." in path.name or "_p31." in path.name]
    for path in bad:
        path.write_bytes(b"II*\0" + path.read_bytes()[4:200])
    result = build(recipe, made, tmp_path / "a.zarr")
    assert result.exit_code == 3, result.stderr
    files = [item for item in json.loads(result.stdout)["rejected"] if item[0].endswith(".tif")]
    assert len(files) == len(bad) == 6
