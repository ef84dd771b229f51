"""The STAC collection: what only people know, read from a template, joined to what recipe, arrays and items say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import numpy as np

from cube.errors import RecipeError, RequestError
from cube.format.arrays import ArraySpec
from cube.format.layout import class_word
from cube.format.originals import ORIGINALS
from cube.format.target import ROOT
from cube.geo.footprints import WORLD, around
from cube.recipes.bundled import folder, nearest
from cube.recipes.recipe import Recipe
from cube.recipes.sections import Band, Modality
from cube.survey.summary import BandStatistics, Summary

Document = dict[str, Any]

STAC_VERSION = "1.1.0"
ZARR_TYPE = "application/vnd.zarr; version=3"
REQUIRED = frozenset({"title", "description", "license", "keywords", "providers"})
"""What every template says."""
KNOWN = REQUIRED | {"sci:doi", "sci:citation", "sci:publications"}
"""All that a template may say; nothing of it can be derived."""
_EXTENSIONS = {
    "classification": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "cube": "https://stac-extensions.github.io/datacube/v2.3.0/schema.json",
    "eo": "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "proj": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "sci": "https://stac-extensions.github.io/scientific/v1.0.0/schema.json",
    "version": "https://stac-extensions.github.io/version/v1.2.0/schema.json",
    "xarray": "https://stac-extensions.github.io/xarray-assets/v1.0.0/schema.json",
    "zarr": "https://stac-extensions.github.io/zarr/v1.1.0/schema.json",
}
_STAC_TYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {"float32", "float64"}


def read_template(name: str) -> Document:
    """Read a collection template.

    Raises ``RecipeError`` if there is none of that name, ``RequestError`` if it lacks something or says what can be derived.
    """
    paths = {path.stem: path for path in (folder("catalog") / "templates").glob("*.json")}
    if name not in paths:
        raise RecipeError(f"catalog: no template is called {name!r}{nearest(name, sorted(paths))}")
    template: Document = json.loads(paths[name].read_text(encoding="utf-8"))
    if missing := sorted(REQUIRED - template.keys()):
        raise RequestError(f"{paths[name]}: lacks {', '.join(missing)}")
    if unknown := sorted(template.keys() - KNOWN):
        raise RequestError(f"{paths[name]}: {', '.join(unknown)}: expected only {', '.join(sorted(KNOWN))}")
    return template


def with_extensions(document: Mapping[str, Any]) -> Document:
    """Return a document that names the extension of every prefixed field it has and of its version, and no other."""
    prefixes = {*_prefixes(document), *(document.keys() & {"version"})}
    return {**document, "stac_extensions": [url for prefix, url in _EXTENSIONS.items() if prefix in prefixes]}


def _prefixes(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield key.partition(":")[0] if ":" in key else ""
            yield from _prefixes(below)
    elif isinstance(value, list):
        for below in value:
            yield from _prefixes(below)


def zarr_asset(href: str) -> Document:
    """Return the asset that is the cube itself."""
    return {
        "href": href,
        "type": ZARR_TYPE,
        "title": "The cube, a Zarr group",
        "roles": ["data"],
        "zarr:consolidated": True,
        "zarr:node_type": "group",
        "zarr:zarr_format": 3,
    }


def root_asset(href: str, data: bytes) -> Document:
    """Return the asset that is the cube's root document: its checksum vouches for everything below it."""
    return {
        "href": f"{href}/{ROOT}",
        "type": "application/json",
        "title": "Root metadata of the cube, which vouch for everything in it",
        "roles": ["metadata"],
        **file_facts(data),
    }


def table_asset(href: str, data: bytes) -> Document:
    """Return the asset that is the table of all patches, one item per row."""
    return {
        "href": href,
        "type": "application/vnd.apache.parquet",
        "title": "One row per patch (stac-geoparquet)",
        "roles": ["collection-mirror"],
        **file_facts(data),
    }


def file_facts(data: bytes) -> Document:
    """Return size and checksum of a file, the latter as a multihash of SHA-256."""
    return {"file:size": len(data), "file:checksum": f"1220{sha256(data).hexdigest()}"}


def store_link(href: str) -> Document:
    """Return the link that names the one store all Zarr assets lie in."""
    return {"rel": "store", "href": href, "type": ZARR_TYPE}


def make_collection(template: Document, derived: Document) -> Document:
    """Join what people know to what was derived; neither may speak for the other."""
    assert not template.keys() & derived.keys()
    head = {key: derived[key] for key in ("type", "stac_version", "id")}
    cited = [{"rel": "cite-as", "href": f"https://doi.org/{template['sci:doi']}"}] if "sci:doi" in template else []
    spdx = f"https://spdx.org/licenses/{template['license']}.html"
    licensed = [{"rel": "license", "href": spdx, "type": "text/html"}] if template["license"] != "other" else []
    links = {"links": [*derived["links"], *cited, *licensed]}
    return with_extensions({**head, "stac_extensions": [], **template, **derived, **links})


