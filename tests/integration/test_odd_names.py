"""Names of files may be any bytes: they are told without moving a terminal's cursor, and never stop a build."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from making import Scene, make_patches, write_recipe


def cube(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "cube", *map(str, words)], capture_output=True, timeout=120, check=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = make_patches(tmp_path / "files", [Scene("spring", 7, rows=1, columns=3)])
    (folder,) = made.folder.glob("*/s2_7")
    (folder / "red\x1b[31m.tif").write_bytes(b"x")
    (folder / "two\nlines.tif").write_bytes(b"x")
    (folder / "wide\u202etxt.tif").write_bytes(b"x")
    Path(os.fsdecode(bytes(folder) + b"/latin\xe9.tif")).write_bytes(b"x")
    other = Path(os.fsdecode(bytes(made.folder) + b"/dir\xff"))
    other.mkdir()
    for modality in ("s1", "s2", "lc"):
        (path,) = made.folder.rglob(f"*_{modality}_7_p32.tif")
        path.rename(other / path.name)
    return made.folder


def test_a_build_names_them_and_goes_on(source: Path, tmp_path: Path) -> None:
    recipe, to = write_recipe(tmp_path / "tiny.yaml"), tmp_path / "x.zarr"
    planned = cube("plan", recipe, "--source", source)
    assert planned.returncode == 0, planned.stderr
    built = cube("build", recipe, "--source", source, "--to", to, "--workers", "0", "--json")
    assert built.returncode == 3, built.stderr
    for output in (planned.stdout, planned.stderr, built.stdout):
        text = output.decode()
        assert [sign for sign in text if not sign.isprintable() and sign != "\n"] == []
    text = planned.stdout.decode()
    for shown in (r"red\x1b[31m.tif", r"two\nlines.tif", r"wide\u202etxt.tif", r"latin\udce9.tif"):
        assert f"{shown}: wrong name" in text
    assert "7 rejected (7 wrong name)" in text
    assert r"dir\\udcff/ROIs1158_spring_lc_7_p32.tif" in built.stdout.decode()
    assert cube("verify", to, "--source", source, "--workers", "0").returncode == 0


def test_an_error_that_names_one(tmp_path: Path) -> None:
    told = cube("plan", tmp_path / "no\x1b[2Jrecipe.yaml", "--source", tmp_path)
    assert told.returncode == 2
    assert b"\x1b" not in told.stderr
    assert rb"no\x1b[2Jrecipe" in told.stderr
