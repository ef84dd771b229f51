"""Cube, recipe, report and template → a static STAC catalog beside the cube: a collection and one item per scene.

All links are relative, so the folders ``X.zarr`` and ``X.stac`` can be moved together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.arrays import read_spec
from cube.collection import (
    STAC_VERSION,
    Document,
    derive,
    make_collection,
    read_template,
    store_link,
    with_extensions,
    zarr_asset,
)
from cube.errors import RequestError, StorageError, UntrustedError
from cube.footprints import Box, footprint, rectangle
from cube.labels import read_array
from cube.recipe import Recipe
from cube.report import Report
from cube.target import Target
from cube.verification import read_root

COLLECTION = "collection.json"
_ITEMS = "items"
_COUNTS = ("nan_count", "zero_count", "saturated_count")
_NEEDED = ("season", "scene", "split", "epsg", "transform", "present", *_COUNTS)

Labels = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """A whole catalog: equal cubes, recipes and reports give equal catalogs, to the byte."""

    documents: Mapping[str, Document]
    """Path relative to the catalog → document: the items in the order of the cube's scenes, the collection last."""

    @property
    def collection(self) -> Document:
        """The collection."""
        return self.documents[COLLECTION]

    @property
    def items(self) -> dict[str, Document]:
        """The items by path."""
        return {path: document for path, document in self.documents.items() if path != COLLECTION}

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and bytes of every file, the collection last."""
        for path, document in self.documents.items():
            yield path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False).encode()


def describe(target: Target, recipe: Recipe, report: Report) -> Catalog:
    """Describe a finished cube; reads its labels and no pixel.

    Raises ``RequestError`` if there is no cube or it is not of this recipe, ``CorruptError`` if its labels are damaged.
    """
    _, root = read_root(target)
    facts = root["attributes"]["cube"]
    _check_recipe(target, recipe, facts)
    listed = root["consolidated_metadata"]["metadata"]
    specs = [read_spec(path, document) for path, document in listed.items() if document["node_type"] == "array"]
    labels = {spec.path: read_array(target.cube, spec) for spec in specs if spec.path in _NEEDED}
    cube = target.cube.url.rpartition("/")[2]
    items = {
        f"{_ITEMS}/{season}-{scene}.json": _item(recipe, (season, scene), labels, rows, href=f"../../{cube}")
        for season, scene, rows in _scenes(recipe, labels)
    }
    own = {
        "patchcube:recipe": recipe.name,
        "patchcube:format": facts["format"],
        "patchcube:patches": len(labels["scene"]),
        "patchcube:pixels_digest": f"{facts['certificate']['hash']}:{facts['certificate']['pixels']}",
        "patchcube:checks": [check.name for check in report.checks],
    }
    derived = derive(recipe, specs, items, href=f"../{cube}") | own
    return Catalog(documents={**items, COLLECTION: make_collection(read_template(recipe.catalog), derived)})


def publish(catalog: Catalog, target: Target, report: Report) -> str:
    """Write a catalog, items first and the collection last, then remove items of scenes it no longer has; return its URL.

    Raises ``UntrustedError``, with nothing written, unless the report is of this cube and passed; ``StorageError`` if
    writing fails.
    """
    if report.url != target.url:
        raise UntrustedError(f"{target.url} is not published: the report is about {report.url}; verify this cube")
    if not report.passed:
        first = report.findings[0]
        found = f"{len(report.findings):,} findings, the first: {first.check}: {first.where}: {first.what}"
        raise UntrustedError(f"{target.url} is not published: it did not pass its verification ({found})")
    try:
        for path, data in catalog.files():
            target.stac.write(path, data)
        stale = {entry.key for entry in target.stac.list(_ITEMS)} - catalog.documents.keys()
        for path in sorted(stale):
            target.stac.remove(path)
    except OSError as error:
        raise StorageError(f"{target.stac.url}: the catalog cannot be written: {error}") from error
    return f"{target.stac.url}/{COLLECTION}"


def retract(target: Target) -> None:
    """Take an earlier catalog's collection away: the cube beside it is not trusted any more."""
    if target.stac.exists(COLLECTION):
        target.stac.remove(COLLECTION)


