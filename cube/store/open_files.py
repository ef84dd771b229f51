"""Files of a folder that are kept open while many parts of them are read: opening costs as much as reading a small part."""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby

from cube.store.protocol import Range

LIMIT = 256
"""Files that are kept open at a time; systems allow a process about a thousand."""


class OpenFiles:
    """Reads parts of files from several threads; the least recently used are closed beyond a number."""

    def __init__(self, open_file: Callable[[str], int], limit: int = LIMIT) -> None:
        """Read files that ``open_file`` opens by key; it returns their number and raises what opening raises."""
        self._open, self._limit = open_file, limit
        self._files: OrderedDict[str, list[int]] = OrderedDict()
        """Key → the number of the file, and how many read it at this moment."""
        self._lock = threading.Lock()

    def read_into(self, key: str, start: int, out: memoryview) -> int:
        """Fill ``out`` with the bytes from ``start`` on and return how many there were; fewer only where the file ends."""
        filled = 0
        with self._used(key) as file:
            while filled < len(out) and (count := os.preadv(file, [out[filled:]], start + filled)):
                filled += count
        return filled

    def announce(self, ranges: list[Range]) -> None:
        """Tell the disk which ranges will be read soon."""
        if sys.platform != "linux":
            return
        for key, of_key in groupby(ranges, key=lambda item: item.key):
            with self._used(key) as file:
                for _, start, stop in of_key:
                    os.posix_fadvise(file, start, 0 if stop is None else stop - start, os.POSIX_FADV_WILLNEED)

    @contextmanager
    def _used(self, key: str) -> Iterator[int]:
        with self._lock:
            if key not in self._files:
                self._files[key] = [self._open(key), 0]
            self._files.move_to_end(key)
            entry = self._files[key]
            entry[1] += 1
        try:
            yield entry[0]
        finally:
            with self._lock:
                entry[1] -= 1
                if len(self._files) > self._limit:
                    self._close(self._limit)

    def _close(self, most: int) -> None:
        """Close files that nobody reads, until ``most`` are open."""
        for key in [key for key, (_, users) in self._files.items() if not users][: max(0, len(self._files) - most)]:
            os.close(self._files.pop(key)[0])

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            self._close(0)
