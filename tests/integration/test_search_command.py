"""`cube search`, `cube info --patch` and `cube verify --catalog` as people run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from cube.cli.main import main
from cube.format.target import Target

WHERE = "season=spring and class:Urban>0.05 and split=train"


def cube(*words: Any, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == code, done.stderr
    return done


@pytest.mark.parametrize("place", ["cube", "catalog", "collection"])
def test_ids_come_on_stdout_and_what_was_read_on_stderr(tiny_published: Target, place: str) -> None:
    stac = tiny_published.stac.url
    named = {"cube": tiny_published.url, "catalog": stac, "collection": f"{stac}/collection.json"}[place]
    done = cube("search", named, "--where", WHERE)
    ids = done.stdout.split()
    assert ids
    assert all(patch.startswith("ROIs1158_spring_") for patch in ids)
    assert f"{len(ids)} patch" in done.stderr
    assert "in 1 request" in done.stderr


def test_a_box_across_the_command_line(tiny_published: Target) -> None:
    everywhere = cube("search", tiny_published.url, "--bbox", "-180,-90,180,90").stdout.split()
    assert len(everywhere) == 25
    assert cube("search", tiny_published.url, "--bbox", "-180 -90 180 90", "--limit", 3).stdout.split() == everywhere[:3]
    assert cube("search", tiny_published.url, "--bbox", "1,2", code=2).stderr.startswith("cube: '1,2' is no box")


def test_what_is_found_is_written_in_every_form(tiny_published: Target, tmp_path: Path) -> None:
    ids = cube("search", tiny_published.url, "--where", WHERE).stdout.split()
    table = cube("search", tiny_published.url, "--where", WHERE, "--format", "table").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["id", *ids]
    features = json.loads(cube("search", tiny_published.url, "--where", WHERE, "--format", "geojson").stdout)["features"]
    assert [feature["id"] for feature in features] == ids
    out = tmp_path / "found.parquet"
    done = cube("search", tiny_published.url, "--where", WHERE, "--format", "parquet", "--out", out)
    assert done.stdout == ""
    assert pq.read_table(out)["id"].to_pylist() == ids
    assert "needs --out" in cube("search", tiny_published.url, "--format", "parquet", code=2).stderr


def test_one_json_document(tiny_published: Target, tmp_path: Path) -> None:
    told = json.loads(cube("search", tiny_published.url, "--where", WHERE, "--json", "--limit", 1).stdout)
    assert told["patches"] > len(told["found"]) == 1
    assert (told["requests"], told["bytes_read"]) == (1, len(tiny_published.stac.read("items.parquet")))
    rows = json.loads(cube("search", tiny_published.url, "--where", WHERE, "--json", "--format", "table").stdout)["found"]
    assert {row["patchcube:split"] for row in rows} == {"train"}
    out = tmp_path / "ids"
    assert json.loads(cube("search", tiny_published.url, "--json", "--out", out).stdout)["out"] == str(out)
    assert len(out.read_text().split()) == 25


def test_a_patch_in_words_and_as_an_item(tiny_published: Target) -> None:
    (patch,) = cube("search", tiny_published.url, "--limit", 1).stdout.split()
    text = cube("info", tiny_published.url, "--patch", patch).stdout
    assert text.startswith(f"{patch}: spring, scene 1, ")
    assert f"xarray.open_zarr({tiny_published.url!r}, chunks=None).isel(patch=0)" in text
    item = json.loads(cube("info", tiny_published.url, "--patch", patch, "--json").stdout)
    assert item["id"] == patch
    assert item["assets"]["zarr"]["patchcube:index"] == 0
    assert "did you mean" in cube("info", tiny_published.url, "--patch", f"{patch}0", code=2).stderr


def test_verify_checks_the_catalog_too(tiny_published: Target, stac_schemas: Path) -> None:
    done = cube("verify", tiny_published.url, "--catalog", "--schemas", stac_schemas, "--workers", 0)
    for check in ("links", "core schema", "extensions", "statistics", "table"):
        assert f"  ok   {check}" in done.stdout
    assert "goes with --catalog" in cube("verify", tiny_published.url, "--schemas", stac_schemas, code=2).stderr


def test_verify_says_what_is_wrong_with_a_catalog(tiny_published: Target, tmp_path: Path) -> None:
    for store, name in ((tiny_published.cube, "zarr"), (tiny_published.stac, "stac"), (tiny_published.build, "build")):
        for entry in store.list():
            path = tmp_path / f"tiny.{name}" / entry.key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.read(entry.key))
    (tmp_path / "tiny.stac/items/spring-1.json").unlink()
    done = cube("verify", tmp_path / "tiny.zarr", "--catalog", "--workers", 0, code=1)
    assert "items/spring-1.json: it is missing" in done.stdout