def _check_recipe(target: Target, recipe: Recipe, facts: Mapping[str, Any]) -> None:
    seasons = {name: {"start": str(season.start), "end": str(season.end)} for name, season in recipe.seasons.items()}
    modalities = {name: [band.name for band in modality.bands] for name, modality in recipe.modalities.items()}
    for key, wanted in {"recipe": recipe.name, "modalities": modalities, "seasons": seasons}.items():
        if facts[key] != wanted:
            raise RequestError(f"{target.url} has {key} {facts[key]}, not {wanted}: give the recipe it was built with")


def _scenes(recipe: Recipe, labels: Labels) -> Iterator[tuple[str, int, NDArray[np.intp]]]:
    """Yield season, scene and rows of every scene, in the order of a cube."""
    for season in recipe.seasons:
        of_season = labels["season"] == season
        for scene in np.unique(labels["scene"][of_season]):
            yield season, int(scene), np.flatnonzero(of_season & (labels["scene"] == scene))


def _item(recipe: Recipe, key: tuple[str, int], labels: Labels, rows: NDArray[np.intp], *, href: str) -> Document:
    season, scene = key
    chosen = {name: values[rows] for name, values in labels.items()}
    rectangles = _rectangles(recipe, chosen)
    place = footprint(rectangles)
    properties = {
        "title": f"{recipe.title} {season} {scene}",
        "datetime": None,
        "start_datetime": f"{recipe.seasons[season].start.isoformat()}T00:00:00Z",
        "end_datetime": f"{recipe.seasons[season].end.isoformat()}T23:59:59Z",
        **_projection(rectangles),
        "patchcube:season": season,
        "patchcube:scene": scene,
        **({"patchcube:split": str(chosen["split"][0])} if "split" in chosen else {}),
        **_counts(recipe, chosen),
    }
    return with_extensions(
        {
            "type": "Feature",
            "stac_version": STAC_VERSION,
            "stac_extensions": [],
            "id": f"{season}-{scene}",
            "geometry": place.geometry if place else None,
            **({"bbox": list(place.bbox)} if place else {}),
            "properties": properties,
            "links": [*(_up(relation) for relation in ("root", "parent", "collection")), store_link(href)],
            "assets": {"zarr": zarr_asset(href)},
            "collection": recipe.name,
        }
    )


def _up(relation: str) -> Document:
    return {"rel": relation, "href": f"../{COLLECTION}", "type": "application/json"}


def _rectangles(recipe: Recipe, labels: Labels) -> dict[int, Box]:
    """Return, for each CRS of a scene, the rectangle around its patches; patches without any image have no place."""
    if "epsg" not in labels:
        return {}
    placed = labels["present"].any(axis=1) & np.isfinite(labels["transform"]).all(axis=1)
    codes = np.unique(labels["epsg"][placed & (labels["epsg"] > 0)])
    return {int(code): rectangle(labels["transform"][placed & (labels["epsg"] == code)], recipe.patch.size) for code in codes}


def _projection(rectangles: Mapping[int, Box]) -> Document:
    """Return the fields of the projection extension, for a scene that lies in one CRS."""
    if len(rectangles) != 1:
        return {}
    code, bounds = next(iter(rectangles.items()))
    return {"proj:code": f"EPSG:{code}", "proj:bbox": list(bounds)}


def _counts(recipe: Recipe, labels: Labels) -> Document:
    """Return how many patches a scene has, and by modality how many images and pixels of note."""

    def by_modality(values: NDArray[Any]) -> dict[str, int]:
        return dict(zip(recipe.modalities, values.sum(axis=0, dtype=np.int64).tolist(), strict=True))

    present = labels["present"]
    counted = {f"patchcube:{name}": by_modality(labels[name]) for name in _COUNTS}
    return {"patchcube:patches": int(present.any(axis=1).sum()), "patchcube:images": by_modality(present), **counted}
