"""What is not used of a source, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rejected:
    """One file or patch that is not used, and why."""

    path: str
    """Path relative to the source, or the id of a patch."""
    reason: str
    """One of a few fixed words: ``wrong name``, ``duplicate``, ``incomplete``, ``truncated``, …"""
    detail: str
    """What was seen and what was expected."""
