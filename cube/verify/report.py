"""What a verification saw: named checks, each with what was expected and every finding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    check: str
    where: str
    """Object key or patch id."""
    what: str


@dataclass(frozen=True, slots=True)
class Check:
    """One named check."""

    name: str
    seen: str
    """What was looked at, with counts."""
    findings: tuple[Finding, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.findings


@dataclass(frozen=True)
class Report:
    """All checks of one verification."""

    url: str
    checks: tuple[Check, ...]
    damaged: tuple[int, ...] = ()
    """Batches in which something was found wrong."""
    objects: int = 0
    """Objects listed."""
    stored_bytes: int = 0
    """Their bytes."""

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def findings(self) -> list[Finding]:
        """Every finding of every check."""
        return [finding for check in self.checks for finding in check.findings]

    def document(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "url": self.url,
            "passed": self.passed,
            "checks": [
                {
                    "name": check.name,
                    "passed": check.passed,
                    "seen": check.seen,
                    "findings": [{"where": finding.where, "what": finding.what} for finding in check.findings],
                }
                for check in self.checks
            ],
        }


def gather(names: dict[str, str], findings: Iterable[Finding]) -> tuple[Check, ...]:
    """Sort findings into checks; ``names`` gives every check that was made and what it looked at."""
    sorted_out: dict[str, list[Finding]] = {name: [] for name in names}
    for finding in findings:
        sorted_out[finding.check].append(finding)
    return tuple(
        Check(name, seen, tuple(sorted(sorted_out[name], key=lambda item: (item.where, item.what))))
        for name, seen in names.items()
    )
