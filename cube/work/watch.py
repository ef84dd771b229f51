"""What long work tells of itself while it runs."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Is told what is going on."""

    def start(self, what: str, patches: int) -> None:
        """Note that something begins, over so many patches."""

    def resume(self, patches: int) -> None:
        """Note the patches an earlier run has done."""

    def count(self, patches: int, size: int, rejected: int = 0) -> None:
        """Note patches done, bytes read for them and files that could not be used."""


class _Silent:
    def start(self, what: str, patches: int) -> None:
        """Take no note."""

    def resume(self, patches: int) -> None:
        """Take no note."""

    def count(self, patches: int, size: int, rejected: int = 0) -> None:
        """Take no note."""


SILENT = _Silent()
"""For work nobody watches."""
