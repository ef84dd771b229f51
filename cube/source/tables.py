"""Labels of patches from files beside the images: tables (CSV, Parquet, GeoJSON), and lists of the patches of each class."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from cube.errors import RequestError
from cube.recipes.recipe import Recipe
from cube.recipes.sections import Label
from cube.source.files import Source
from cube.source.inventory import Inventory
from cube.source.labels import BETWEEN, NOTHING, value_of
from cube.source.rejected import Rejected

_MOST = 2**30
"""Bytes of the largest table or list that is read."""


def beside(recipe: Recipe) -> set[str]:
    """Return the paths of the files that labels come from."""
    tables = {label.table for label in recipe.labels.values() if label.table}
    tables |= {recipe.patch.aliases.table} if recipe.patch.aliases else set()
    return tables | {path for label in recipe.labels.values() for path in label.lists.values()}


def aliases(recipe: Recipe, files: Source) -> Mapping[str, str]:
    """Return what some files call a patch → its id, as the recipe's table tells it.

    Raises ``RequestError`` if the table is not there, cannot be read, or has no such column.
    """
    told = recipe.patch.aliases
    return _columns(files, told.table, (told.key, told.column), "the id of a patch") if told else {}


def with_tables(recipe: Recipe, inventory: Inventory, files: Source) -> Inventory:
    """Return the inventory with the labels that stand in tables and lists.

    A patch is known there by its id, or by the name of one of its files, with or without its extension. A patch without a row
    has an empty text or NaN; one that needs a date or an integer, or has what is no value, is rejected. Raises
    ``RequestError`` if a file is not there, cannot be read, or has no such column.
    """
    found = {name: _told(name, label, files) for name, label in recipe.labels.items() if label.table or label.lists}
    bad: dict[int, Rejected] = {}
    for name, told in found.items():
        label, values = recipe.labels[name], []
        for row in range(len(inventory)):
            text = next((told[key] for key in _keys(inventory, row) if key in told), None)
            try:
                values.append(_value(name, label, text))
            except ValueError as error:
                bad[row] = Rejected(str(inventory.patch[row]), "unknown label", str(error))
                values.append(NOTHING.get(label.type, 0))
        inventory = replace(inventory, labels={**inventory.labels, name: np.array(values, label.dtype)})
    inventory = replace(inventory, labels={name: inventory.labels[name] for name in recipe.labels})
    good = np.setdiff1d(np.arange(len(inventory)), np.array(sorted(bad), np.int64))
    return inventory.take(good).reject(list(bad.values())) if bad else inventory


def _value(name: str, label: Label, text: str | None) -> Any:
    if text is not None:
        return value_of(name, label, text)
    if label.type in NOTHING:
        return NOTHING[label.type]
    raise ValueError(f"no row tells its {name}")


def _keys(inventory: Inventory, row: int) -> Iterator[str]:
    """Yield what a patch may be called in a table."""
    yield str(inventory.patch[row])
    for path in inventory.path[row]:
        name = path.rpartition("/")[2]
        yield from (name, name.rpartition(".")[0])


def _told(name: str, label: Label, files: Source) -> Mapping[str, str]:
    """Return what a table or lists tell: patch, as it is called there → value, as it is spelled there."""
    if label.lists:
        return {key: value for value, path in label.lists.items() for key in _read(files, path).decode("utf-8-sig").split()}
    return _columns(files, label.table, (label.key, label.column or name), f"the label {name!r}")


def _columns(files: Source, path: str, wanted: tuple[str, str], what: str) -> Mapping[str, str]:
    """Return the texts of a column of a table by those of another; rows that lack one are left out."""
    data = _read(files, path)
    try:
        if path.lower().endswith((".json", ".geojson")):
            table = _properties(data, wanted)
        elif path.lower().endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data), columns=list(dict.fromkeys(wanted)))
        else:
            texts = pc.ConvertOptions(include_columns=list(wanted), column_types=dict.fromkeys(wanted, pa.string()))
            table = pc.read_csv(io.BytesIO(data), convert_options=texts)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise RequestError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if missing := [column for column in wanted if column not in table.column_names]:
        raise RequestError(f"{path}: has no column {missing[0]!r}, which {what} comes from")
    keys, values = (_texts(table[column]) for column in wanted)
    return {key: value for key, value in zip(keys, values, strict=True) if key and value not in (None, "")}


def _properties(data: bytes, wanted: tuple[str, str]) -> pa.Table:
    """Return what the features of a GeoJSON say besides their geometry. Raises ``pa.ArrowInvalid`` for what is none."""
    try:
        rows = [{"id": feature.get("id"), **(feature["properties"] or {})} for feature in json.loads(data)["features"]]
        known = [name for name in dict.fromkeys(wanted) if any(name in row for row in rows)]
        texts = {name: [_text(row.get(name)) for row in rows] for name in known}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise pa.ArrowInvalid(f"it is no GeoJSON of features with properties ({error})") from None
    return pa.table({name: pa.array(of, pa.string()) for name, of in texts.items()})


def _text(value: Any) -> str | None:
    """Return a value of JSON as a table would have it."""
    if isinstance(value, list):
        return BETWEEN.join(map(str, value))
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    """Return the values of a column as texts; those of a list one after another, with semicolons."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return [None if values is None else BETWEEN.join(map(str, values)) for values in column.to_pylist()]
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts


def _read(files: Source, path: str) -> bytes:
    (data,) = files.part([path]).read_many([path], _MOST)
    if isinstance(data, OSError):
        raise RequestError(f"{path}: cannot be read, and labels come from it: {data.strerror or data}")
    return data
