"""Whatever stands in place of a document beside or in a cube: commands and readers end in an error that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from click.testing import CliRunner
from making import Scene, make_patches, write_recipe

from cube import Samples, open_cube, open_scene
from cube.cli.main import main
from cube.errors import CubeError
from cube.format.documents import parse_object

GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
    "null": b"null",
    "a list": b"[]",
    "a number": b"12",
    "a long number": b'{"plan": ' + b"9" * 5000 + b"}",
    "an empty object": b"{}",
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"attributes":' * 20_000 + b"1" + b"}" * 20_000,
    "objects that are lists": b'{"attributes": [], "recipe": [], "objects": [], "plan": [], "passed": [], "type": []}',
    "texts for objects": b'{"attributes": {"cube": "x"}, "recipe": "x", "objects": "x", "type": "Catalog", "links": "x"}',
    "numbers for texts": b'{"attributes": {"cube": {"format": 1.2}}, "recipe": {"name": 1}, "tasks": "x", "digest": 3}',
    "a list of counts": b'{"type": "Collection", "patchcube:rejected": [1], "patchcube:recipe": ["tiny"], "assets": []}',
}
SHORT = ("nested lists", "objects that are lists")
"""Those that are tried in each run; the others take their time."""
FILES = (
    "x.zarr/zarr.json",
    "x.zarr/s1/zarr.json",
    "x.build/plan.json",
    "x.build/report.json",
    "x.build/build.json",
    "x.build/receipts/*.json",
    "x.build/claims/*.json",
    "x.stac/catalog.json",
    "x.stac/collection.json",
    "x.stac/items/*.json",
)
READERS: dict[str, Callable[[str], Any]] = {
    "open_cube": open_cube,
    "engine": lambda url: xr.open_dataset(url, engine="cube"),
    "Samples": Samples,
    "open_scene": lambda url: open_scene(url, season="spring", scene=7),
    "by its catalog": lambda url: open_cube(url.replace(".zarr", ".stac/collection.json")),
    "by a class": lambda url: open_cube(url, where="class:Urban>0"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    made = make_patches(folder / "files", [Scene("spring", 7, rows=1, columns=3)])
    words = ["--source", str(made.folder), "--to", str(folder / "x.zarr"), "--workers", "0", "--sample", "0"]
    result = CliRunner().invoke(main, ["build", str(write_recipe(folder / "tiny.yaml")), *words])
    assert result.exit_code == 0, result.output
    return folder


def commands(folder: Path) -> list[list[str]]:
    url, workers = str(folder / "x.zarr"), ["--workers", "0"]
    return [
        ["info", url],
        ["search", url, "--where", "scene=7"],
        ["verify", url, *workers],
        ["verify", url, "--catalog", *workers],
        ["copy", url, str(folder / "whole.zarr"), *workers],
        ["copy", url, str(folder / "part.zarr"), "--where", "number>30", *workers],
        ["clean", url],
        ["build", str(folder / "tiny.yaml"), "--source", str(folder / "files"), "--to", url, "--sample", "0", *workers],
    ]


@pytest.mark.parametrize(
    "garbage", [name if name in SHORT else pytest.param(name, marks=pytest.mark.judges) for name in GARBAGE]
)
@pytest.mark.parametrize("pattern", FILES)
def test_no_document_ends_in_a_traceback(whole: Path, tmp_path: Path, pattern: str, garbage: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    found = sorted(folder.glob(pattern))
    assert found
    for words in commands(folder):
        for path in found:
            path.write_bytes(GARBAGE[garbage])
        result = CliRunner().invoke(main, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exc_info)
        assert result.exit_code in (0, 1, 2), (words, result.output)
    for path in found:
        path.write_bytes(GARBAGE[garbage])
    for read in READERS.values():
        try:
            read(str(folder / "x.zarr"))
        except (CubeError, OSError):
            continue


@pytest.mark.parametrize("name", [name for name in GARBAGE if name not in ("an empty object",) and "for" not in name])
def test_what_is_no_object_is_refused(name: str) -> None:
    data = GARBAGE[name]
    if name in ("objects that are lists", "a list of counts"):
        assert parse_object(data) == json.loads(data)
        return
    with pytest.raises(ValueError, match=r"bytes|levels|JSON|Expecting|decode|digits"):
        parse_object(data)
