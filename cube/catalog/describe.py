"""Cube, recipe, report, survey and template → a static STAC catalog beside the cube: a collection and one item per scene.

All links are relative, so the folders ``X.zarr`` and ``X.stac`` can be moved together.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.catalog.collection import (
    STAC_VERSION,
    Document,
    band_name,
    derive,
    make_collection,
    read_template,
    root_asset,
    statistics,
    store_link,
    table_asset,
    with_extensions,
    zarr_asset,
)
from cube.catalog.overviews import overview_assets, pictures
from cube.catalog.page import datasheet
from cube.catalog.patch_table import WANTED, parquet, patch_table
from cube.errors import RequestError
from cube.format.arrays import ArraySpec, read_spec
from cube.format.defects import DEFECTS
from cube.format.root import read_root
from cube.format.small import read_array
from cube.format.target import COLLECTION, Target
from cube.format.versions import SUPERSEDES, current_rows, versions_of
from cube.geo.footprints import Rectangle, Shape, footprint, outline, rectangle
from cube.geo.projection import System, numbered, system
from cube.query.table import TABLE
from cube.recipes import WHOLE
from cube.recipes.recipe import Recipe
from cube.survey.summary import Survey
from cube.tasks.labelling import label_texts, patch_labels
from cube.verify.report import Report

CATALOG = "catalog.json"
_ITEMS = "items"
_VERSION = 16
"""Digits of the pixels' digest that are the collection's version: equal versions hold equal pixels."""
_COUNTS = ("nan_count", "zero_count", "saturated_count")

Labels = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """A whole catalog: equal cubes, recipes and reports give equal catalogs, to the byte."""

    documents: Mapping[str, Document]
    """Path relative to the catalog → document: items in the order of the cube's scenes, the collection, the root catalog."""
    files: Mapping[str, bytes]
    """Path relative to the catalog → anything that is no STAC document."""

    @property
    def collection(self) -> Document:
        """The collection."""
        return self.documents[COLLECTION]

    @property
    def items(self) -> dict[str, Document]:
        """The items by path."""
        return {path: document for path, document in self.documents.items() if path.startswith(f"{_ITEMS}/")}

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and bytes of every file: those that others name first, the root catalog last."""
        yield from self.files.items()
        for path, document in self.documents.items():
            yield path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False).encode()


def describe(target: Target, recipe: Recipe, report: Report, survey: Survey, *, rejected: Iterable[str] = ()) -> Catalog:
    """Describe a finished cube; reads its labels and no pixel.

    ``rejected`` gives the reason of every file and patch that a build left out. Raises ``RequestError`` if there is no cube
    or it is not of this recipe, ``CorruptError`` if its labels are damaged.
    """
    data, root = read_root(target)
    facts = root["attributes"]["cube"]
    _check_recipe(target, recipe, facts)
    listed = root["consolidated_metadata"]["metadata"]
    specs = [read_spec(path, document) for path, document in listed.items() if document["node_type"] == "array"]
    wanted = WANTED | recipe.labels.keys() | {SUPERSEDES}
    labels = {spec.path: read_array(target.cube, spec) for spec in specs if spec.path in wanted}
    patches = len(labels["patch"])
    labels, survey = _current(labels, survey)
    cube = target.cube.url.rpartition("/")[2]
    digest = f"{facts['certificate']['hash']}:{facts['certificate']['pixels']}"
    earlier = [f"{facts['certificate']['hash']}:{state.pixels}" for state in versions_of(facts, patches)[:-1]]
    table = parquet(patch_table(recipe, labels, survey.patch_classes, href=f"../{cube}", digest=digest, earlier=earlier))
    files = {**pictures(survey), TABLE: table}
    items = {
        f"{_ITEMS}/{season}-{scene}.json": _item(recipe, (season, scene), labels, rows, survey, href=f"../../{cube}")
        for season, scene, rows in _scenes(recipe, labels)
    }
    own = {
        "patchcube:recipe": recipe.name,
        "patchcube:format": facts["format"],
        "patchcube:patches": len(labels["scene"]),
        "patchcube:digest": facts["certificate"]["root"],
        "patchcube:pixels_digest": digest,
        "patchcube:versions": [{**state._asdict()} for state in versions_of(facts, patches)],
        "patchcube:checks": [check.name for check in report.checks],
        "patchcube:classes": survey.whole.classes,
        "patchcube:raw_bytes": _raw_bytes(specs, recipe, labels["present"]),
        "patchcube:stored_bytes": report.stored_bytes,
        "patchcube:tiles": {name: {"used": used, "stored": stored} for name, (used, stored) in survey.tiles.items()},
        "patchcube:rejected": dict(sorted(Counter(rejected).items())),
        "version": facts["certificate"]["pixels"][:_VERSION],
    }
    derived = derive(recipe, specs, items, survey.whole, href=f"../{cube}") | own
    derived["assets"] |= {"zarr-root": root_asset(f"../{cube}", data), "items": table_asset(f"./{TABLE}", table)}
    collection = make_collection(read_template(recipe.catalog), derived)
    files |= datasheet(collection, items)
    return Catalog(documents={**items, COLLECTION: collection, CATALOG: _root(collection)}, files=files)


def _current(labels: Labels, survey: Survey) -> tuple[Labels, Survey]:
    """Return labels and survey of the patches that nobody has replaced; ``index`` tells their rows."""
    rows = current_rows(labels[SUPERSEDES]) if SUPERSEDES in labels else np.arange(len(labels["patch"]))
    classes = {name: of._replace(shares=of.shares[rows]) for name, of in survey.patch_classes.items()}
    chosen = {name: values if name == "crs_wkt" else values[rows] for name, values in labels.items() if name != SUPERSEDES}
    return {**chosen, "index": rows}, replace(survey, patch_classes=classes)


def _root(collection: Document) -> Document:
    """Return the root catalog, which has one child."""
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": f"{collection['id']}-catalog",
        "title": collection["title"],
        "description": f"A data cube made of patch files: {collection['title']}",
        "links": [
            {"rel": "root", "href": f"./{CATALOG}", "type": "application/json"},
            {"rel": "child", "href": f"./{COLLECTION}", "type": "application/json", "title": collection["title"]},
        ],
    }


def _raw_bytes(specs: Iterable[ArraySpec], recipe: Recipe, present: NDArray[np.bool_]) -> int:
    """Return the decoded bytes of all images that are there."""
    image = {spec.path: math.prod(spec.shape[1:]) * np.dtype(spec.dtype).itemsize for spec in specs}
    return sum(image[name] * int(count) for name, count in zip(recipe.modalities, present.sum(axis=0), strict=True))


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


def _item(
    recipe: Recipe, key: tuple[str, int], labels: Labels, rows: NDArray[np.intp], survey: Survey, *, href: str
) -> Document:
    season, scene = key
    chosen = {name: values if name == "crs_wkt" else values[rows] for name, values in labels.items()}
    rectangles = _rectangles(recipe, chosen)
    place = footprint(rectangles, _outlines(recipe, chosen) if survey.grounded[key] else None)
    properties = {
        "title": f"{recipe.title} {season} {scene}" if season != WHOLE else f"{recipe.title}, {_of(scene)}",
        "datetime": None,
        "start_datetime": f"{recipe.seasons[season].start.isoformat()}T00:00:00Z",
        "end_datetime": f"{recipe.seasons[season].end.isoformat()}T23:59:59Z",
        **_projection(rectangles),
        "patchcube:season": season,
        "patchcube:scene": scene,
        **({"patchcube:split": str(splits[0])} if len(splits := np.unique(chosen.get("split", []))) == 1 else {}),
        **_counts(recipe, chosen),
        "patchcube:counted": "ground" if survey.grounded[key] else "stored tiles",
        "patchcube:classes": survey.scenes[key].classes,
        **_by_class(recipe, survey, rows),
    }
    bands = [
        {"name": band_name(name, band.name), **statistics(found)}
        for name, modality in recipe.modalities.items()
        for band, found in zip(modality.bands, survey.scenes[key].bands[name], strict=True)
    ]
    return with_extensions(
        {
            "type": "Feature",
            "stac_version": STAC_VERSION,
            "stac_extensions": [],
            "id": f"{season}-{scene}",
            "geometry": place.geometry if place else None,
            **({"bbox": list(place.bbox)} if place else {}),
            "properties": properties,
            "links": [*_up(), store_link(href)],
            "assets": {"zarr": zarr_asset(href) | {"bands": bands}, **overview_assets(recipe, key, survey)},
            "collection": recipe.name,
        }
    )


def _of(scene: int) -> str:
    """Return what a scene of a data set without seasons is called; one without scenes has the scene 0 alone."""
    return f"scene {scene}" if scene else "all patches"


def _up() -> Iterator[Document]:
    for relation, path in (("root", CATALOG), ("parent", COLLECTION), ("collection", COLLECTION)):
        yield {"rel": relation, "href": f"../{path}", "type": "application/json"}


def _by_class(recipe: Recipe, survey: Survey, rows: NDArray[np.intp]) -> Document:
    """Return how many patches each class of the first legend covers more of than any other class."""
    if not survey.patch_classes:
        return {}
    legend, (codes, shares) = next(iter(survey.patch_classes.items()))
    of_scene = shares[rows]
    told = of_scene[np.nan_to_num(of_scene).any(axis=1)]
    listed = recipe.legends[legend]
    names = {item.value: item.name for item in listed}
    counts = np.bincount(told.argmax(axis=1), minlength=len(codes))
    by_class = {names[code]: int(n) for code, n in zip(codes, counts, strict=True) if n}
    ways = patch_labels([item.name for item in listed], [item.group or "" for item in listed], told)
    wider = {name: Counter(label_texts(*way)[0]) for name, way in ways.items() if len(way[0]) < len(listed)}
    by_label = {name: {text: found[text] for text in ways[name][0] if found[text]} for name, found in wider.items()}
    return {"patchcube:patches_by_class": by_class, **({"patchcube:patches_by_label": by_label} if by_label else {})}


def _rectangles(recipe: Recipe, labels: Labels) -> dict[System, Rectangle]:
    """Return, for each CRS of a scene, the rectangle around its patches; patches without any image have no place."""
    if "epsg" not in labels:
        return {}
    return {crs: rectangle(transforms, recipe.patch.size) for crs, transforms in _placed(labels)}


def _outlines(recipe: Recipe, labels: Labels) -> dict[System, Shape]:
    """Return what the patches of a scene cover; they lie on one grid."""
    return {crs: outline(transforms, recipe.patch.size, recipe.layout.tile) for crs, transforms in _placed(labels)}


def _placed(labels: Labels) -> Iterator[tuple[System, NDArray[np.float64]]]:
    """Yield each CRS of a scene and the transforms of the patches that lie in it and have an image."""
    placed = labels["present"].any(axis=1) & np.isfinite(labels["transform"]).all(axis=1)
    crs = numbered(labels["epsg"], labels.get("crs_index"))
    definitions = labels["crs_wkt"].tolist() if "crs_wkt" in labels else []
    for number in np.unique(crs[placed & (crs != 0)]).tolist():
        yield system(number, definitions), labels["transform"][placed & (crs == number)]


def _projection(rectangles: Mapping[System, Rectangle]) -> Document:
    """Return the fields of the projection extension, for a scene that lies in one CRS."""
    if len(rectangles) != 1:
        return {}
    crs, bounds = next(iter(rectangles.items()))
    named = {"proj:code": None, "proj:wkt2": crs} if isinstance(crs, str) else {"proj:code": f"EPSG:{crs}"}
    return {**named, "proj:bbox": list(bounds)}


def _counts(recipe: Recipe, labels: Labels) -> Document:
    """Return how many patches a scene has, and by modality how many images and pixels of note."""

    def by_modality(values: NDArray[Any]) -> dict[str, int]:
        return dict(zip(recipe.modalities, values.sum(axis=0, dtype=np.int64).tolist(), strict=True))

    present = labels["present"]
    counted: Document = {f"patchcube:{name}": by_modality(labels[name]) for name in _COUNTS}
    defects = {name: int((labels[name] > 0).sum()) for name in DEFECTS if name in labels}
    counted |= {"patchcube:patches_with": defects} if defects else {}
    return {"patchcube:patches": int(present.any(axis=1).sum()), "patchcube:images": by_modality(present), **counted}
