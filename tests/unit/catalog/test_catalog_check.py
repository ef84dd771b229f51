"""A catalog is checked against itself, the schemas and the cube: every bend is found by the check it concerns."""

from __future__ import annotations

import builtins
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import Built, survey

from cube.catalog.check import check_catalog, recipe_of
from cube.catalog.patch_table import parquet
from cube.catalog.schemas import SchemaJudge
from cube.errors import RequestError
from cube.format.target import Target, target_of
from cube.verify.report import Report

Document = dict[str, Any]


@pytest.fixture(scope="module")
def known(tiny_cube: Built) -> tuple[Report, Any]:
    """Report and survey of the cube."""
    return survey(tiny_cube)


@pytest.fixture
def target(tiny_published: Target, tmp_path: Path) -> Target:
    """A cube and its catalog, to be spoiled."""
    for name in ("zarr", "stac", "build"):
        shutil.copytree(f"{tiny_published.url.removesuffix('zarr')}{name}", tmp_path / f"tiny.{name}")
    return target_of(str(tmp_path / "tiny.zarr"))


def findings(target: Target, known: tuple[Report, Any], schemas: Path | None = None) -> dict[str, list[str]]:
    """Check → what it found, as "where: what"."""
    report = check_catalog(target, recipe_of(target), *known, schemas)
    return {check.name: [f"{f.where}: {f.what}" for f in check.findings] for check in report.checks if check.findings}


def rewrite(target: Target, path: str, bend: Callable[[Document], Any]) -> None:
    document = json.loads(target.stac.read(path))
    bend(document)
    target.stac.write(path, json.dumps(document).encode())


def test_a_sound_catalog_passes_every_check(target: Target, known: tuple[Report, Any], stac_schemas: Path) -> None:
    report = check_catalog(target, recipe_of(target), *known, stac_schemas)
    assert report.passed, report.findings
    names = [check.name for check in report.checks]
    assert names[-10:] == [
        "documents",
        "links",
        "core schema",
        "extensions",
        "extent",
        "contents",
        "bands",
        "statistics",
        "table",
        "page",
    ]
    assert all("nothing" not in check.seen for check in report.checks)


ITEM = "items/spring-1.json"
BENDS: dict[str, tuple[str, str, Callable[[Document], Any]]] = {
    "a lost link": ("links", "collection.json", lambda d: d["links"][0].update(href="./lost.json")),
    "a lost asset": ("links", ITEM, lambda d: d["assets"]["thumbnail"].update(href="../overviews/lost.png")),
    "a wrong checksum": (
        "links",
        "collection.json",
        lambda d: d["assets"]["items"].update({"file:checksum": "1220" + 64 * "0"}),
    ),
    "a wrong size": ("links", "collection.json", lambda d: d["assets"]["zarr-root"].update({"file:size": 1})),
    "no licence": ("core schema", "collection.json", lambda d: d.pop("license")),
    "a box elsewhere": ("extent", ITEM, lambda d: d["bbox"].__setitem__(0, d["bbox"][0] - 0.01)),
    "a corner elsewhere": ("extent", ITEM, lambda d: d["geometry"]["coordinates"][0][1].__setitem__(0, 0.0)),
    "another time": (
        "extent",
        "collection.json",
        lambda d: d["extent"]["temporal"]["interval"][0].__setitem__(0, "2001-01-01T00:00:00Z"),
    ),
    "a count": ("contents", ITEM, lambda d: d["properties"].update({"patchcube:patches": 7})),
    "a split": ("contents", ITEM, lambda d: d["properties"].update({"patchcube:split": "none"})),
    "a band lost": ("bands", "collection.json", lambda d: d["assets"]["zarr"]["bands"].pop()),
    "a band's name": ("bands", "collection.json", lambda d: d["assets"]["zarr"]["bands"][3].update(name="B99")),
    "a mean": ("statistics", "collection.json", lambda d: d["assets"]["zarr"]["bands"][3]["statistics"].update(mean=1.5)),
    "a share": ("statistics", ITEM, lambda d: d["properties"]["patchcube:classes"]["IGBP"].update(Barren=0.999)),
    "no document": ("documents", "catalog.json", lambda d: d.clear()),
    "a strange type": ("documents", "catalog.json", lambda d: d.update(type="Folder")),
}


@pytest.mark.parametrize("change", [lambda page: b"", lambda page: page + b"x", lambda page: page.replace(b"<h1", b"<h2", 1)])
def test_another_page_is_found(target: Target, known: tuple[Report, Any], change: Callable[[bytes], bytes]) -> None:
    target.stac.write("index.html", change(target.stac.read("index.html")))
    assert "page" in findings(target, known)


def test_words_hidden_among_the_rejected_files_are_found(target: Target, known: tuple[Report, Any]) -> None:
    page = target.stac.read("index.html").replace(b'"checks":[', b'"rejected":{"<script>":1},"checks":[', 1)
    target.stac.write("index.html", page)
    assert "page" in findings(target, known)


@pytest.mark.parametrize("bend", BENDS)
def test_a_bend_is_found_by_its_check(target: Target, known: tuple[Report, Any], bend: str) -> None:
    check, path, change = BENDS[bend]
    rewrite(target, path, change)
    found = findings(target, known)
    assert any(line.startswith(path) for line in found[check]), found


