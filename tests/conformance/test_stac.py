"""Published schemas judge the catalog: STAC core and every extension it names, found offline."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pystac
import pytest
from jsonschema import Draft7Validator, FormatChecker
from making import Scene, build, leave_out, make_patches, survey
from PIL import Image
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable

from cube.catalog.describe import describe
from cube.catalog.publish import publish
from cube.recipes.recipe import read_recipe

SCENES = [
    Scene("spring", 15, rows=1, columns=2),
    Scene("fall", 1, rows=2, columns=2, epsg=32737),
    Scene("winter", 5, rows=1, columns=4, epsg=32601, origin=(165621.0, 200000.0)),
]
CORE = "https://schemas.stacspec.org/v1.1.0"
CORE_SCHEMAS = {
    "Catalog": f"{CORE}/catalog-spec/json-schema/catalog.json",
    "Collection": f"{CORE}/collection-spec/json-schema/collection.json",
    "Feature": f"{CORE}/item-spec/json-schema/item.json",
}


@pytest.fixture(scope="module")
def schemas() -> Registry[Any]:
    """Every published schema at hand, by its URL; asking for another one fails."""
    path = Path(os.environ.get("CUBE_SHARED") or Path(__file__).parents[3] / "shared") / "stac-schemas"
    if not path.is_dir():
        leave_out("tests on STAC schemas: no folder `shared/stac-schemas` beside the repository; CUBE_SHARED names another")
    found = [(file.relative_to(path).as_posix(), json.loads(file.read_bytes())) for file in sorted(path.rglob("*.json"))]
    named = {f"https://{name}": contents for name, contents in found}
    draft_7 = {"http://json-schema.org/draft-07/schema": Draft7Validator.META_SCHEMA}
    return Registry().with_resources((url, Resource.from_contents(contents)) for url, contents in (named | draft_7).items())


@pytest.fixture(scope="module", params=["sen12ms", "demo", "sen12ms-cr", "sen1-2"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the catalog of a small cube of each bundled recipe."""
    folder = tmp_path_factory.mktemp("stac")
    source = folder / "patches"
    if request.param == "sen1-2":
        make_pngs(source)
    else:
        make_patches(source, SCENES)
    if request.param == "sen12ms-cr":
        add_cloudy(source)
    built = build(small_recipe(request.param, folder), source, folder / "tiny.zarr")
    report, seen = survey(built)
    publish(describe(built.target, built.plan.recipe, report, seen, rejected=["empty"]), built.target, report)
    return folder / "tiny.stac"


def test_documents_fit_the_core_schema_and_every_extension_they_name(published: Path, schemas: Registry[Any]) -> None:
    for document in documents(published):
        named = document.get("stac_extensions", [])
        assert named == sorted(set(named))
        for url in (CORE_SCHEMAS[document["type"]], *document.get("stac_extensions", [])):
            validator(url, schemas).validate(document)


def test_every_asset_fits_the_zarr_extension(published: Path, schemas: Registry[Any]) -> None:
    """The extension itself is content with one fitting asset in a collection."""
    judge = validator("https://stac-extensions.github.io/zarr/v1.1.0/schema.json#/definitions/fields", schemas)
    for document in documents(published):
        for asset in document.get("assets", {}).values():
            if asset["type"].startswith("application/vnd.zarr"):
                judge.validate({name: value for name, value in asset.items() if name.startswith("zarr:")})
                assert asset["zarr:node_type"] == "group"


def test_every_prefixed_field_has_its_extension(published: Path) -> None:
    """An extension that is not named is not checked by anybody; one that is named has a field."""
    own = {"patchcube"}
    for document in documents(published):
        named = {url.split("/")[3] for url in document.get("stac_extensions", [])} - {"version"}
        assert ("version" in document) == any("/version/" in url for url in document.get("stac_extensions", []))
        known = {"cube": "datacube", "proj": "projection", "sci": "scientific", "xarray": "xarray-assets"}
        assert {known.get(prefix, prefix) for prefix in prefixes(document) - own} == named


