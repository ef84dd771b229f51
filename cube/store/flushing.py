"""On the disk, so that a loss of power takes nothing away: the bytes of files, and the names that lead to them."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any

_STREAMS = 8
"""Files that are flushed at the same time."""
_PIECE = 16 * 2**20
"""Bytes that are written before those of a large file are sent to the disk ahead of its end."""
_NAMED: set[str] = set()
"""Folders whose names, and those of all above, are on the disk as far as this process knows."""
_NO_FLUSH = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS)
"""Answers of a file system that does not flush folders."""


class AheadFile(io.BufferedWriter):
    """A new file whose bytes go to the disk while more are made, so that little is left to wait for when it is flushed."""

    def __init__(self, path: str) -> None:
        super().__init__(io.FileIO(path, "wb"), buffer_size=2**16)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cube-flush")
        self._flushed: Future[None] | None = None
        self._waiting = 0

    def write(self, data: Any) -> int:
        """Write bytes; those before them are sent to the disk where they have become many."""
        count = super().write(data)
        self._waiting += count
        if self._waiting >= _PIECE and (self._flushed is None or self._flushed.done()):
            self._answer()
            self.flush()
            self._waiting = 0
            self._flushed = self._pool.submit(os.fsync, self.fileno())
        return count

    def close(self) -> None:
        """Close the file; raises ``OSError`` if the disk could not take what was sent to it: it says so only once."""
        self._pool.shutdown()
        super().close()
        self._answer()

    def _answer(self) -> None:
        flushed, self._flushed = self._flushed, None
        if flushed:
            flushed.result()


def write_flushed(path: str, data: bytes, mode: str = "wb") -> None:
    """Write a whole file, and return when its bytes are on the disk."""
    with open(path, mode) as file:
        file.write(data)
        flush(file)


def flush(file: IO[bytes]) -> None:
    """Have the bytes of an open file on the disk."""
    file.flush()
    os.fsync(file.fileno())


def make_folder(path: str) -> None:
    """Make a folder and those above it, where they are missing."""
    if not os.path.isdir(path):
        make_folder(os.path.dirname(path))
        with suppress(FileExistsError):  # others make it, too
            os.mkdir(path)
        _NAMED.discard(path)


def flush_names(paths: Iterable[str]) -> None:
    """Flush the folders in which files have their names, and above them each folder that this process has not flushed yet."""
    folders = {os.path.dirname(path) for path in paths}
    above = {parent for folder in folders for parent in _unnamed(folder)}
    together(_flush_folder, sorted(folders | {os.path.dirname(folder) for folder in above}))
    _NAMED.update(above)


def _unnamed(folder: str) -> Iterator[str]:
    """Yield a folder and those above it whose own names may not be on the disk yet."""
    while folder not in _NAMED and not os.path.ismount(folder):
        yield folder
        folder = os.path.dirname(folder)


def together(flush: Callable[[str], None], paths: Sequence[str]) -> None:
    """Flush several files or folders at the same time: a disk writes its journal once for all that wait for it."""
    with ThreadPoolExecutor(min(_STREAMS, max(1, len(paths))), thread_name_prefix="cube-flush") as pool:
        for _ in pool.map(flush, paths):
            pass


def flush_file(path: str) -> None:
    """Have the bytes of a file on the disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else a pipe waits for a writer
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _flush_folder(path: str) -> None:
    """Have what a folder holds on the disk; nothing where that is no right of ours, or nothing the file system knows."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # far above the target: it stood before
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(folder)
