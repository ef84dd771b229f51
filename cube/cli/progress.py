"""Live progress on stderr: patches per second, megabytes per second, time left, rejected files."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_EVERY_SECONDS = 10.0
"""Between lines where stderr is no terminal."""


class Meter:
    """Counts patches as they are done. A terminal gets one line that changes, anything else a line now and then."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream, self._live = stream, stream.isatty()
        self.start("", 0)

    def start(self, what: str, patches: int) -> None:
        """Begin to count something new."""
        self._what, self._patches = what, patches
        self._started = self._printed = time.monotonic()
        self._done = self._resumed = self._bytes = self._rejected = 0

    def resume(self, patches: int) -> None:
        """Count the patches an earlier run has done; they tell nothing of this run's speed."""
        self._done = self._resumed = patches
        self._started = time.monotonic()

    def count(self, patches: int, size: int, rejected: int = 0) -> None:
        """Count patches, the bytes read for them, and rejected files."""
        self._done, self._bytes, self._rejected = self._done + patches, self._bytes + size, self._rejected + rejected
        now = time.monotonic()
        last = self._done >= self._patches
        if self._live or last or now - self._printed >= _EVERY_SECONDS:
            self._printed = now
            line = self._line(now - self._started)
            self._stream.write(f"\r{line:<100}{chr(10) if last else ''}" if self._live else line + "\n")
            self._stream.flush()

    def _line(self, seconds: float) -> str:
        rate = (self._done - self._resumed) / max(seconds, 1e-9)
        left = (self._patches - self._done) / max(rate, 1e-9)
        return (
            f"{self._what} {self._done:,} of {self._patches:,} patches · {rate:,.0f} patches/s · "
            f"{self._bytes / 1e6 / max(seconds, 1e-9):,.0f} MB/s · {duration(left)} left · {self._rejected} rejected"
        )


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it takes one."""
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def duration(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 90:
        return f"{seconds:.{1 if seconds < 9.95 else 0}f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def size(count: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" or count >= 100 else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
