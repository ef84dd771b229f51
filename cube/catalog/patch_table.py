"""One row per patch, in the cube's order: the table that mirrors all patches as STAC items (stac-geoparquet, GeoParquet 1.1).

A row is an item: its properties are columns, its place is WKB with a box to search by, its hrefs lead from the table's folder.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cube.catalog.collection import STAC_VERSION, store_link, with_extensions, zarr_asset
from cube.format.defects import DEFECTS
from cube.format.layout import class_word, meant
from cube.geo.boxes import bounds
from cube.geo.polygons import polygons
from cube.geo.projection import numbered
from cube.query.filters import CLASS
from cube.query.table import DIGEST, EARLIER, FACTS, VALUES
from cube.recipes.recipe import Recipe
from cube.survey.summary import PatchClasses
from cube.tasks.labelling import label_texts, patch_labels

Labels = Mapping[str, NDArray[Any]]
Classes = Mapping[str, PatchClasses]
"""By legend, as a survey has them."""

ROW_GROUP = 8192
"""Patches that are skipped together where a filter allows it."""
NEEDED = frozenset({"patch", "season", "scene", "number", "present", "nan_count", "zero_count", "saturated_count"})
"""Labels that every table is made of."""
WANTED = NEEDED | DEFECTS.keys() | {"split", "epsg", "crs_index", "crs_wkt", "transform", "lon", "lat"}
"""Labels that are used where the cube has them."""
_COUNTS = ("nan_count", "zero_count", "saturated_count")
_VARIED = ("id", "geometry", "bbox", "proj:centroid", "proj:transform", "patchcube:index", CLASS)
"""Columns in which hardly a value comes twice: a dictionary would not help."""
_SEARCHED = ("id", "bbox", "proj:centroid", "patchcube:season", "patchcube:scene", "patchcube:number", "patchcube:split")


def patch_table(
    recipe: Recipe, labels: Labels, classes: Classes, *, href: str, digest: str, earlier: Sequence[str] = ()
) -> pa.Table:
    """Return the table of all patches, a STAC item per row.

    ``labels`` are the cube's (:data:`WANTED`), and ``index`` their rows where these are not all; ``href`` leads from the
    table's folder to the cube, ``digest`` is the certificate of the cube's pixels, ``earlier`` those of its earlier versions.
    """
    rows = len(labels["patch"])
    columns = {
        "type": _constant("Feature", rows),
        "stac_version": _constant(STAC_VERSION, rows),
        "id": pa.array(labels["patch"].astype(str), pa.string()),
        **_places(recipe, labels),
        **_times(recipe, labels["season"]),
        **_own(recipe, labels),
        **_names(labels),
        **_contents(recipe, labels),
        **_classes(recipe, classes),
        **(said := _labels(recipe, classes)),
        "links": _constant([_collection_link(), store_link(href)], rows),
        "assets": _constant({"zarr": zarr_asset(href)}, rows),
        "collection": _constant(recipe.name, rows),
    }
    extensions = with_extensions({**dict.fromkeys(columns), "assets": {"zarr": zarr_asset(href)}})["stac_extensions"]
    table = pa.table({**columns, "stac_extensions": _constant(extensions, rows, pa.list_(pa.string()))})
    return table.replace_schema_metadata(_metadata(table, _texts(recipe, labels) | _words(said), digest, earlier))


def parquet(table: pa.Table) -> bytes:
    """Return a table as Parquet: equal tables give equal bytes. Only the columns that filters compare have statistics."""
    file = io.BytesIO()
    own = [f"patchcube:{name}" for name in json.loads(table.schema.metadata[FACTS.encode()])[VALUES]]
    searched = [name for name in table.column_names if name in _SEARCHED or name.startswith(CLASS) or name in own]
    leaves = [
        f"{name}.{below.name}"
        for name in searched
        if pa.types.is_struct(table.schema.field(name).type)
        for below in table.schema.field(name).type
    ]
    pq.write_table(
        table,
        file,
        compression="zstd",
        write_page_checksum=True,
        row_group_size=ROW_GROUP,
        use_dictionary=[name for name in _leaves(table.schema) if not name.startswith(_VARIED)],
        write_statistics=[*(name for name in searched if name not in ("bbox", "proj:centroid")), *leaves],
    )
    return file.getvalue()


def _leaves(schema: Any) -> list[str]:
    names = []
    for item in schema:
        stack = [(item.name, item.type)]
        while stack:
            path, kind = stack.pop()
            if pa.types.is_struct(kind):
                stack += [(f"{path}.{below.name}", below.type) for below in kind]
            elif pa.types.is_list(kind):
                stack.append((f"{path}.list.element", kind.value_type))
            else:
                names.append(path)
    return names


def _constant(value: Any, rows: int, kind: Any = None) -> Any:
    return pa.repeat(pa.scalar(value, kind), rows)


def _collection_link() -> dict[str, str]:
    return {"rel": "collection", "href": "./collection.json", "type": "application/json"}


def _places(recipe: Recipe, labels: Labels) -> dict[str, Any]:
    """Return geometry, box and the fields of the projection extension; null where a patch has no place on Earth."""
    rows, size = len(labels["patch"]), recipe.patch.size
    if "epsg" not in labels:
        return {"geometry": pa.nulls(rows, pa.binary())}
    epsg, transform, definitions = labels["epsg"], labels["transform"], labels.get("crs_wkt", np.array([], str)).tolist()
    crs = numbered(epsg, labels.get("crs_index"))
    shapes = polygons(crs, transform, size, definitions)
    nowhere = np.array([shape is None for shape in shapes])
    box = bounds(crs, transform, size, definitions)
    centre = {name: pa.array(labels[name], pa.float64()) for name in ("lat", "lon")}
    affine = pa.FixedSizeListArray.from_arrays(pa.array(transform.ravel()), 6).cast(pa.list_(pa.float64()))
    return {
        "geometry": pa.array(shapes, pa.binary()),
        "bbox": _struct(dict(zip(("xmin", "ymin", "xmax", "ymax"), box.T, strict=True)), nowhere),
        "proj:code": _codes(epsg, nowhere | (epsg == 0)),
        **({"proj:wkt2": _definitions(definitions, crs)} if definitions else {}),
        "proj:shape": _constant([size, size], rows, pa.list_(pa.int32())),
        "proj:transform": _without(affine, nowhere),
        "proj:centroid": _struct(centre, nowhere),
    }


def _codes(epsg: NDArray[Any], nowhere: NDArray[np.bool_]) -> Any:
    codes, places = np.unique(epsg, return_inverse=True)
    words = pa.array([f"EPSG:{code}" for code in codes])
    return _without(pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), words).cast(pa.string()), nowhere)


def _definitions(definitions: list[str], crs: NDArray[np.int64]) -> Any:
    places = pa.array(-1 - crs, pa.int32(), mask=crs >= 0)
    return pa.DictionaryArray.from_arrays(places, pa.array(definitions)).cast(pa.string())


def _without(values: Any, nowhere: NDArray[np.bool_]) -> Any:
    return pc.if_else(pa.array(~nowhere), values, pa.scalar(None, values.type)) if nowhere.any() else values


def _struct(columns: Mapping[str, Any], nowhere: NDArray[np.bool_] | None = None) -> Any:
    mask = pa.array(nowhere) if nowhere is not None and nowhere.any() else None
    return pa.StructArray.from_arrays([pa.array(column) for column in columns.values()], names=list(columns), mask=mask)


def _times(recipe: Recipe, season: NDArray[Any]) -> dict[str, Any]:
    """Return the time span of each patch's season: no patch has a date of its own."""
    kind = pa.timestamp("ms", tz="UTC")
    names, places = np.unique(season, return_inverse=True)
    starts = [datetime.combine(recipe.seasons[str(name)].start, time(), UTC) for name in names]
    ends = [datetime.combine(recipe.seasons[str(name)].end, time(23, 59, 59), UTC) for name in names]
    return {
        "datetime": pa.nulls(len(season), kind),
        "start_datetime": pa.array(starts, kind).take(pa.array(places)),
        "end_datetime": pa.array(ends, kind).take(pa.array(places)),
    }