def test_pystac_accepts_the_catalog(published: Path, schemas: Registry[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    judge = JsonSchemaSTACValidator()
    judge.schema_cache |= {url: schemas.contents(url) for url in schemas if url not in judge.schema_cache}
    monkeypatch.setattr(pystac.StacIO, "default", lambda: pytest.fail("a schema was to be fetched"))
    for document in documents(published):
        checked = pystac.validation.validate_dict(document, validator=judge)
        assert len(checked) == 1 + len(document.get("stac_extensions", []))


def test_items_of_the_collection_are_all_there_is(published: Path) -> None:
    root = pystac.Catalog.from_file(str(published / "catalog.json"))
    (collection,) = root.get_collections()
    files = {path.relative_to(published).as_posix() for path in published.rglob("*.json")}
    assert files == {"catalog.json", "collection.json", *(f"items/{item.id}.json" for item in collection.get_items())}


def test_a_wrong_document_is_noticed(published: Path, schemas: Registry[Any]) -> None:
    """The judge judges: one bend per schema, each refused."""
    (collection,) = (document for document in documents(published) if document["type"] == "Collection")
    bends: dict[str, Any] = {
        "datacube/": lambda c: c["cube:dimensions"]["x"].pop("extent"),
        "zarr/": lambda c: [asset.update({"zarr:zarr_format": 4}) for asset in c["assets"].values()],
        "file/": lambda c: c["assets"]["zarr-root"].update({"file:checksum": "no hash"}),
        "eo/": lambda c: c["assets"]["zarr"]["bands"][-1].update({"eo:common_name": "purple"}),
        "collection-spec/": lambda c: c.pop("license"),
    }
    for name, bend in bends.items():
        bent = json.loads(json.dumps(collection))
        bend(bent)
        (url,) = (url for url in (CORE_SCHEMAS["Collection"], *bent["stac_extensions"]) if name in url)
        with pytest.raises(jsonschema.ValidationError):
            validator(url, schemas).validate(bent)


def test_an_unknown_schema_is_an_error(schemas: Registry[Any]) -> None:
    with pytest.raises(Unresolvable):
        validator("https://stac-extensions.github.io/no-such/v1.0.0/schema.json", schemas).validate({})


def validator(url: str, schemas: Registry[Any]) -> Draft7Validator:
    return Draft7Validator({"$ref": url}, registry=schemas, format_checker=FormatChecker())


def documents(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_bytes()) for path in sorted(folder.rglob("*.json"))]
    assert len(found) > 1
    return found


def prefixes(value: Any) -> set[str]:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = {key.split(":")[0] for key in value if ":" in key} if isinstance(value, dict) else set()
    return own.union(*(prefixes(item) for item in below))


def small_recipe(name: str, folder: Path) -> Path:
    """Write a bundled recipe for small patches and return its path."""
    data = read_recipe(name).model_dump(mode="json")
    data["patch"]["size"] = 32
    data["layout"] |= {"tile": 16, "shard": 4, "labels": 16}
    path = folder / "small.yaml"
    path.write_text(json.dumps(data))
    return path


def add_cloudy(source: Path) -> None:
    """Give every scene the cloudy images of SEN12MS-CR."""
    for path in list(source.rglob("*_s2_*.tif")):
        cloudy = Path(str(path).replace("s2_", "s2_cloudy_"))
        cloudy.parent.mkdir(parents=True, exist_ok=True)
        cloudy.write_bytes(path.read_bytes())


def make_pngs(source: Path) -> None:
    """Write two pairs as SEN1-2 has them."""
    rng = np.random.default_rng(3)
    for sensor, shape in (("s1", (32, 32)), ("s2", (32, 32, 3))):
        for number in (1, 2):
            path = source / f"ROIs1868_summer/{sensor}_59/ROIs1868_summer_{sensor}_59_p{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
