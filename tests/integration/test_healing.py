"""A build whose objects were damaged after they were written mends itself when it is run again, from the same files only."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from making import make_patches, write_recipe

from cube.cli.main import main
from cube.convert import writer


def run_build(folder: Path, source: str = "patches") -> Result:
    arguments = ["build", str(folder / "tiny.yaml"), "--source", str(folder / source), "--workers", "0", "--sample", "0"]
    return CliRunner().invoke(main, [*arguments, "--to", str(folder / "x.zarr")], catch_exceptions=False)


def objects(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def change(path: Path, place: int) -> None:
    """Change one letter for another one."""
    data = bytearray(path.read_bytes())
    data[place] = ord("x") if data[place] != ord("x") else ord("y")
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with files and a recipe: two batches."""
    make_patches(tmp_path / "patches")
    write_recipe(tmp_path / "tiny.yaml")
    return tmp_path


def test_a_shard_lost_between_receipt_and_root_is_named_and_written_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = folder / "x.zarr/s2/c/1/0/0/0"

    def damage(*arguments: Any) -> None:
        shard.write_bytes(bytes(shard.stat().st_size))  # what a power cut leaves: the size is right, the content is gone
        publish(*arguments)

    publish = writer.publish_root
    with monkeypatch.context() as patch:
        patch.setattr(writer, "publish_root", damage)
        first = run_build(folder)
    assert first.exit_code == 1
    assert "s2/c/1/0/0/0" in first.output
    assert not (folder / "x.stac").exists()
    second = run_build(folder)
    assert second.exit_code == 0, second.output
    assert "1 of 2 batches stood" in second.output
    assert (folder / "x.stac/collection.json").exists()


def change_after(words: bytes) -> Callable[[Path], None]:
    """Return what changes the letter that follows some words of a file."""

    def damage(path: Path) -> None:
        change(path, path.read_bytes().index(words) + len(words))

    return damage


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a label chunk is gone": ("season/c/0", Path.unlink),
    "a label chunk is empty": ("present/c/0/0", lambda path: path.write_bytes(b"")),
    "a metadata document is changed": ("s1/zarr.json", change_after(b'"node_type": "')),
    "a metadata document is gone": ("originals/zarr.json", Path.unlink),
    "a letter of the title in the root": ("zarr.json", change_after(b'"title": "')),
    "a digit of a certified hash in the root": ("zarr.json", change_after(b'"pixels": "')),
    "a digit of the plan in the root": ("zarr.json", change_after(b'"plan": "')),
    "the first brace of the root": ("zarr.json", lambda path: change(path, 0)),
    "the root is no UTF-8": ("zarr.json", lambda path: path.write_bytes(b"\xff" + path.read_bytes()[1:])),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_to_a_complete_cube_is_found_and_mended(folder: Path, what: str) -> None:
    key, damage = DAMAGE[what]
    assert run_build(folder).exit_code == 0
    sound, catalog = objects(folder / "x.zarr"), objects(folder / "x.stac")
    assert "collection.json" in catalog
    damage(folder / "x.zarr" / key)
    assert objects(folder / "x.zarr") != sound
    found = run_build(folder)
    assert found.exit_code == 1, found.output
    assert key in found.output
    assert "Catalog: " not in found.output
    assert not (folder / "x.stac/collection.json").exists()
    mended = run_build(folder)
    assert mended.exit_code == 0, mended.output
    assert "2 of 2 batches stood" in mended.output
    assert objects(folder / "x.zarr") == sound
    assert objects(folder / "x.stac") == catalog


def test_a_damaged_shard_of_a_complete_cube_is_found_and_mended(folder: Path) -> None:
    assert run_build(folder).exit_code == 0
    sound = objects(folder / "x.zarr")
    change(folder / "x.zarr/s2/c/0/0/0/0", 1000)
    found = run_build(folder)
    assert found.exit_code == 1, found.output
    assert not (folder / "x.stac/collection.json").exists()
    mended = run_build(folder)
    assert mended.exit_code == 0, mended.output
    assert "1 of 2 batches stood" in mended.output
    assert objects(folder / "x.zarr") == sound


def test_a_root_that_is_not_sealed_is_no_leave_to_write_over_another_plan(folder: Path) -> None:
    """The records beside a damaged root say whose it is."""
    assert run_build(folder).exit_code == 0
    change_after(b'"title": "')(folder / "x.zarr/zarr.json")
    before = objects(folder / "x.zarr")
    (folder / "patches/ROIs1158_spring/lc_1/ROIs1158_spring_lc_1_p30.tif").unlink()
    write_recipe(folder / "tiny.yaml", more="source: {incomplete: keep}\n")
    refused = run_build(folder)
    assert refused.exit_code == 2, refused.output
    assert "holds another cube" in refused.output
    assert objects(folder / "x.zarr") == before


# Other files of equal names and sizes


def other_files(folder: Path, *scenes: str) -> None:
    """Copy the files to ``others``; give those of some scenes another last byte, which is a pixel's, and all of them a time."""
    shutil.copytree(folder / "patches", folder / "others")
    for scene in scenes:
        for path in (folder / "others").glob(f"{scene}/*.tif"):
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)


def unfinished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build until every batch is written, but no root."""

    class Killed(BaseException):
        pass

    def die(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(writer, "publish_root", die)
        with pytest.raises(Killed):
            run_build(folder)
    assert len(list((folder / "x.build/receipts").iterdir())) == 2
    assert not (folder / "x.zarr/zarr.json").exists()


def built_from_scratch(folder: Path) -> dict[str, bytes]:
    """Return the cube of the other files, built where nothing was."""
    fresh = folder / "fresh"
    fresh.mkdir()
    shutil.copyfile(folder / "tiny.yaml", fresh / "tiny.yaml")
    assert run_build(fresh, "../others").exit_code == 0
    return objects(fresh / "x.zarr")


def test_an_unfinished_build_goes_on_with_the_same_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished(folder, monkeypatch)
    result = run_build(folder)
    assert result.exit_code == 0, result.output
    assert "2 of 2 batches stood" in result.output


def test_an_unfinished_build_writes_batches_of_other_files_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_files(folder, "ROIs1868_summer/s2_1")  # the last scene: only in the second batch
    unfinished(folder, monkeypatch)
    result = run_build(folder, "others")
    assert result.exit_code == 0, result.output
    assert "1 of 2 batches stood" in result.output
    assert objects(folder / "x.zarr") == built_from_scratch(folder)
    checked = CliRunner().invoke(main, ["verify", str(folder / "x.zarr"), "--source", str(folder / "others"), "--workers", "0"])
    assert checked.exit_code == 0, checked.output


def test_an_unfinished_build_trusts_no_file_that_was_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder / "patches", folder / "others", copy_function=shutil.copyfile)
    unfinished(folder, monkeypatch)
    result = run_build(folder, "others")
    assert result.exit_code == 0, result.output
    assert "batches stood" not in result.output
    assert objects(folder / "x.zarr") == built_from_scratch(folder)


def test_a_complete_cube_of_other_files_is_refused(folder: Path) -> None:
    other_files(folder, "ROIs1868_summer/s2_1")
    assert run_build(folder).exit_code == 0
    cube, catalog = objects(folder / "x.zarr"), objects(folder / "x.stac")
    refused = run_build(folder, "others")
    assert refused.exit_code == 2, refused.output
    assert "was built from other files than these" in refused.output
    assert "choose another --to" in refused.output
    assert objects(folder / "x.zarr") == cube
    assert objects(folder / "x.stac") == catalog
    again = run_build(folder)
    assert again.exit_code == 0, again.output
    assert "2 of 2 batches stood" in again.output