def _own(recipe: Recipe, labels: Labels) -> dict[str, Any]:
    """Return the labels that the recipe names."""
    kinds = {"integer": pa.int64(), "number": pa.float64(), "date": pa.date32()}
    columns = {}
    for name, label in recipe.labels.items():
        if name in labels:
            values = meant(label, labels[name])
            kind = kinds.get(label.type)
            columns[f"patchcube:{name}"] = pa.array(values, kind) if kind else pa.array(values.astype(str), pa.string())
    return columns


def _names(labels: Labels) -> dict[str, Any]:
    texts = [name for name in ("season", "split") if name in labels]
    return {
        "patchcube:index": pa.array(np.asarray(labels.get("index", np.arange(len(labels["patch"]))), np.int32)),
        **{f"patchcube:{name}": pa.array(labels[name].astype(str), pa.string()) for name in texts},
        **{f"patchcube:{name}": pa.array(labels[name], pa.int32()) for name in ("scene", "number")},
    }


def _contents(recipe: Recipe, labels: Labels) -> dict[str, Any]:
    """Return, by modality, whether there is an image and how many of its pixels are of note."""

    def by_modality(values: NDArray[Any]) -> Any:
        return _struct(dict(zip(recipe.modalities, values.T, strict=True)))

    counts = {f"patchcube:{name}": by_modality(labels[name].astype(np.int32)) for name in _COUNTS}
    defects = {f"patchcube:{name}": pa.array(labels[name], pa.int32()) for name in DEFECTS if name in labels}
    return {"patchcube:present": by_modality(labels["present"].astype(bool)), **counts, **defects}


