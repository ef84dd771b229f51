"""Which patches of a cube a filter and a box choose, from the table beside it: only the columns and row groups needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cube.errors import FilterError, RequestError
from cube.format.target import Target
from cube.query.choose import Box, meets
from cube.query.filters import CLASS, DATES, MAIN_CLASS, check_fields, class_column, holds, is_pattern, matching
from cube.query.grammar import Clause, Expression, clauses_of, parse
from cube.query.table import MAIN, VALUES, class_columns, open_table, own_facts
from cube.store.parquet import ColumnFile

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
    MAIN_CLASS: MAIN,
    **{name: name for name in DATES},
}
"""Field of a filter → column of the table."""
OWN = "patchcube:"
"""Begins the columns that are labels of a cube."""
BY_MODALITY = ("present", "nan_count", "zero_count", "saturated_count")
"""Fields that have a value for each modality: ``nan_count:s1``."""
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
    bytes_read: int
    """Bytes of the table that were read."""


def search(
    target: Target,
    where: str | None = None,
    bbox: Box | None = None,
    *,
    columns: Sequence[str] | None = ("id",),
    limit: int | None = None,
) -> Found:
    """Return the patches of a cube that a filter and a box choose: the same that the readers choose.

    ``columns`` are those to give back, all of them where None; names that a table lacks are left out. Raises ``FilterError``
    for a filter that cannot be read or names what is not there, ``RequestError`` for a box that is none or a cube without a
    table, ``CorruptError`` for a damaged table.
    """
    file = open_table(target.stac)
    chosen = _chosen(file, parse(where) if where is not None else None, bbox)
    return _found(file, chosen, chosen[:limit], columns)


def find_patch(target: Target, patch: str) -> Found:
    """Return one patch by its id, with all columns. Raises ``FilterError`` if there is none of that id."""
    file = open_table(target.stac)
    chosen = _chosen(file, Clause("patch", "=", (patch,)), None)
    return _found(file, chosen, chosen, None)


def cube_url(url: str) -> str:
    """Return the URL of the cube that a cube, a catalog's folder or a collection's document belongs to."""
    folder = url.rstrip("/").removesuffix("/collection.json")
    return f"{folder.removesuffix('.stac')}.zarr" if folder.endswith(".stac") else folder


def box_of(text: str) -> Box:
    """Return the box that a text such as ``5,45,15,55`` says. Raises ``RequestError`` if it is none."""
    try:
        west, south, east, north = (float(part) for part in re.split(r"[,\s]+", text.strip()))
    except ValueError:
        raise RequestError(f"{text!r} is no box: expected west,south,east,north in degrees, such as 5,45,15,55") from None
    return west, south, east, north


def _found(file: ColumnFile, chosen: Array, rows: Array, columns: Sequence[str] | None) -> Found:
    there = [name for name in columns if name in file.schema.names] if columns is not None else file.schema.names
    return Found(table=_rows(file, rows, there), patches=len(chosen), requests=file.requests, bytes_read=file.bytes_read)


def _chosen(file: ColumnFile, expression: Expression | None, bbox: Box | None) -> Array:
    """Return the positions of the chosen rows."""
    columns = _columns(file, clauses_of(expression) if expression is not None else ())
    groups = [group for group in file.groups if expression is None or _may_hold(file, expression, columns, group)]
    if not groups and "patch" in columns:  # so that the message can name an id like the one that is not there
        groups = file.groups
    if bbox is not None:
        if "bbox" not in file.schema.names:
            raise RequestError("the patches of this cube have no place on Earth, so no box can choose among them")
        groups = [group for group in groups if _near(file, bbox, group)]
    read = file.read([*columns.values(), *(_SIDES if bbox is not None else ())], groups)
    rows = np.concatenate([np.arange(0), *(np.arange(*file.starts[group : group + 2]) for group in groups)])
    fields = {field: _values(read, column) for field, column in columns.items()}
    keep = np.ones(len(rows), bool) if expression is None else matching(expression, fields, own_facts(file)[VALUES])
    if bbox is not None:
        keep &= meets(np.stack([_values(read, side) for side in _SIDES], axis=1), bbox)
    return rows[keep]


def _columns(file: ColumnFile, clauses: Iterable[Clause]) -> dict[str, str]:
    """Return the column of every field that is compared."""
    there = set(file.schema.names)
    known = {field: column for field, column in FIELDS.items() if column.partition(".")[0] in there}
    own = {
        name.removeprefix(OWN): name
        for name in there
        if name.startswith(OWN) and not pa.types.is_struct(file.schema.field(name).type)
    }
    known = {**own, **known}
    fields = dict.fromkeys(clause.field for clause in clauses)
    known |= {field: class_column(field, class_columns(file)) for field in fields if field.startswith(CLASS)}
    known |= {field: _of_modality(file, *field.split(":")) for field in fields if field.partition(":")[0] in BY_MODALITY}
    check_fields(clauses, known)
    return {field: known[field] for field in fields}


def _of_modality(file: ColumnFile, label: str, modality: str = "") -> str:
    """Return the column of a field such as ``nan_count:s1``. Raises ``FilterError`` where it names no modality."""
    known = [child.name for child in file.schema.field(f"patchcube:{label}").type]
    if modality not in known:
        raise FilterError(f"{label} holds a value for each modality: name one, such as {label}:{known[0]}")
    return f"patchcube:{label}.{modality}"


def _may_hold(file: ColumnFile, expression: Expression, columns: Mapping[str, str], group: int) -> bool:
    """Tell whether a row group may hold a row that passes a filter."""
    return bool(holds(expression, lambda clause: _reached(file, clause, columns, group)))


def _reached(file: ColumnFile, clause: Clause, columns: Mapping[str, str], group: int) -> bool:
    """Tell whether a row group may hold a row that passes a comparison."""
    limits = file.limits(columns[clause.field], group) if clause.values else None
    if limits is None:
        return True
    passes, values = _REACHES[clause.operator], [_as(type(limits[0]), value) for value in clause.values]
    if None in values or any(
        isinstance(value, str) and is_pattern(value) for value in values
    ):  # select() says what is wrong with it
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
        values = pc.struct_field(values, leaf)
    if name == FIELDS["epsg"]:
        codes = pc.replace_substring(values, "EPSG:", "")
        return np.asarray(codes.cast(pa.int32()).fill_null(0).to_numpy())
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return np.asarray(values.to_numpy(zero_copy_only=False)).astype("datetime64[D]")
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