def derive(recipe: Recipe, specs: Iterable[ArraySpec], items: Mapping[str, Document], whole: Summary, *, href: str) -> Document:
    """Return everything in a collection that follows from recipe, arrays, items and survey; ``href`` leads to the cube."""
    boxes = [tuple(item["bbox"]) for item in items.values() if "bbox" in item]
    bbox = list(around(boxes)) if boxes else None
    listed = [spec for spec in specs if not spec.path.startswith(f"{ORIGINALS}/")]
    times = [item["properties"] for item in items.values()]
    interval = [min(time["start_datetime"] for time in times), max(time["end_datetime"] for time in times)]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": recipe.name,
        "extent": {"spatial": {"bbox": [bbox or list(WORLD)]}, "temporal": {"interval": [interval]}},
        "summaries": _summaries(times),
        "cube:dimensions": _dimensions(recipe, listed, bbox),
        "cube:variables": {spec.path: _variable(spec, data=spec.path in recipe.modalities) for spec in listed},
        "links": [
            *({"rel": relation, "href": "./catalog.json", "type": "application/json"} for relation in ("root", "parent")),
            {"rel": "alternate", "href": "./index.html", "type": "text/html", "title": "Datasheet"},
            store_link(href),
            *(_item_link(path, item) for path, item in items.items()),
        ],
        "assets": {"zarr": zarr_asset(href) | {"bands": _bands(recipe, whole)}, "zarr-xarray": _xarray_asset(href)},
    }


def _item_link(path: str, item: Document) -> Document:
    return {"rel": "item", "href": f"./{path}", "type": "application/geo+json", "title": item["properties"]["title"]}


def _xarray_asset(href: str) -> Document:
    """Return the same asset for readers that know neither the media type's parameter nor the zarr extension."""
    keywords = {"engine": "zarr", "consolidated": True, "chunks": None}
    asset = {**zarr_asset(href), "type": "application/vnd.zarr", "title": "The cube, with keywords for xarray"}
    return {**asset, "xarray:open_kwargs": keywords}


def _summaries(properties: list[Document]) -> Document:
    names = ("proj:code", "patchcube:season", "patchcube:split")
    found = {name: {item.get(name) for item in properties} - {None} for name in names}
    return {name: sorted(values) for name, values in found.items() if values}


def _dimensions(recipe: Recipe, specs: Iterable[ArraySpec], bbox: list[float] | None) -> Document:
    lengths = {name: length for spec in specs for name, length in zip(spec.dimensions, spec.shape, strict=True)}
    found = {name: _index(length, "pixel" if name.partition("_")[0] in "xy" else "index") for name, length in lengths.items()}
    if bbox:
        place = {"axes": ["x", "y"], "bbox": bbox, "geometry_types": ["Polygon"], "reference_system": 4326}
        found["patch"] = {"type": "geometry", **place}
    found["modality"] = {"type": "modality", "values": list(recipe.modalities)}
    for name, modality in recipe.modalities.items():
        found[f"{name}_band"] = {"type": "bands", "values": [band.name for band in modality.bands]}
    return found


def _index(length: int, kind: str) -> Document:
    return {"type": kind, "extent": [0, length - 1], "step": 1}


def _variable(spec: ArraySpec, *, data: bool) -> Document:
    kind = np.dtype(spec.dtype).name
    return _given(
        {
            "type": "data" if data else "auxiliary",
            "description": spec.attributes.get("long_name"),
            "dimensions": list(spec.dimensions),
            "unit": spec.attributes.get("units"),
            "data_type": kind if kind in _STAC_TYPES else "other",
        }
    )


def band_name(modality: str, band: str) -> str:
    """Return a band's name as variable[dimension=label]."""
    return f"{modality}[{modality}_band={band}]"


def _bands(recipe: Recipe, whole: Summary) -> list[Document]:
    return [
        _band(recipe, band_name(name, band.name), modality, band) | statistics(found) | _histogram(modality, band, found)
        for name, modality in recipe.modalities.items()
        for band, found in zip(modality.bands, whole.bands[name], strict=True)
    ]


def statistics(found: BandStatistics) -> Document:
    """Return the statistics of a band, if any of its pixels is a number."""
    names = ("minimum", "maximum", "mean", "stddev", "count")
    return {"statistics": {name: getattr(found, name) for name in names}} if found.count else {}


def _histogram(modality: Modality, band: Band, found: BandStatistics) -> Document:
    """Return the histogram of a band, unless it holds classes."""
    if band.legend or not found.count:
        return {}
    lower, upper = modality.histogram_range
    return {"patchcube:histogram": {"lower": lower, "upper": upper, "counts": list(found.histogram)}}


def _band(recipe: Recipe, name: str, modality: Modality, band: Band) -> Document:
    classes = [
        {"value": item.value, "name": class_word(item.name), "title": item.name, "color_hint": item.color.upper()}
        for item in recipe.legends.get(band.legend or "", ())
    ]
    return _given(
        {
            "name": name,
            "description": band.description,
            "gsd": band.gsd,
            "data_type": modality.dtype,
            "unit": modality.units,
            "eo:common_name": band.common_name,
            "eo:center_wavelength": band.center_wavelength,
            "raster:scale": modality.scale,
            "classification:classes": classes or None,
        }
    )


def _given(fields: Document) -> Document:
    return {name: value for name, value in fields.items() if value is not None}
