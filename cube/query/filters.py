"""The small grammar of ``--where``: ``season=summer,fall and split=train and class:Urban>0.3``. Parsed, never evaluated."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import FilterError

CLASS = "class:"
"""Begins the field that is a class's share of a patch's pixels, and the column it is kept in: ``class:LEGEND:word``."""
_CLAUSE = re.compile(r"\s*(?P<field>class:\w+(?::\w+)?|[A-Za-z_]\w*)\s*(?P<operator><=|>=|!=|=|<|>)\s*(?P<value>[^=<>!]+?)\s*")
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison of a field with one or more values."""

    field: str
    operator: str
    values: tuple[str, ...]


def parse(text: str) -> tuple[Clause, ...]:
    """Return the comparisons of a filter; all of them must hold.

    Raises ``FilterError`` for anything that is not ``field operator value`` joined by ``and``.
    """
    clauses = []
    for part in re.split(r"\sand\s", text):
        match = _CLAUSE.fullmatch(part)
        if match is None:
            raise FilterError(f"cannot read {part.strip()!r}: expected field, operator and value, such as scene<=40")
        values = tuple(value.strip() for value in match["value"].split(","))
        if match["operator"] not in ("=", "!=") and len(values) > 1:
            raise FilterError(f"{part.strip()!r}: only = and != take several values")
        clauses.append(Clause(match["field"], match["operator"], values))
    return tuple(clauses)


def select(text: str, fields: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Return which rows of ``fields`` (name → one value per row) a filter selects.

    Raises ``FilterError`` for an unknown field, or a value no row has or that is no number where one is needed.
    """
    clauses = parse(text)
    check_fields(clauses, fields)
    return matching(clauses, fields, {}, len(next(iter(fields.values()))))


def matching(
    clauses: Iterable[Clause], fields: Mapping[str, Array], known: Mapping[str, Iterable[str]], count: int
) -> NDArray[np.bool_]:
    """Return which of ``count`` rows pass all comparisons.

    ``known`` gives the values of texts, for fields of which only a part of all rows is there. Raises what :func:`select` does.
    """
    rows = np.ones(count, bool)
    for clause in clauses:
        rows &= _matches(clause, fields[clause.field], known.get(clause.field))
    return rows


def check_fields(clauses: Iterable[Clause], known: Iterable[str]) -> None:
    """Raise ``FilterError`` if a comparison is of a field that is not known."""
    names = sorted(known)
    for clause in clauses:
        if clause.field not in names:
            raise FilterError(f"unknown field {clause.field!r}{_hint(clause.field, names)}")


def class_column(field: str, columns: Iterable[str]) -> str:
    """Return the column that a field such as ``class:Urban`` or ``class:IGBP:Urban`` means.

    ``columns`` are named ``class:LEGEND:word``, legend after legend. The name is a word or its beginning, in capitals or not.
    The first legend that has it counts. Raises ``FilterError`` if none has it, or one has several that begin so.
    """
    *legend, name = field.removeprefix(CLASS).lower().split(":")
    legends: dict[str, dict[str, str]] = {}
    for column in columns:
        _, title, word = column.split(":")
        if not legend or title.lower() == legend[0]:
            legends.setdefault(title, {})[word] = column
    for words in legends.values():
        found = [word for word in words if word == name] or [word for word in words if word.startswith(name)]
        if len(found) == 1:
            return words[found[0]]
        if found:
            raise FilterError(f"{field!r} may be {', '.join(words[word] for word in found)}: write more of it")
    raise FilterError(f"no class is {field!r}{_like(name, [word for words in legends.values() for word in words])}")


def _like(name: str, words: list[str]) -> str:
    """Return the word that begins most like a name, as a hint."""
    begins = {word[: len(name)]: word for word in words}
    close = difflib.get_close_matches(name, begins, n=1)
    return f"; did you mean {CLASS + begins[close[0]]!r}?" if close else ""


def _matches(clause: Clause, column: Array, known: Iterable[str] | None) -> NDArray[np.bool_]:
    if column.dtype.kind in "OU":
        if clause.operator in _OPERATORS:
            raise FilterError(f"{clause.field} is a text: only = and != compare it")
        words = np.unique(column.astype(str)) if known is None else np.unique(list(known))
        for value in clause.values:
            if value not in words:
                raise FilterError(f"no {clause.field} is {value!r}{_hint(value, words.tolist()[:20])}")
        found = np.isin(column.astype(str), clause.values)
    else:
        numbers = [_number(clause, value) for value in clause.values]
        if clause.operator in _OPERATORS:
            return np.asarray(_OPERATORS[clause.operator](column, numbers[0]))
        found = np.isin(column, numbers)
    return found if clause.operator == "=" else ~found


def _number(clause: Clause, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FilterError(f"{clause.field} is a number, {value!r} is none")
    return number


def _hint(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(known)}" if known else ""
