"""What differs between two cubes, by what they certify."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import rasterio
from click.testing import CliRunner, Result
from making import Built, Made, build, write_recipe

import cube
from cube.cli.main import main


def diff(first: str | Path, second: str | Path) -> Result:
    return CliRunner().invoke(main, ["diff", str(first), str(second), "--json"])


def test_equal_cubes_do_not_differ(tiny_cube: Built, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = build(write_recipe(tmp_path / "tiny.yaml", shard=8), made.folder, tmp_path / "x.zarr")
    read: list[str] = []
    store = type(tiny_cube.target.cube)
    plain = store.read_range
    monkeypatch.setattr(store, "read_range", lambda self, key, *rest: read.append(key) or plain(self, key, *rest))
    result = diff(tiny_cube.url, other.url)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["added"] == []
    assert read == []  # pixels are read by ranges
    assert CliRunner().invoke(main, ["diff", tiny_cube.url, other.url]).stdout == "nothing differs\n"


def test_what_differs_is_named(tiny_cube: Built, made: Made, tmp_path: Path) -> None:
    files = tmp_path / "files"
    shutil.copytree(made.folder, files)
    names = sorted(files.rglob("*_s2_*.tif"))
    ids = [name.stem.replace("_s2_", "_") for name in names]
    with rasterio.open(names[0], "r+") as image:
        pixels = image.read()
        pixels[3, 5, 7] ^= 1
        image.write(pixels)
    names[1].unlink()
    for kind in ("s1", "s2", "lc"):
        scene, _, number = ids[2].rpartition("_p")
        season, _, place = scene.rpartition("_")
        next(files.rglob(f"{season}_{kind}_{place}_p{number}.tif")).unlink()
    other = build(write_recipe(tmp_path / "tiny.yaml"), files, tmp_path / "x.zarr", incomplete="keep")
    result = diff(tiny_cube.url, other.url)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["removed"] == [ids[2]]
    assert told["added"] == []
    assert told["changed"] == {"s2": [ids[0], ids[1]]}
    assert told["labels"] == {}
    back = json.loads(diff(other.url, tiny_cube.url).stdout)
    assert (back["added"], back["removed"], back["changed"]) == (told["removed"], told["added"], told["changed"])
    text = CliRunner().invoke(main, ["diff", tiny_cube.url, other.url]).stdout
    assert f"only in A: 1 patch ({ids[2]})" in text
    assert f"s2 differs: 2 patches ({ids[0]}, {ids[1]})" in text


def test_labels_and_modalities_that_differ_are_named(tiny_cube: Built, made: Made, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", more="splits: {otherwise: learn}\n")
    cube.build(recipe, made.folder, tmp_path / "x.zarr", modalities=["s1", "s2"])
    told = json.loads(diff(tiny_cube.url, tmp_path / "x.zarr").stdout)
    assert told["modalities"] == {"removed": ["lc"], "added": []}
    assert told["changed"] == {}
    splits = cube.open_cube(tiny_cube.url).split
    assert told["labels"] == {"split": splits.patch.values[splits.values == "train"].tolist()}


def test_cubes_of_other_tiles_cannot_be_compared(tiny_cube: Built, made: Made, tmp_path: Path) -> None:
    other = build(write_recipe(tmp_path / "tiny.yaml", tile=8), made.folder, tmp_path / "x.zarr")
    result = diff(tiny_cube.url, other.url)
    assert result.exit_code == 2
    assert "cannot be compared by what they certify" in result.output


def test_what_could_not_be_compared_does_not_count_as_different(tiny_cube: Built, tmp_path: Path) -> None:
    none = diff(tiny_cube.url, tmp_path / "none.zarr")
    assert none.exit_code == 2
    assert "there is no cube" in none.output
    shutil.copytree(tiny_cube.url, tmp_path / "x.zarr")
    chunk = tmp_path / "x.zarr" / "digest" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    assert diff(tiny_cube.url, tmp_path / "x.zarr").exit_code == 2


def test_a_cube_and_its_files_do_not_differ(
    tiny_cube: Built, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml")
    result = CliRunner().invoke(
        main, ["build", str(recipe), "--source", str(made.folder), "--to", str(tmp_path / "x.zarr"), "--workers", "0"]
    )
    assert result.exit_code == 0
    read: list[str] = []
    store = type(tiny_cube.target.cube)
    plain = store.read
    monkeypatch.setattr(store, "read", lambda self, key: read.append(key) or plain(self, key))
    told = CliRunner().invoke(main, ["diff", str(tmp_path / "x.zarr"), str(made.folder), "--recipe", str(recipe)])
    assert (told.exit_code, told.stdout) == (0, "nothing differs\n")
    assert not [key for key in read if key.endswith(".tif")]
    same = CliRunner().invoke(main, ["diff", str(tmp_path / "x.zarr"), str(made.folder)])  # recognised by the names
    assert same.exit_code == 0, same.output


def test_what_is_new_among_the_files_is_named(made: Made, tmp_path: Path) -> None:
    recipe, files, to = write_recipe(tmp_path / "tiny.yaml"), tmp_path / "files", tmp_path / "x.zarr"
    shutil.copytree(made.folder, files)
    chosen = ["build", str(recipe), "--source", str(files), "--to", str(to), "--workers", "0", "--where", "not season=summer"]
    assert CliRunner().invoke(main, chosen).exit_code == 0
    summer = [name for name in made.ids if "summer" in name]
    kept = [name for name in made.ids if "summer" not in name]
    names = {name.stem.replace("_s2_", "_"): name for name in files.rglob("*_s2_*.tif")}
    with names[kept[0]].open("ab") as file:
        file.write(b"more")
    names[kept[1]].unlink()
    for path in files.rglob(names[kept[2]].name.replace("_s2_", "_*_")):
        path.unlink()
    result = CliRunner().invoke(main, ["diff", str(to), str(files), "--json"])
    assert result.exit_code == 1, result.output
    told = json.loads(result.stdout)
    assert told["added"] == summer
    assert told["removed"] == [kept[2]]
    assert told["changed"] == {"s2": [kept[0], kept[1]]}
    shutil.rmtree(tmp_path / "x.build")
    again = json.loads(CliRunner().invoke(main, ["diff", str(to), str(files), "--json"]).stdout)
    assert again["changed"] == {"s2": [kept[1]]}  # nobody knows what sizes the files had


def test_files_that_cannot_be_compared_are_told(tiny_cube: Built, made: Made, tmp_path: Path) -> None:
    for other, more, said in (
        (tmp_path / "none", [], "no such"),
        (tmp_path / "none.zarr", [], "there is no cube"),
        (tmp_path, [], "fit no bundled recipe: say which"),
        (made.folder, ["--recipe", "eurosat"], "no modality"),
    ):
        result = CliRunner().invoke(main, ["diff", tiny_cube.url, str(other), *more])
        assert result.exit_code == 2, result.output
        assert said in result.output, result.output
