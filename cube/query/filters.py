"""The grammar of ``--where``: ``(season in (summer, fall) or scene<=40) and not split=test``. Parsed, never evaluated."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import FilterError

DATES = {"start_datetime": "start", "end_datetime": "end"}
"""Fields that are the first and the last day of a patch's season."""
MAIN_CLASS = "class"
"""The field that is the class which covers most of a patch, in one word; as column of the table, ``patchcube:class``."""
CLASS = "class:"
"""Begins the field that is a class's share of a patch's pixels, and the column it is kept in: ``class:LEGEND:word``."""
_FIELD = r'class:(?:\w+:)?(?:\w+|"[^"]*")|[A-Za-z_]\w*(?::\w+)?'
_SIGN = (
    r"\s*+(?P<operator><=|>=|!=|=|<|>)|\s++(?P<not>not\s++)?(?:(?P<listed>in\s*+\()|(?P<between>between\s))"
    r"|\s++is\s++(?P<filled>not\s++)?(?P<null>null)(?=[\s)]|$)"
)
_COMPARISON = re.compile(rf"(?P<field>{_FIELD})(?:{_SIGN})\s*+", re.IGNORECASE)
_BARE = r"""(?:\s++(?!(?:and|or)\s)|[^\s=<>!,()"'])*"""
_VALUE = re.compile(rf"""\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>{_BARE}))\s*""", re.IGNORECASE)
_WORD = re.compile(r"\s*(?:(and|or|not)(?=[\s(]|$)|([()]))", re.IGNORECASE)
_NEGATED = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">", "null": "filled", "filled": "null"}
_LONGEST, _DEEPEST = 20_000, 50
"""Characters of a filter, and parentheses within each other."""
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison of a field with one or more values; ``null`` and ``filled`` have none."""

    field: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Every:
    """Every part must hold."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One part must hold."""

    parts: tuple[Expression, ...]


Expression = Clause | Every | Either


def parse(text: str) -> Expression:
    """Return what a filter says, without ``not``: comparisons are turned round instead.

    Raises ``FilterError``, with the place, for anything that is no comparison, ``and``, ``or``, ``not`` or parenthesis.
    """
    if len(text) > _LONGEST:
        raise FilterError(f"the filter has {len(text):,} characters, more than {_LONGEST:,}")
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def whole(self) -> Expression:
        found = self._any()
        if self.text[self.at :].strip():
            raise self._unread()
        return found

    def _any(self) -> Expression:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _all(self) -> Expression:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _one(self) -> Expression:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise FilterError(f"more than {_DEEPEST} parentheses or nots stand within each other")
        if self._take("not"):
            found = _negated(self._one())
        elif self._take("("):
            found = self._any()
            if not self._take(")"):
                raise FilterError(f"a parenthesis is not closed before {self.text[self.at :].strip()[:40]!r}")
        else:
            found = self._comparison()
        self.depth -= 1
        return found

    def _take(self, word: str) -> bool:
        match = _WORD.match(self.text, self.at)
        if match is None or (match[1] or match[2]).lower() != word:
            return False
        self.at = match.end()
        return True

    def _comparison(self) -> Expression:
        begun = self.at
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        match = _COMPARISON.match(self.text, self.at)
        if match is None:
            raise self._unread(begun)
        self.at, field = match.end(), _field(match["field"])
        if match["null"]:
            return Clause(field, "filled" if match["filled"] else "null", ())
        if match["between"]:
            within = self._between(field, begun)
            return _negated(within) if match["not"] else within
        values = self._values(begun, listed=match["operator"] is None)
        operator_ = match["operator"] or ("!=" if match["not"] else "=")
        if operator_ not in ("=", "!=") and len(values) > 1:
            raise FilterError(f"{self.text[begun : self.at].strip()!r}: only = and != take several values")
        return Clause(field, operator_, values)

    def _between(self, field: str, begun: int) -> Expression:
        limits = [self._value()]
        if self._take("and"):
            limits.append(self._value())
        if len(limits) != 2 or "" in limits:
            raise self._unread(begun)
        return Every((Clause(field, ">=", (limits[0],)), Clause(field, "<=", (limits[1],))))

    def _value(self) -> str:
        match = _VALUE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        quoted = match["double"] if match["double"] is not None else match["single"]
        return quoted if quoted is not None else match["bare"].strip()

    def _values(self, begun: int, *, listed: bool) -> tuple[str, ...]:
        values = []
        while True:
            values.append(self._value())
            if not self.text.startswith(",", self.at):
                break
            self.at += 1
        if values == [""] or (listed and not self._take(")")):
            raise self._unread(begun)
        return tuple(values)

    def _unread(self, begun: int | None = None) -> FilterError:
        rest = self.text[self.at if begun is None else begun :].strip()
        return FilterError(f"cannot read {rest!r}: expected field, operator and value, such as scene<=40")


def _field(name: str) -> str:
    """Return a field as columns are named: the name of a class, in quotes, as the words that stand for it."""
    lead, quote, title = name.partition('"')
    return lead + re.sub(r"[^0-9A-Za-z]+", "_", title).strip("_").lower() if quote else name


def _negated(expression: Expression) -> Expression:
    if isinstance(expression, Clause):
        turned = _NEGATED[expression.operator]
        return Clause(expression.field, turned, expression.values)
    parts = tuple(_negated(part) for part in expression.parts)
    return Either(parts) if isinstance(expression, Every) else Every(parts)


def clauses_of(expression: Expression) -> tuple[Clause, ...]:
    """Return all comparisons of an expression."""
    if isinstance(expression, Clause):
        return (expression,)
    return tuple(clause for part in expression.parts for clause in clauses_of(part))


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
        meant = {value: _like_words(value, words) for value in clause.values}
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
