"""A filter as it is written → its parts. One grammar, wherever patches are chosen. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cube.errors import FilterError

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
