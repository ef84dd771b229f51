"""A store in a folder of this machine. Files are written aside and renamed, so that they appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from cube.store.protocol import Entry, Range

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""Answers of a file system that has no hard links."""
_NOT_OPENED = (errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP)
"""Answers where a socket, or a device without a driver, is opened."""
_STREAMS = 8
"""Files that are flushed at the same time."""
_NAMED: set[str] = set()
"""Folders whose names, and those of all above, are on the disk as far as this process knows."""
_NO_FLUSH = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS)
"""Answers of a file system that does not flush folders."""


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder."""

    root: str
    """Absolute path."""
    staging: str = ""
    """Folder on the same file system where unfinished files are written; beside each object where empty."""

    @property
    def url(self) -> str:
        return self.root

    @property
    def options(self) -> Mapping[str, Any]:
        return {}

    def child(self, name: str) -> LocalStore:
        return LocalStore(os.path.join(self.root, name), self.staging)

    def _path(self, key: str) -> str:
        return os.path.join(self.root, _inside(key))

    def read(self, key: str) -> bytes:
        with regular_file(self._path(key)) as (file, size):
            return _pread(file, size, Range(key, 0, size))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        with regular_file(self._path(key)) as (file, size):
            return _pread(file, size, Range(key, start, stop))

    def read_ranges(self, ranges: list[Range]) -> list[bytes]:
        parts = []
        for key, of_key in groupby(ranges, key=lambda item: item.key):
            with regular_file(self._path(key)) as (file, size):
                parts += [_pread(file, size, item) for item in of_key]
        return parts

    @property
    def near(self) -> bool:
        return True

    def announce(self, ranges: list[Range]) -> None:
        if sys.platform != "linux":
            return
        for key, of_key in groupby(ranges, key=lambda item: item.key):
            with regular_file(self._path(key)) as (file, _):
                for _, start, stop in of_key:
                    os.posix_fadvise(file, start, 0 if stop is None else stop - start, os.POSIX_FADV_WILLNEED)

    def read_into(self, key: str, start: int, out: memoryview) -> int:
        filled = 0
        with regular_file(self._path(key)) as (file, _):
            while filled < len(out) and (count := os.preadv(file, [out[filled:]], start + filled)):
                filled += count
        return filled

    def read_many(self, keys: list[str], most: int | None = None) -> Iterator[bytes | OSError]:
        for key in keys:
            try:
                yield self.read(key) if most is None else self._read_bounded(key, most)
            except OSError as error:
                yield error

    def read_listed(self, entries: list[Entry]) -> Iterator[bytes | OSError]:
        for entry in entries:
            try:
                yield self._read_bounded(entry.key, entry.size, "it was listed with; written anew since: run again")
            except OSError as error:
                yield error

    def _read_bounded(self, key: str, most: int | None, meaning: str = "any such file needs") -> bytes:
        with regular_file(self._path(key)) as (file, size):
            if most is not None and size > most:
                raise OSError(errno.EIO, f"has {size:,} bytes, more than the {most:,} {meaning}", key)
            return _pread(file, size, Range(key, 0, size))

    def write(self, key: str, data: bytes) -> None:
        with self.writing(key) as file:
            file.write(data)

    def write_new(self, key: str, data: bytes) -> bytes:
        with self._aside(self._path(key)) as (path, aside):
            _write_flushed(aside, data)
            try:
                _link(aside, path)
            except FileExistsError:
                return self.read(key)
        _flush_names([self._path(key)])
        return data

    @contextmanager
    def writing(self, key: str) -> Iterator[IO[bytes]]:
        with self._aside(self._path(key)) as (path, aside):
            with open(aside, "wb", buffering=2**16) as file:
                yield file
                if os.path.exists(path):  # what stands is never replaced by what a loss of power would leave empty
                    _flush(file)
            os.replace(aside, path)

    def secure(self, keys: Iterable[str]) -> None:
        paths = [self._path(key) for key in keys]
        _together(_flush_file, paths)
        _flush_names(paths)

    def keep(self, key: str, data: bytes) -> None:
        with self.writing(key) as file:
            file.write(data)
            _flush(file)
        _flush_names([self._path(key)])

    @contextmanager
    def _aside(self, path: str) -> Iterator[tuple[str, str]]:
        """Give a path and that of a file beside it, on the same file system, which is gone when the block ends."""
        _make_folder(os.path.dirname(path))
        aside = os.path.join(self.staging or os.path.dirname(path), f".{uuid4().hex}.partial")
        os.makedirs(os.path.dirname(aside), exist_ok=True)
        try:
            yield path, aside
        finally:
            Path(aside).unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        os.remove(self._path(key))

    def exists(self, key: str) -> bool:
        return os.path.isfile(self._path(key))

    def answers(self) -> bool:
        try:
            with os.scandir(self.root) as items:
                return next(items, None) is not None
        except OSError:
            return False

    def list(self, prefix: str = "") -> Iterator[Entry]:
        above: frozenset[tuple[int, int]] = frozenset()
        stack = [(os.path.join(self.root, prefix) if prefix else self.root, above)]
        skip = len(self.root.rstrip("/")) + 1
        while stack:
            folder, above = stack.pop()
            if not os.path.isdir(folder) or (here := _identity(folder)) in above:
                continue
            with os.scandir(folder) as items:
                for item in items:
                    if os.path.isdir(item.path) if item.is_symlink() else item.is_dir():
                        stack.append((item.path, above | {here}))
                    else:
                        yield Entry(item.path[skip:], *_facts(item))

    def folders(self) -> Iterator[str]:
        if os.path.isdir(self.root):
            with os.scandir(self.root) as items:
                yield from sorted(item.name for item in items if item.is_dir())

    def give_up_uploads(self, *, remove: bool) -> int:
        return 0


@contextmanager
def regular_file(path: str) -> Iterator[tuple[int, int]]:
    """Open a file for reading, and give its number and its size in bytes.

    Raises ``PermissionError`` for a pipe, a device and whatever else is no regular file: reading those may never end.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else a pipe waits for a writer
    except OSError as error:
        if error.errno in _NOT_OPENED:
            raise _irregular(path) from None
        raise
    try:
        info = os.fstat(file)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder, expected a file", path)
        if not stat.S_ISREG(info.st_mode):
            raise _irregular(path)
        yield file, info.st_size
    finally:
        os.close(file)


