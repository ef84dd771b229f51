"""Errors of threads, raised where somebody waits for what they make."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class handing_to:  # noqa: N801 (a context manager reads as a verb)
    """Gives an error that ends the block to somebody else, who raises it, instead of raising it here."""

    def __init__(self, taker: Callable[[BaseException], None]) -> None:
        self._taker = taker

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if error is not None:
            self._taker(error)
        return True
