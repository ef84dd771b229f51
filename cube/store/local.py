"""A store in a folder of this machine. Files are written aside and renamed, so that they appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from cube.store.flushing import AheadFile, flush, flush_file, flush_names, make_folder, together, write_flushed
from cube.store.open_files import OpenFiles
from cube.store.protocol import Entry, Range

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""Answers of a file system that has no hard links."""
_NOT_OPENED = (errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP)
"""Answers where a socket, or a device without a driver, is opened."""


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder."""

    root: str
    """Absolute path."""
    staging: str = ""
    """Folder on the same file system where unfinished files are written; beside each object where empty."""
    flushed: bool = True
    """Wait until the disk has what must outlast a loss of power."""

    @property
    def url(self) -> str:
        return self.root

    @property
    def options(self) -> Mapping[str, Any]:
        return {}

    def child(self, name: str) -> LocalStore:
        return replace(self, root=os.path.join(self.root, name))

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

    @contextmanager
    def opened(self) -> Iterator[OpenFiles]:
        with closing(OpenFiles(self._opened)) as files:
            yield files

    def _opened(self, key: str) -> int:
        return open_regular(self._path(key))[0]

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
            write_flushed(aside, data)
            try:
                _link(aside, path)
            except FileExistsError:
                return self.read(key)
        flush_names([self._path(key)])
        return data

    @contextmanager
    def writing(self, key: str) -> Iterator[IO[bytes]]:
        with self._aside(self._path(key)) as (path, aside):
            with AheadFile(aside) if self.flushed else open(aside, "wb", buffering=2**16) as file:
                yield file
                if self.flushed and os.path.exists(path):  # else a loss of power could replace it by nothing
                    flush(file)
            os.replace(aside, path)

    def secure(self, keys: Iterable[str]) -> None:
        paths = [self._path(key) for key in keys] if self.flushed else []
        together(flush_file, paths)
        flush_names(paths)

    def keep(self, key: str, data: bytes) -> None:
        with self.writing(key) as file:
            file.write(data)
            if self.flushed:
                flush(file)
        flush_names([self._path(key)] if self.flushed else [])

    def replace(self, key: str, data: bytes, before: bytes) -> bool:
        if self.read(key) != before:
            return False
        self.keep(key, data)
        return True

    @contextmanager
    def _aside(self, path: str) -> Iterator[tuple[str, str]]:
        """Give a path and that of a file beside it, on the same file system, which is gone when the block ends."""
        make_folder(os.path.dirname(path))
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

    def entry(self, key: str) -> Entry:
        info = os.stat(self._path(key))
        return Entry(key, *_told(info))

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
    file, size = open_regular(path)
    try:
        yield file, size
    finally:
        os.close(file)


def open_regular(path: str) -> tuple[int, int]:
    """Open a file for reading, and return its number and its size in bytes. Raises as :func:`regular_file` does."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else a pipe waits for a writer
    except OSError as error:
        if error.errno in _NOT_OPENED:
            raise _irregular(path) from None
        raise
    with ExitStack() as unless_regular:
        unless_regular.callback(os.close, file)
        info = os.fstat(file)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder, expected a file", path)
        if not stat.S_ISREG(info.st_mode):
            raise _irregular(path)
        unless_regular.pop_all()
    return file, info.st_size


def _irregular(path: str) -> PermissionError:
    return PermissionError(errno.EPERM, "is no regular file but a pipe, a socket or a device, which is never read", path)


def _link(aside: str, path: str) -> None:
    """Give a whole file a second name; raises ``FileExistsError`` where the name is taken."""
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        write_flushed(path, Path(aside).read_bytes(), "xb")


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
    return _told(info)


def _told(info: os.stat_result) -> tuple[int, str, float]:
    size = info.st_size if stat.S_ISREG(info.st_mode) else -1
    return size, str(info.st_mtime_ns), info.st_mtime
