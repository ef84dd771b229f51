"""The grammar of ``--where``: ``(season in (summer, fall) or scene<=40) and not split=test``. Parsed, never evaluated."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import FilterError
from cube.format.layout import class_word
from cube.query.grammar import Clause, Every, Expression, clauses_of, parse

DATES = {"start_datetime": "start", "end_datetime": "end"}
"""Fields that are the first and the last day of a patch's season."""
MAIN_CLASS = "class"
"""The field that is the class which covers most of a patch, in one word; as column of the table, ``patchcube:class``."""
CLASS = "class:"
"""Begins the field that is a class's share of a patch's pixels, and the column it is kept in: ``class:LEGEND:word``."""
_LABEL = re.compile(r"labels?[0-9]+")
"""A field that is the label of a patch by its classes, such as ``label10``, or all of those it may have, ``labels10``."""
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Array = NDArray[Any]


def is_of_classes(field: str) -> bool:
    """Tell whether a field is told by the classes of a patch, which stand in the table of patches."""
    return field.startswith(CLASS) or field == MAIN_CLASS or _LABEL.fullmatch(field) is not None


def holds(expression: Expression, passes: Callable[[Clause], Any]) -> Any:
    """Return whether an expression holds where ``passes`` tells it of a comparison: truths, or arrays of them."""
    if isinstance(expression, Clause):
        return passes(expression)
    join = operator.and_ if isinstance(expression, Every) else operator.or_
    return reduce(join, (holds(part, passes) for part in expression.parts))


def select(text: str, fields: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Return which rows of ``fields`` (name → one value per row) a filter selects.

    Raises ``FilterError`` for an unknown field, or a value no row has or that is no number where one is needed.
    """
    expression = parse(text)
    check_fields(clauses_of(expression), fields)
    return matching(expression, fields, {})


def matching(expression: Expression, fields: Mapping[str, Array], known: Mapping[str, Iterable[str]]) -> NDArray[np.bool_]:
    """Return which rows pass a filter.

    ``known`` gives the values of texts, for fields of which only a part of all rows is there. Raises what :func:`select` does.
    """
    rows: NDArray[np.bool_] = holds(expression, lambda clause: _matches(clause, fields[clause.field], known.get(clause.field)))
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
    if clause.operator in ("null", "filled"):
        return np.asarray(_empty(column) == (clause.operator == "null"))
    if column.dtype.kind in "OU":
        if clause.operator in _OPERATORS:
            raise FilterError(f"{clause.field} is a text: only = and != compare it")
        words = np.unique(column.astype(str)) if known is None else np.unique(list(known))
        meant = {value: _like_words(_as_shown(clause.field, value), words) for value in clause.values}
        for value, alike in meant.items():
            if not alike:
                raise FilterError(f"no {clause.field} is {value!r}{_hint(value, words.tolist()[:20])}")
        found = np.isin(column.astype(str), [word for alike in meant.values() for word in alike])
    else:
        numbers: list[Any] = [(_date if column.dtype.kind == "M" else _number)(clause, value) for value in clause.values]
        if clause.operator in _OPERATORS:
            return np.asarray(_OPERATORS[clause.operator](column, numbers[0]))
        found = np.isin(column, numbers)
    return found if clause.operator == "=" else ~found


def _empty(column: Array) -> NDArray[np.bool_]:
    """Return where a column has no value: NaN, no date, or no text."""
    if column.dtype.kind in "OU":
        return np.array([value is None or value == "" for value in column.tolist()], bool)
    return np.asarray(column != column)  # noqa: PLR0124 (true of NaN and of no date alone)


def _like_words(value: str, words: NDArray[np.str_]) -> list[str]:
    """Return the words that a value means: itself, or all that fit where it has ``*`` or ``?`` in it."""
    if is_pattern(value):
        return [word for word in words.tolist() if fnmatchcase(word, value)]
    return [value] if value in words else []


def _as_shown(field: str, value: str) -> str:
    """Return the word of a class that is given by its title, as the page shows it."""
    return class_word(value) if field == MAIN_CLASS and not is_pattern(value) else value


def is_pattern(value: str) -> bool:
    """Tell whether a value stands for all texts of a form."""
    return "*" in value or "?" in value


def _date(clause: Clause, value: str) -> np.datetime64:
    try:
        return np.datetime64(date.fromisoformat(value), "D")
    except ValueError:
        raise FilterError(f"{clause.field} is a date, {value!r} is none: write one such as 2021-06-01") from None


def _number(clause: Clause, value: str) -> float:
    try:
        number = {"true": 1.0, "false": 0.0}.get(value.lower()) if value.isalpha() else None
        number = float(value) if number is None else number
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
