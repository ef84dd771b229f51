"""Rows of the table of patches → STAC items, with hrefs that lead from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from cube.catalog.patch_table import parquet
from cube.format.target import Target
from cube.geo.polygons import geometry
from cube.query.table import TABLE
from cube.read.opened import resolved
from cube.recipes import WHOLE

Document = dict[str, Any]

CORE = ("type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "properties", "links", "assets", "collection")
"""Members of an item, in order; columns of other names are its properties."""


def items(table: pa.Table, target: Target) -> Iterator[Document]:
    """Yield the STAC item of each row of a table with all columns; hrefs become those seen from anywhere."""
    for row in moved(table, target).to_pylist():
        known = {name: _plain(value) for name, value in row.items() if name not in CORE and value is not None}
        place: Document = {"geometry": geometry(row["geometry"]) if row["geometry"] is not None else None}
        if row.get("bbox") is not None:
            place["bbox"] = [row["bbox"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
        whole = {**row, **place, "properties": {"datetime": None, **known}}
        yield {name: whole[name] for name in CORE if name in place or whole.get(name) is not None}


def item_to_read(table: pa.Table, target: Target) -> Document:
    """Return the item of a table's only row; its asset says which row of the cube it is and how to read it."""
    (item,) = items(table, target)
    index, asset = item["properties"]["patchcube:index"], item["assets"]["zarr"]
    how = f"Row {index} of every array along patch: xarray.open_zarr({asset['href']!r}, chunks=None).isel(patch={index})"
    item["assets"]["zarr"] = {**asset, "patchcube:index": index, "description": how}
    return item


def rows_of(table: pa.Table, target: Target, form: str) -> Any:
    """Return a table as plain data: ids, rows, or a GeoJSON collection of STAC items."""
    if form == "ids":
        return table["id"].to_pylist()
    if form == "geojson":
        return {"type": "FeatureCollection", "features": list(items(table, target))}
    return table.to_pylist()


def rendered(table: pa.Table, target: Target, form: str) -> bytes:
    """Return a table in one of the :data:`cube.catalog.FORMATS`, as it stands in a file."""
    if form == "parquet":
        return parquet(moved(table, target))
    if form == "geojson":
        return json.dumps(rows_of(table, target, form), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    lines = table["id"].to_pylist() if form == "ids" else _aligned(table)
    return "".join(f"{line}\n" for line in lines).encode()


def _aligned(table: pa.Table) -> list[str]:
    """Return a heading and a line per row."""
    table = table.flatten()
    names = [name.removeprefix("patchcube:").removeprefix("proj:centroid.") for name in table.column_names]
    columns = [[name, *map(_cell, table[place].to_pylist())] for place, name in enumerate(names)]
    widths = [max(map(len, column)) for column in columns]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in zip(*columns, strict=True)]


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.5f}" if isinstance(value, float) else str(value)


def moved(table: pa.Table, target: Target) -> pa.Table:
    """Return a table whose hrefs no longer depend on where it lies."""
    base = f"{target.stac.url}/{TABLE}"
    for name in ("links", "assets") if len(table) else ():
        kind, place = table[name].type, table.schema.get_field_index(name)
        value = pa.scalar(_absolute(table[name][0].as_py(), base), kind)
        table = table.set_column(place, name, pa.repeat(value, len(table)))
    return table


def _absolute(value: Any, base: str) -> Any:
    if isinstance(value, Mapping):
        return {name: resolved(base, below) if name == "href" else _absolute(below, base) for name, below in value.items()}
    return [_absolute(below, base) for below in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value


def patch_text(item: Document) -> str:
    """Return an item in words."""
    known = item["properties"]
    season, scene = known["patchcube:season"], known["patchcube:scene"]
    facts = [] if season == WHOLE else [season]
    facts += [] if season == WHOLE and not scene else [f"scene {scene}"]
    facts += [known["patchcube:split"]] if known.get("patchcube:split") else []
    lines = [f"{item['id']}: {', '.join(facts)}" if facts else item["id"]]
    if "proj:centroid" in known:
        centre = known["proj:centroid"]
        crs = known.get("proj:code") or "a CRS without an EPSG code"
        lines.append(f"Longitude {centre['lon']:.5f}, latitude {centre['lat']:.5f} ({crs})")
    present = known["patchcube:present"]
    lines.append("Has " + ", ".join(name for name, there in present.items() if there))
    if not all(present.values()):
        lines.append("Lacks " + ", ".join(name for name, there in present.items() if not there))
    lines += _class_lines(known.items())
    return "\n".join([*lines, item["assets"]["zarr"]["description"]])


def _class_lines(known: Iterable[tuple[str, Any]]) -> Iterator[str]:
    legends: dict[str, list[tuple[float, str]]] = {}
    for name, share in known:
        if name.startswith("class:") and share > 0:
            _, legend, word = name.split(":")
            legends.setdefault(legend, []).append((share, word))
    for legend, shares in legends.items():
        yield f"{legend}: " + ", ".join(f"{word} {100 * share:.1f} %" for share, word in sorted(shares, reverse=True))
