"""Live progress on stderr: patches per second, megabytes per second, time left, rejected files."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from cube.worker import Receipt

_EVERY_SECONDS = 10.0
"""Between lines where stderr is no terminal."""


class Meter:
    """Counts receipts as they come in. A terminal gets one line that changes, anything else a line now and then."""

    def __init__(self, patches: int, stream: TextIO = sys.stderr) -> None:
        self._patches, self._stream = patches, stream
        self._live = stream.isatty()
        self._started = self._printed = time.monotonic()
        self._done = self._resumed = self._bytes = self._rejected = 0

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live and self._done:
            self._stream.write("\n")

    def resume(self, patches: int) -> None:
        """Count the patches an earlier run has written; they tell nothing of this run's speed."""
        self._done = self._resumed = patches
        self._started = time.monotonic()

    def advance(self, receipt: Receipt) -> None:
        """Count one finished batch."""
        self._done += receipt["stop"] - receipt["start"]
        self._bytes += receipt["bytes_in"]
        self._rejected += len(receipt["rejected"])
        now = time.monotonic()
        if self._live or now - self._printed >= _EVERY_SECONDS or self._done == self._patches:
            self._printed = now
            self._write(self._line(now - self._started))

    def say(self, text: str) -> None:
        """Show what happens now."""
        self._stream.write(f"{chr(10) if self._live else ''}{text} …\n")
        self._stream.flush()

    def _line(self, seconds: float) -> str:
        rate = (self._done - self._resumed) / max(seconds, 1e-9)
        left = (self._patches - self._done) / max(rate, 1e-9)
        return (
            f"{self._done:,} of {self._patches:,} patches · {rate:,.0f} patches/s · "
            f"{self._bytes / 1e6 / max(seconds, 1e-9):,.0f} MB/s · {duration(left)} left · {self._rejected} rejected"
        )

    def _write(self, line: str) -> None:
        self._stream.write(f"\r{line:<100}" if self._live else line + "\n")
        self._stream.flush()


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
