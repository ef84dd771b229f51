"""Checksums as published: what differs is found before anything is built."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from making import Made, write_recipe

from cube.cli.main import main
from cube.errors import RequestError
from cube.source.sums import read_sums


def plan(made: Made, sums: Path, source: Path | None = None) -> Result:
    recipe = write_recipe(sums.parent / "tiny.yaml")
    return CliRunner().invoke(main, ["plan", str(recipe), "--source", str(source or made.folder), "--sums", str(sums)])


def files_of(made: Made) -> list[Path]:
    return sorted(path for path in made.folder.rglob("*.tif"))[:7]


@pytest.mark.parametrize("kind", ["md5", "sha256"])
@pytest.mark.parametrize("form", ["{sum}  {name}", "{sum} *./{path}", "{KIND} ({name}) = {sum}"])
def test_files_as_published_are_planned(made: Made, tmp_path: Path, kind: str, form: str) -> None:
    def line(path: Path) -> str:
        digest = hashlib.new(kind, path.read_bytes(), usedforsecurity=False).hexdigest()
        return form.format(sum=digest.upper(), name=path.name, path=path.relative_to(made.folder), KIND=kind.upper())

    (tmp_path / "sums").write_text("# published\n" + "\n".join(map(line, files_of(made))) + "\n\n")
    result = plan(made, tmp_path / "sums")
    assert result.exit_code == 0, result.output
    assert "7 files as published" in result.output


def test_what_differs_is_named_and_nothing_planned(made: Made, tmp_path: Path) -> None:
    wrong, right = files_of(made)[:2]
    lines = [f"{'0' * 32}  {wrong.name}", f"{hashlib.md5(right.read_bytes(), usedforsecurity=False).hexdigest()}  {right.name}"]
    (tmp_path / "sums").write_text("\n".join(lines))
    result = plan(made, tmp_path / "sums")
    assert result.exit_code == 2
    assert f"{wrong.relative_to(made.folder)}: not the bytes that were published" in result.output
    assert right.name not in result.output.partition("not the bytes")[0].rpartition("cube: ")[2]
    assert "Plan " not in result.output


def test_an_archive_alone_is_held_against_its_sum(made: Made, tmp_path: Path) -> None:
    (tmp_path / "some.zip").write_bytes(b"PK, but no archive")
    (tmp_path / "sums").write_text(f"{'1' * 32}  some.zip\n")
    result = plan(made, tmp_path / "sums", tmp_path / "some.zip")
    assert result.exit_code == 2
    assert "some.zip: not the bytes that were published: download again" in result.output


def test_a_list_of_other_files_is_told(made: Made, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text(f"{'1' * 32}  other.tif\n")
    result = plan(made, tmp_path / "sums")
    assert result.exit_code == 2
    assert "is among the 1 of the list of sums" in result.output


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "abc  x.tif", f"{'1' * 33}  x.tif", f"{'1' * 32}", f"{'g' * 32}  x.tif", "\xff"]
)
def test_what_is_no_list_of_sums_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "list").write_text(text, encoding="latin-1")
    with pytest.raises(RequestError, match=r"sum|cannot be read"):
        read_sums(str(tmp_path / "list"))
    with pytest.raises(RequestError, match=r"no-list: cannot be read: No such file"):
        read_sums(str(tmp_path / "no-list"))
