"""What the files of a build say about their pixels beside them, counted as its receipts pass by. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from cube.records.receipts import Receipt
from cube.source.statements import Statements, statement_attributes


class Said:
    """What the files of a build say about their pixels, counted as the receipts pass by."""

    def __init__(self, names: Iterable[str]) -> None:
        self.counts: dict[str, Counter[Statements]] = {name: Counter() for name in names}

    def heard(self, receipts: Iterable[Receipt]) -> Iterator[Receipt]:
        """Pass receipts by, and count what they say."""
        for receipt in receipts:
            add_statements(self.counts, receipt)
            yield receipt

    def attributes(self, name: str) -> dict[str, Any]:
        """Return what all files of a modality say."""
        counts = self.counts.get(name, Counter())
        return statement_attributes(next(iter(counts))) if len(counts) == 1 else {}


def add_statements(counts: dict[str, Counter[Statements]], receipt: Receipt) -> None:
    """Add what the files of a batch say about their pixels."""
    for name, items in receipt["statements"].items():
        for said, count in items:
            counts[name][tuple((word, tuple(value) if isinstance(value, list) else value) for word, value in said)] += count
