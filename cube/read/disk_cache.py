"""Stored tiles kept on a disk of this machine, so that what was fetched once from a far store is not fetched again.

Each shard is a file with holes, in which tiles lie where they lie in the shard, and a journal of those that are there. Several
processes may share a folder: equal tiles are the same bytes, a tile is in the journal only once it is in the file, and a file
that one process removes stays whole for those that have it open. Every tile's checksum is checked when it is decoded, wherever
it comes from.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from cube.errors import RequestError

LIMIT = 100 << 30
"""Bytes that a folder may take by default."""
_OPEN = 128
"""Shards that are open at a time; each has two files."""
_LOOK = 1 << 30
"""Bytes kept after which a process looks how full the folder is; a sixteenth of the limit where that is less."""
_FRESH = 60.0
"""Seconds after which a shard that is used is marked as used."""
_ENTRY = struct.Struct("<QQ")


@dataclass
class _Shard:
    """The part of a shard that is here, as this process has opened it."""

    data: int
    journal: int
    """Numbers of the open files."""
    held: dict[int, int]
    """Offset → length of the tiles that are there."""
    users: int = 0
    marked: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        os.close(self.data)
        os.close(self.journal)


class DiskCache:
    """Tiles of one cube in a folder that other cubes and processes may share, bounded in bytes.

    Shards that were used least recently leave first. Raises ``RequestError`` for a folder that cannot be written.
    """

    def __init__(self, folder: str | Path, cube: str, limit: int = LIMIT) -> None:
        """Keep tiles of the cube that ``cube`` names in all its words: its URL and the digest of what is in it."""
        self.folder, self.limit, self._cube = Path(folder).absolute(), limit, cube
        try:
            self._home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"cache={folder}: {error.strerror}; name a folder that can be written") from None
        self._reset()
        self._make_room()

    def __reduce__(self) -> tuple[type[DiskCache], tuple[Any, ...]]:
        return DiskCache, (self.folder, self._cube, self.limit)

    def _reset(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._written = 0
        self._full = False

    @property
    def _home(self) -> Path:
        return self.folder / blake3(self._cube.encode()).hexdigest()[:32]

    def tile(self, key: str, offset: int, length: int) -> bytes | None:
        """Return a stored tile of a shard, or None where it is not here."""
        return self._read(key, offset, length)

    def tail(self, key: str, length: int) -> bytes | None:
        """Return the index of a shard, its last bytes, or None where it is not here."""
        return self._read(f"{key}.index", 0, length)

    def keep(self, key: str, tiles: Iterable[tuple[int, Any]], *, again: bool = False) -> None:
        """Keep stored tiles of a shard, given with their offsets; those that are there only ``again``, for they are damaged.

        A disk that is full is told of once, and nothing more is kept.
        """
        if self._full:
            return
        try:
            self._keep(key, tiles, again)
        except OSError as error:
            if not self._is_full():
                warnings.warn(f"nothing more is kept in cache={self.folder}: {error.strerror}", stacklevel=2)

    def _is_full(self) -> bool:
        """Note that the disk is full, and tell whether that was known."""
        with self._lock:
            known, self._full = self._full, True
            return known

    def keep_tail(self, key: str, data: bytes) -> None:
        """Keep the index of a shard."""
        self.keep(f"{key}.index", [(0, data)])

    def _read(self, key: str, offset: int, length: int) -> bytes | None:
        shard = self._enter(key, make=False)
        if shard is None:
            return None
        try:
            if shard.held.get(offset) != length:
                return None
            data = os.pread(shard.data, length, offset)
            if len(data) == length:
                return data
            shard.held.pop(offset, None)  # the file was cut short
            return None
        finally:
            self._leave(shard)

    def _keep(self, key: str, tiles: Iterable[tuple[int, Any]], again: bool) -> None:
        shard = self._enter(key, make=True)
        assert shard is not None
        try:
            new = [(offset, data) for offset, data in tiles if again or shard.held.get(offset) != len(data)]
            for offset, data in new:
                _write(shard.data, data, offset)
            if new:
                os.write(shard.journal, b"".join(_ENTRY.pack(offset, len(data)) for offset, data in new))
                shard.held.update((offset, len(data)) for offset, data in new)
        finally:
            self._leave(shard)
        with self._lock:
            self._written += sum(len(data) for _, data in new)
            look = self._written >= min(_LOOK, self.limit // 16)
            self._written = 0 if look else self._written
        if look:
            self._make_room()

    def _enter(self, key: str, *, make: bool) -> _Shard | None:
        """Return a shard that is open until it is left."""
        if self._pid != os.getpid():  # a fork: the files are the parent's
            self._reset()
        with self._lock:
            shard = self._shards.get(key)
            if shard is None:
                shard = self._opened(key, make=make)
                if shard is None:
                    return None
                self._shards[key] = shard
            self._shards.move_to_end(key)
            shard.users += 1
            if time.monotonic() - shard.marked > _FRESH:
                shard.marked = time.monotonic()
                os.utime(shard.journal)
            return shard

    def _leave(self, shard: _Shard) -> None:
        with self._lock:
            shard.users -= 1
            if len(self._shards) > _OPEN:
                for key in [key for key, item in self._shards.items() if not item.users][: len(self._shards) - _OPEN]:
                    self._shards.pop(key).close()

    def _opened(self, key: str, *, make: bool) -> _Shard | None:
        path = self._home / key.replace("/", "_")
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0)
        try:
            journal = os.open(path.with_name(f"{path.name}.have"), flags | os.O_APPEND, 0o666)
        except FileNotFoundError:
            return None
        try:
            if make and not path.exists():  # whatever the journal says of it is gone
                os.ftruncate(journal, 0)
            data = os.open(path, flags, 0o666)
        except OSError:
            os.close(journal)
            if make:
                raise
            return None
        size = os.fstat(journal).st_size
        if torn := size % _ENTRY.size:  # the machine stopped while it was written
            os.ftruncate(journal, size - torn)
        return _Shard(data, journal, dict(_ENTRY.iter_unpack(os.pread(journal, size - torn, 0))))

    def _make_room(self) -> None:
        """Remove the shards that were used least recently until the folder takes no more than it may."""
        found = []
        for path in self.folder.glob("*/*.have"):
            with suppress(FileNotFoundError):  # another process removes as well
                used, taken = path.stat(), path.with_suffix("").stat()
                found.append((used.st_mtime, taken.st_blocks * 512 + used.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                return
            for name in (path, path.with_suffix("")):  # the journal first: without it nothing is looked for
                name.unlink(missing_ok=True)
            total -= size
            self._forget(path.name.removesuffix(".have"))

    def _forget(self, name: str) -> None:
        """Let go of a shard that was removed, so that what is kept of it next goes into a new file."""
        with self._lock:
            for key in [key for key in self._shards if key.replace("/", "_") == name and not self._shards[key].users]:
                self._shards.pop(key).close()


def _write(file: int, data: Any, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count