@pytest.mark.parametrize(("data", "what"), [(b"{", "cannot be read"), (b"[]", "cannot be read"), (None, "is missing")])
def test_documents_that_cannot_be_read_are_named(
    target: Target, known: tuple[Report, Any], data: bytes | None, what: str
) -> None:
    target.stac.write(ITEM, data) if data is not None else target.stac.remove(ITEM)
    (line,) = findings(target, known)["documents"]
    assert line.startswith(f"{ITEM}: ")
    assert what in line


def test_documents_nobody_leads_to_are_named(target: Target, known: tuple[Report, Any]) -> None:
    target.stac.write("items/spring-99.json", target.stac.read(ITEM))
    assert findings(target, known)["documents"] == ["items/spring-99.json: no other document leads to it"]


def test_scenes_left_out_are_named(target: Target, known: tuple[Report, Any]) -> None:
    target.stac.remove(ITEM)
    rewrite(
        target,
        "collection.json",
        lambda d: d.update(links=[link for link in d["links"] if "spring-1.json" not in link["href"]]),
    )
    found = findings(target, known)
    assert found["documents"] == [f"{ITEM}: the cube has such a scene, the catalog no such document"]


def test_extensions_are_judged_and_must_be_at_hand(target: Target, known: tuple[Report, Any], stac_schemas: Path) -> None:
    rewrite(target, "collection.json", lambda d: d.update(version=5))
    rewrite(target, ITEM, lambda d: d["stac_extensions"].append("https://stac-extensions.github.io/no-such/v1.0.0/schema.json"))
    found = findings(target, known, stac_schemas)["extensions"]
    assert any(
        line.startswith("collection.json: https://stac-extensions.github.io/version/v1.2.0/schema.json:") for line in found
    )
    assert f"{ITEM}: https://stac-extensions.github.io/no-such/v1.0.0/schema.json: its schema is not at hand" in found


def spoil_table(target: Target, change: Callable[[pa.Table], pa.Table]) -> None:
    table = pq.read_table(pa.BufferReader(target.stac.read("items.parquet")))
    target.stac.write("items.parquet", parquet(change(table)))


def replaced(name: str, change: Callable[[list[Any]], Any]) -> Callable[[pa.Table], pa.Table]:
    def of(table: pa.Table) -> pa.Table:
        values, kind = table[name].to_pylist(), table.schema.field(name).type
        change(values)
        return table.set_column(table.schema.get_field_index(name), name, pa.array(values, kind))

    return of


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda table: table.slice(1), "id"),
        (lambda table: table.take(pa.array([1, 0, *range(2, len(table))])), "id"),
        (lambda table: table.drop_columns(["patchcube:split"]), "patchcube:split"),
        (replaced("patchcube:scene", lambda values: values.__setitem__(3, 77)), "patchcube:scene"),
        (replaced("class:IGBP:barren", lambda values: values.__setitem__(3, 0.123)), "class:IGBP:barren"),
        (replaced("geometry", lambda values: values.__setitem__(3, values[4])), "geometry"),
        (replaced("geometry", lambda values: values.__setitem__(3, b"no shape")), "geometry"),
        (replaced("geometry", lambda values: values.__setitem__(3, None)), "geometry"),
        (replaced("bbox", lambda values: values[3].update(xmin=0.5)), "bbox"),
    ],
)
def test_a_table_that_is_not_the_cubes_is_found(
    target: Target, known: tuple[Report, Any], change: Callable[[pa.Table], pa.Table], where: str
) -> None:
    spoil_table(target, change)
    found = findings(target, known)
    assert any(line.startswith(f"{where}: ") for line in found["table"]), found
    assert any("items: the file" in line for line in found["links"])


def test_a_table_that_is_none_is_named(target: Target, known: tuple[Report, Any]) -> None:
    target.stac.write("items.parquet", b"nothing")
    assert "cannot be read" in findings(target, known)["table"][0]


def test_a_cube_that_is_not_sound_is_no_measure(target: Target, known: tuple[Report, Any]) -> None:
    report = check_catalog(target, recipe_of(target), known[0], None, None)
    assert not report.passed
    assert [finding.check for finding in report.findings] == ["extent"]


def test_the_recipe_comes_from_the_build_or_from_the_package(target: Target, tiny_cube: Built) -> None:
    assert recipe_of(target) == tiny_cube.plan.recipe
    target.build.remove("plan.json")
    with pytest.raises(RequestError, match="'tiny' is not bundled"):
        recipe_of(target)
    rewrite(target, "collection.json", lambda d: d.update({"patchcube:recipe": "demo"}))
    assert recipe_of(target).name == "demo"
    target.stac.remove("collection.json")
    with pytest.raises(RequestError, match="has no catalog to check"):
        recipe_of(target)


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pystac"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RequestError, match=r"pip install 'patchcube\[validate\]'"):
        SchemaJudge()


def test_a_folder_without_schemas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="holds no schemas"):
        SchemaJudge(tmp_path)


def test_a_schema_that_refers_to_another_one_not_at_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "example.org" / "schema.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "https://example.org/lost.json"}))
    with pytest.raises(RequestError, match="refers to a schema that is not at hand"):
        list(SchemaJudge(tmp_path).complaints({"a": 1}, "https://example.org/schema.json"))
