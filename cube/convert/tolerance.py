"""How many bad files a build bears with, and what has become of those read so far. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from cube.errors import UnusableError
from cube.records.receipts import Receipt
from cube.source.rejected import Rejected

_NOT_BAD = ("wrong name", "incomplete", "duplicate")
"""Reasons that tell of names and patches, not of a file that cannot be used."""
CERTAIN = 20
"""Rejected files, and none that was not, by which it is certain that no other will do."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How many rejected files are borne with before a build stops: a share of those read, but at least a few."""

    share: float = 0.01
    least: int = CERTAIN

    def most(self, files: int) -> int:
        """Return the most of so many files."""
        return max(self.least, int(self.share * files))


TOLERANT = Tolerance()


class Outcome:
    """What has become of the files read so far."""

    def __init__(self, listed: Iterable[Rejected], *, grows: bool = False) -> None:
        """``listed`` was rejected before the build; what says nothing of a file's bytes does not count."""
        self._left = "the cube is as it was" if grows else "no cube was made"
        self.rejected = [[item.path, item.reason, item.detail] for item in listed if item.reason not in _NOT_BAD]
        self.files = len(self.rejected)
        self.used = False

    def add(self, receipt: Receipt) -> None:
        """Add what a batch says of its files."""
        self.files += receipt["files"]
        self.used = self.used or any(used for used, _ in receipt["tiles"].values())
        self.rejected += receipt["rejected"]

    def require_usable(self, least: int) -> None:
        """Raise ``UnusableError`` if no image was stored, and at least so many files were rejected."""
        if not self.used and len(self.rejected) >= least:
            raise UnusableError(
                f"nothing could be converted: no image was kept and {self._reasons()}. "
                f"Is it the right recipe, and are the files whole? Mend that and run again; {self._left}"
            )

    def require_borne(self, tolerance: Tolerance) -> None:
        """Raise ``UnusableError`` if more files were rejected than are borne with."""
        if len(self.rejected) > tolerance.most(self.files):
            raise UnusableError(
                f"too many files are bad: of {self.files:,} read, {self._reasons()}. Mend them and run again, or allow "
                f"more by --max-rejected (100% for any number); what is written stays, and {self._left} yet"
            )

    def _reasons(self) -> str:
        counts = Counter(reason for _, reason, _ in self.rejected).most_common()
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts)
        path, reason, detail = self.rejected[0]
        return f"{len(self.rejected):,} files were rejected ({reasons}), such as {path}: {reason}: {detail}"
