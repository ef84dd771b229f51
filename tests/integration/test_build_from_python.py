"""``cube.build`` does what the command does, and holds its target once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from making import Made

import cube
from cube.cli.main import main
from cube.errors import RecipeError, RequestError, TargetError
from cube.records import presence


def contents(folder: Path) -> dict[str, bytes]:
    trees = (folder / "x.zarr", folder / "x.stac")
    return {str(path.relative_to(folder)): path.read_bytes() for tree in trees for path in tree.rglob("*") if path.is_file()}


def test_it_makes_the_same_bytes_as_the_command(made: Made, tiny_recipe: Path, tmp_path: Path) -> None:
    built = cube.build(tiny_recipe, made.folder, tmp_path / "a" / "x.zarr", where="season=spring", limit=9)
    assert built.report.passed
    assert built.rejected == []
    words = ["--source", str(made.folder), "--where", "season=spring", "--limit", "9", "--workers", "0", "--sample", "0"]
    result = CliRunner().invoke(main, ["build", str(tiny_recipe), "--to", str(tmp_path / "b" / "x.zarr"), *words])
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    again = cube.build(tiny_recipe, made.folder, tmp_path / "a" / "x.zarr", where="season=spring", limit=9)
    assert again.written.resumed == len(again.written.receipts)


def test_some_modalities_alone(made: Made, tiny_recipe: Path, tmp_path: Path) -> None:
    cube.build(tiny_recipe, made.folder, tmp_path / "x.zarr", modalities="s1, lc", incomplete="fail")
    with cube.open_cube(tmp_path / "x.zarr") as opened:
        assert list(opened.data_vars) == ["s1", "lc"]


def test_the_target_is_held_once(made: Made, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[str] = []
    beat = presence._beat
    monkeypatch.setattr(presence, "_beat", lambda build, key, *rest: beats.append(key) or beat(build, key, *rest))
    cube.build(tiny_recipe, made.folder, tmp_path / "x.zarr", limit=2)
    assert len(beats) == 1
    assert {path.name for path in (tmp_path / "x.build/claims").iterdir()} == {"000001.json", "000002.json"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"incomplete": "kepp"}, "incomplete is 'kepp': expected fail, reject, keep"),
        ({"limit": 0}, "limit is 0: expected a whole number, 1 or more"),
        ({"limit": 2.5}, "limit is 2.5: expected"),
        ({"tolerance": 0.01}, "tolerance is 0.01: expected"),
        ({"client": "tcp://127.0.0.1:8786"}, "client is .* expected a distributed.Client"),
        ({"modalities": "s1,sar"}, "has no modality 'sar'"),
        ({"profile": "fasst"}, "did you mean 'fast'"),
        ({"where": "seasn=spring"}, "did you mean 'season'"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(
    made: Made, tiny_recipe: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        cube.build(tiny_recipe, made.folder, tmp_path / "out" / "x.zarr", **options)
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_said(made: Made, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="sen12ms"):
        cube.build("sen12", made.folder, tmp_path / "x.zarr")
    with pytest.raises(TargetError, match="lies inside the source"):
        cube.build("sen12ms", made.folder, made.folder / "x.zarr")
    with pytest.raises(TargetError, match=r"ends in \.zarr"):
        cube.build("sen12ms", made.folder, tmp_path / "x")