def _classes(recipe: Recipe, classes: Classes) -> dict[str, Any]:
    """Return the most frequent class of the first legend, and every class's share of the pixels."""
    columns: dict[str, Any] = {}
    for legend, (codes, shares) in classes.items():
        names = {item.value: class_word(item.name) for item in recipe.legends[legend]}
        unknown, known = np.asarray(np.isnan(shares).any(axis=1)), np.nan_to_num(shares)
        if not columns:
            most = pa.array([names[code] for code in codes]).take(pa.array(known.argmax(axis=1)))
            columns["patchcube:class"] = _without(most, np.asarray(~known.any(axis=1)))
        for code, share in zip(codes, shares.T, strict=True):
            columns[f"{CLASS}{legend}:{names[code]}"] = pa.array(share, mask=unknown)
    return columns


def _labels(recipe: Recipe, classes: Classes) -> dict[str, Any]:
    """Return labels of patches by the first legend, such as ``patchcube:label10`` and, of several, ``patchcube:labels10``."""
    if not classes:
        return {}
    legend, (_, shares) = next(iter(classes.items()))
    listed, columns = recipe.legends[legend], {}
    for name, way in patch_labels([item.name for item in listed], [item.group or "" for item in listed], shares).items():
        for column, texts in zip((name, name.replace("label", "labels")), label_texts(*way), strict=True):
            columns[f"patchcube:{column}"] = pa.array([text or None for text in texts], pa.string())
    return columns


def _words(columns: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the values that texts of the table have."""
    return {name.partition(":")[2]: sorted(filter(None, set(values.to_pylist()))) for name, values in columns.items()}


def _texts(recipe: Recipe, labels: Labels) -> dict[str, list[str]]:
    """Return the values of every label that is a text."""
    own = [name for name, label in recipe.labels.items() if label.type in ("text", "class", "classes")]
    texts = [name for name in dict.fromkeys(("season", "split", *own)) if name in labels]
    values = {name: meant(recipe.labels[name], labels[name]) if name in recipe.labels else labels[name] for name in texts}
    return {name: np.unique(of.astype(str)).tolist() for name, of in values.items()}


def _metadata(table: pa.Table, values: Mapping[str, list[str]], digest: str, earlier: Sequence[str]) -> dict[str, str]:
    place: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon", "MultiPolygon"] if "bbox" in table.column_names else [],
        "edges": "planar",
        "orientation": "counterclockwise",
    }
    if "bbox" in table.column_names:
        place["covering"] = {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": place}}
    own = {DIGEST: digest, VALUES: values, **({EARLIER: list(earlier)} if earlier else {})}
    return {key: json.dumps(value) for key, value in {"geo": geo, "stac-geoparquet": {"version": "1.0.0"}, FACTS: own}.items()}
