"""``cube recipes``: drafts from files, what a recipe makes of files, and the schema by which editors know recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import xarray as xr
import yaml
from click.testing import CliRunner, Result
from making import Made
from PIL import Image

import cube
from cube.cli.main import main
from cube.recipes.bundled import folder, recipe_names
from cube.recipes.recipe import read_recipe

SEED = 1970


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def write(path: Path, bands: int, rng: np.random.Generator) -> np.ndarray:
    """Write a PNG of noise and return its pixels (y, x, band)."""
    pixels = rng.integers(0, 256, (32, 32, bands), "uint8")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if bands == 1 else pixels).save(path)
    return pixels


def pairs(root: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Images and masks of equal names, in folders for training and validation."""
    return {
        f"{split}/{kind}/tile-{number}.png": write(root / split / kind / f"tile-{number}.png", bands, rng)
        for split, count in (("train", 5), ("val", 2))
        for number in range(count)
        for kind, bands in (("images", 3), ("masks", 1))
    }


def classes(root: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Classes as folders."""
    return {
        f"{kind}/{kind}_{number}.png": write(root / kind / f"{kind}_{number}.png", 3, rng)
        for kind in ("Forest", "River", "SeaLake")
        for number in range(1, 13)
    }


def dated(root: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Several days of each place, two sensors, all in one folder."""
    return {
        f"{sensor}_{place}_{day}.png": write(root / f"{sensor}_{place}_{day}.png", bands, rng)
        for place in ("oak", "elm", "ash")
        for day in ("20200131", "20200215")
        for sensor, bands in (("radar", 1), ("optical", 3))
    }


def test_bands_in_files_of_two_sizes_are_drafted(tmp_path: Path) -> None:
    rng, pixels = np.random.default_rng(SEED), {}
    for number in range(3):
        for band, side in (("B02", 32), ("B8A", 16), ("B03", 32)):
            path = f"field{number}/field{number}_{band}.png"
            pixels[path] = rng.integers(0, 256, (side, side), "uint8")
            (tmp_path / "files" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[path]).save(tmp_path / "files" / path)
    assert run("recipes", "new", "--source", tmp_path / "files", "--to", tmp_path / "mine.yaml").exit_code == 0
    recipe = read_recipe(str(tmp_path / "mine.yaml"))
    assert {name: [band.name for band in of.bands] for name, of in recipe.modalities.items()} == {
        "image_32": ["B02", "B03"],
        "image_16": ["B8A"],
    }
    assert run("recipes", "check", tmp_path / "mine.yaml", "--source", tmp_path / "files").exit_code == 0
    cube.build(tmp_path / "mine.yaml", tmp_path / "files", tmp_path / "x.zarr")
    opened = cube.open_cube(tmp_path / "x.zarr")
    np.testing.assert_array_equal(opened.image_32[1, 1], pixels["field1/field1_B03.png"])
    np.testing.assert_array_equal(opened.image_16[2, 0], pixels["field2/field2_B8A.png"])


@pytest.mark.parametrize(
    ("make", "labels", "modalities"),
    [
        (pairs, {"split": "class"}, {"images": 3, "masks": 1}),
        (classes, {"folder1": "class"}, {"image": 3}),
        (dated, {"part2": "class", "day": "date"}, {"radar": 1, "optical": 3}),
    ],
)
def test_a_draft_builds_as_it_is(
    tmp_path: Path, make: Callable[..., dict[str, np.ndarray]], labels: dict[str, str], modalities: dict[str, int]
) -> None:
    pixels = make(tmp_path / "files", np.random.default_rng(SEED))
    assert run("recipes", "new", "--source", tmp_path / "files", "--to", tmp_path / "mine.yaml").exit_code == 0
    recipe = read_recipe(str(tmp_path / "mine.yaml"))
    assert {name: label.type for name, label in recipe.labels.items()} == labels
    assert {name: len(modality.bands) for name, modality in recipe.modalities.items()} == modalities
    assert "# edit" in (tmp_path / "mine.yaml").read_text()
    checked = run("recipes", "check", tmp_path / "mine.yaml", "--source", tmp_path / "files", "--json")
    assert checked.exit_code == 0, checked.output
    document = json.loads(checked.output)
    assert sum(document["files"].values()) == len(pixels)
    assert [example["trouble"] for example in document["examples"]] == [""] * min(10, len(pixels))
    cube.build(tmp_path / "mine.yaml", tmp_path / "files", tmp_path / "x.zarr")
    opened = xr.open_zarr(tmp_path / "x.zarr", chunks=None)
    paths = xr.open_zarr(tmp_path / "x.zarr", group="originals", chunks=None)["path"].to_numpy()
    assert opened.sizes["patch"] * len(modalities) == len(pixels)
    for patch in range(opened.sizes["patch"]):
        for place, name in enumerate(modalities if list(modalities) == list(recipe.modalities) else recipe.modalities):
            path = bytes(paths[patch, place]).rstrip(b"\0").decode()
            np.testing.assert_array_equal(opened[name][patch].to_numpy().transpose(1, 2, 0), pixels[path])


def test_the_files_of_the_first_data_set_are_understood(made: Made) -> None:
    result = run("recipes", "new", "--source", made.folder)
    assert result.exit_code == 0
    drafted = yaml.safe_load(result.output)
    assert drafted["modalities"].keys() == {"s1", "s2", "lc"}
    assert {"scene", "patch"} <= set(drafted["patch"]["id"].replace("{", " ").replace("}", " ").replace("_", " ").split())
    assert drafted["source"]["georeference"] == "file"


def test_what_cannot_be_drafted_is_told(tmp_path: Path) -> None:
    result = run("recipes", "new", "--source", tmp_path)
    assert (result.exit_code, "no file ends in .tif, .tiff, .png, .jpg, .jpeg" in result.output) == (2, True)
    write(tmp_path / "a.png", 3, np.random.default_rng(SEED))
    assert "no two of its 1 images are named alike" in run("recipes", "new", "--source", tmp_path).output
    write(tmp_path / "b.png", 3, np.random.default_rng(SEED))
    (tmp_path / "a.png").write_bytes(b"no image")
    assert "a.png: unknown format" in run("recipes", "new", "--source", tmp_path).output
    (tmp_path / "mine.yaml").write_text("mine")
    write(tmp_path / "a.png", 3, np.random.default_rng(SEED))
    refused = run("recipes", "new", "--source", tmp_path, "--to", tmp_path / "mine.yaml")
    assert (refused.exit_code, "is there already" in refused.output) == (2, True)
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_a_check_names_what_is_wrong(made: Made, tmp_path: Path) -> None:
    wrong = run("recipes", "check", "sen12ms", "--source", made.folder, "--count", "3")  # its patches are larger
    assert wrong.exit_code == 1
    assert "s1           " in wrong.output
    assert wrong.output.count("rejected: wrong size: ") == 3
    (tmp_path / "odd\x1b[31m.tif").write_bytes(b"")
    none = run("recipes", "check", "sen12ms", "--source", tmp_path)
    assert none.exit_code == 1
    assert "fits nothing: odd\\x1b[31m.tif" in none.output


def test_recipes_are_listed_and_printed_as_before() -> None:
    assert run("recipes").output.splitlines()[0].startswith("38-cloud ")
    assert json.loads(run("recipes", "--json").output)["sen12ms"] == "SEN12MS"
    assert run("recipes", "sen12ms").output.startswith("# SEN12MS")
    for words in (["sen12ms", "--json"], ["--json", "sen12ms"]):
        assert json.loads(run("recipes", *words).output)["name"] == "sen12ms"
    mistake = run("recipes", "sen12m")
    assert (mistake.exit_code, "did you mean 'sen12ms'" in mistake.output) == (2, True)


def test_the_schema_knows_every_bundled_recipe_and_refuses_mistakes() -> None:
    schema: dict[str, Any] = json.loads(run("recipes", "schema").output)
    judge = jsonschema.Draft202012Validator(schema)
    for name in recipe_names():
        judge.validate(json.loads(run("recipes", name, "--json").output))
    whole = json.loads(run("recipes", "sen12ms", "--json").output)
    for change in ({"modalties": {}}, {"format": 3}, {"patch": {"id": "x", "id_length": 1, "size": 256}}):
        assert not judge.is_valid({**whole, **change})
    written = yaml.safe_load((folder("recipes") / "sen1-2-terrain.yaml").read_text())
    judge.validate(written)