def _irregular(path: str) -> PermissionError:
    return PermissionError(errno.EPERM, "is no regular file but a pipe, a socket or a device, which is never read", path)


def _link(aside: str, path: str) -> None:
    """Give a whole file a second name; raises ``FileExistsError`` where the name is taken."""
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _write_flushed(path, Path(aside).read_bytes(), "xb")


def _write_flushed(path: str, data: bytes, mode: str = "wb") -> None:
    with open(path, mode) as file:
        file.write(data)
        _flush(file)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _make_folder(path: str) -> None:
    """Make a folder and those above it, where they are missing."""
    if not os.path.isdir(path):
        _make_folder(os.path.dirname(path))
        with suppress(FileExistsError):  # others make it, too
            os.mkdir(path)
        _NAMED.discard(path)


def _flush_names(paths: Iterable[str]) -> None:
    """Flush the folders in which files have their names, and above them each folder that this process has not flushed yet."""
    folders = {os.path.dirname(path) for path in paths}
    above = {parent for folder in folders for parent in _unnamed(folder)}
    _together(_flush_folder, sorted(folders | {os.path.dirname(folder) for folder in above}))
    _NAMED.update(above)


def _unnamed(folder: str) -> Iterator[str]:
    """Yield a folder and those above it whose own names may not be on the disk yet."""
    while folder not in _NAMED and not os.path.ismount(folder):
        yield folder
        folder = os.path.dirname(folder)


def _together(flush: Callable[[str], None], paths: Sequence[str]) -> None:
    """Flush several files or folders at the same time: a disk writes its journal once for all that wait for it."""
    with ThreadPoolExecutor(min(_STREAMS, max(1, len(paths))), thread_name_prefix="cube-flush") as pool:
        for _ in pool.map(flush, paths):
            pass


def _flush_file(path: str) -> None:
    with regular_file(path) as (file, _):
        os.fsync(file)


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


def _inside(key: str) -> str:
    """Return a key that stays in its store; keys may come from a listing or a cube that somebody else made."""
    if key.startswith("/") or ".." in key.split("/"):
        raise PermissionError(errno.EPERM, "the key leads out of its folder", key)
    return key


def _identity(folder: str) -> tuple[int, int]:
    """Return what is the same for a folder and every link to it: a link may lead back to where it lies."""
    info = os.stat(folder)
    return info.st_dev, info.st_ino


def _pread(file: int, size: int, part: Range) -> bytes:
    """Read a part of an open file of ``size`` bytes; fewer bytes only where the file ends."""
    start = part.start if part.stop is not None else max(0, size + part.start)
    left = min(size, size if part.stop is None else part.stop) - start
    pieces = []
    while left > 0 and (piece := os.pread(file, left, start)):
        pieces.append(piece)
        start, left = start + len(piece), left - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _facts(item: os.DirEntry[str]) -> tuple[int, str, float]:
    try:
        info = item.stat()
    except OSError:
        return -1, "", 0.0
    size = info.st_size if stat.S_ISREG(info.st_mode) else -1
    return size, str(info.st_mtime_ns), info.st_mtime
