"""What an epoch has cost so far, and what limits it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """Seconds and amounts of one epoch so far."""

    batches: int = 0
    tiles: int = 0
    """Tiles decoded."""
    again: int = 0
    """Those among them that had been decoded before, and were dropped for lack of memory."""
    requests: int = 0
    bytes: int = 0
    """Bytes fetched."""
    fetching: float = 0.0
    """Seconds that requests took, added up; many run at a time."""
    assembling: float = 0.0
    """Seconds spent decoding and copying, by each of the threads."""
    starved: float = 0.0
    """Seconds that each of the threads waited for bytes."""
    waiting: float = 0.0
    """Seconds the consumer waited for a batch."""
    consuming: float = 0.0
    """Seconds the consumer spent between batches."""

    @property
    def limit(self) -> str:
        """What limits the speed: ``consumer``, ``fetch`` or ``decode``."""
        if self.waiting <= 0.1 * (self.waiting + self.consuming):
            return "consumer"
        return "fetch" if self.starved > self.assembling else "decode"
