"""Which patches of a cube a filter and a box choose, from the table beside it: only the columns and row groups needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cube.column_file import ColumnFile
from cube.errors import RequestError
from cube.filters import CLASS, Clause, check_fields, class_column, parse, select
from cube.patch_shares import VALUES, class_columns, open_table, own_facts
from cube.selection import Box, meets

Array = NDArray[Any]

FIELDS = {
    "patch": "id",
    "season": "patchcube:season",
    "scene": "patchcube:scene",
    "number": "patchcube:number",
    "split": "patchcube:split",
    "epsg": "proj:code",
    "lon": "proj:centroid.lon",
    "lat": "proj:centroid.lat",
}
"""Field of a filter → column of the table."""
SUMMARY = ("id", "patchcube:season", "patchcube:scene", "patchcube:split", "patchcube:class", "proj:centroid")
"""What a person wants to see of a patch."""
_SIDES = ("bbox.xmin", "bbox.ymin", "bbox.xmax", "bbox.ymax")
_REACHES: dict[str, Callable[[Any, Any, Any], bool]] = {
    "<": lambda least, most, value: least < value,
    "<=": lambda least, most, value: least <= value,
    ">": lambda least, most, value: most > value,
    ">=": lambda least, most, value: most >= value,
    "=": lambda least, most, value: least <= value <= most,
    "!=": lambda least, most, value: not least == most == value,
}
"""Whether a value between two limits can pass a comparison."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found and what it read for it."""

    table: pa.Table
    """The chosen patches in the cube's order, with the columns asked for."""
    patches: int
    """How many were chosen, before any limit."""
    requests: int
    bytes: int
    """Bytes of the table that were read."""


def search(
    url: str,
    *,
    where: str | None = None,
    bbox: Box | None = None,
    columns: Sequence[str] | None = ("id",),
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Found:
    """Return the patches of a cube that a filter and a box choose: the same that the readers choose.

    ``url`` is that of the cube, its catalog's folder or its collection. ``columns`` are those to give back, all by default
    where None. Raises ``FilterError`` for a filter that cannot be read or names what is not there, ``RequestError`` for a box
    that is none or a cube without a table, ``CorruptError`` for a damaged table.
    """
    file = open_table(cube_url(url), options)
    rows = _chosen(file, where, bbox)
    return Found(
        table=_rows(file, rows[:limit], list(columns) if columns is not None else file.schema.names),
        patches=len(rows),
        requests=file.requests,
        bytes=file.bytes,
    )


def cube_url(url: str) -> str:
    """Return the URL of the cube that a cube, a catalog's folder or a collection's document belongs to."""
    folder = url.rstrip("/").removesuffix("/collection.json").removesuffix("/items.parquet")
    return f"{folder.removesuffix('.stac')}.zarr" if folder.endswith(".stac") else folder


def _chosen(file: ColumnFile, where: str | None, bbox: Box | None) -> Array:
    """Return the positions of the chosen rows."""
    clauses = parse(where) if where is not None else ()
    columns = _columns(file, clauses)
    groups = [group for group in file.groups if all(_reached(file, clause, columns, group) for clause in clauses)]
    if bbox is not None:
        if "bbox" not in file.schema.names:
            raise RequestError("the patches of this cube have no place on Earth, so no box can choose among them")
        groups = [group for group in groups if _near(file, bbox, group)]
    read = file.read([*columns.values(), *(_SIDES if bbox is not None else ())], groups)
    rows = np.concatenate([np.arange(file.starts[group], file.starts[group + 1]) for group in groups] or [np.arange(0)])
    keep = np.ones(len(rows), bool)
    if where is not None:
        fields = {field: _values(read, column) for field, column in columns.items()}
        keep &= select(where, fields, own_facts(file)[VALUES])
    if bbox is not None:
        keep &= meets(np.stack([_values(read, side) for side in _SIDES], axis=1), bbox)
    return rows[keep]


def _columns(file: ColumnFile, clauses: Iterable[Clause]) -> dict[str, str]:
    """Return the column of every field that is compared."""
    there = set(file.schema.names)
    known = {field: column for field, column in FIELDS.items() if column.partition(".")[0] in there}
    fields = dict.fromkeys(clause.field for clause in clauses)
    known |= {field: class_column(field, class_columns(file)) for field in fields if field.startswith(CLASS)}
    check_fields(clauses, known)
    return {field: known[field] for field in fields}


def _reached(file: ColumnFile, clause: Clause, columns: Mapping[str, str], group: int) -> bool:
    """Tell whether a row group may hold a row that passes a comparison."""
    limits = file.limits(columns[clause.field], group)
    if limits is None:
        return True
    passes, values = _REACHES[clause.operator], [_as(type(limits[0]), value) for value in clause.values]
    if None in values:  # select() says what is wrong with it
        return True
    return (all if clause.operator == "!=" else any)(passes(*limits, value) for value in values)


def _as(kind: type, value: str) -> Any:
    if kind is str:
        return value
    try:
        return float(value)
    except ValueError:
        return None


def _near(file: ColumnFile, bbox: Box, group: int) -> bool:
    """Tell whether a row group may hold a patch that meets a box."""
    sides = [file.limits(side, group) for side in _SIDES]
    if None in sides:
        return True
    (west, last_west), (south, _), (first_east, east), (_, north) = (side for side in sides if side is not None)
    if first_east < last_west:  # a patch may cross 180°
        west, east = -180.0, 180.0
    return bool(meets(np.array([[west, south, east, north]]), bbox)[0])


def _values(table: Any, column: str) -> Array:
    """Return a column (or a leaf of one) as NumPy values; the codes of CRSs as numbers, 0 where there is none."""
    name, _, leaf = column.partition(".")
    values = table[name].combine_chunks()
    if leaf:
        values = pa.compute.struct_field(values, leaf)
    if name == FIELDS["epsg"]:
        codes = pa.compute.replace_substring(values, "EPSG:", "")
        return np.asarray(codes.cast(pa.int32()).fill_null(0).to_numpy())
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _rows(file: ColumnFile, rows: Array, columns: list[str]) -> pa.Table:
    """Return some columns of some rows; row groups without any of them are not read."""
    groups = np.unique(np.searchsorted(file.starts, rows, side="right") - 1)
    table = file.read(columns, groups.tolist())
    lengths = np.diff(file.starts)[groups]
    begins = np.cumsum(lengths) - lengths
    of_row = np.searchsorted(groups, np.searchsorted(file.starts, rows, side="right") - 1)
    places = rows - file.starts[groups][of_row] + begins[of_row] if len(rows) else rows
    return table.take(pa.array(places, pa.int64())).select(columns)


