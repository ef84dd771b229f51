"""A machine that loses power: files and names that were not flushed may be empty, cut, old or gone afterwards.

What happens to a folder is followed through the calls by which ``cube.store.local`` changes it. At a given one of them the
power fails; ``after`` then leaves on the disk what a file system may leave: all that was flushed, and of the rest anything.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_LINK = os.link


class PowerLossError(BaseException):
    """The power failed. Nobody can handle that, so it is no ``Exception``."""


@dataclass
class Disk:
    """What is known to be on the disk below a folder."""

    folder: Path
    keeping: Path
    """Where files that lost their name are kept, on the same file system."""
    fails_at: int | None = None
    """Number of the call before which the power fails."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Every call so far: what it did, and the path below the folder."""
    flushed: set[int] = field(default_factory=set)
    """Files whose bytes are on the disk, by inode."""
    names: dict[str, dict[str, int]] = field(default_factory=dict)
    """Folder → the names in it that are on the disk, and the inode of each."""
    watch: Callable[[str, str], None] = lambda what, path: None
    """Is told of every call before it is made."""

    def boot(self) -> None:
        """Take what is there for what is on the disk."""
        for path, _, _ in os.walk(self.folder):
            self._note(path)
            self.flushed |= {item.inode() for item in os.scandir(path)}

    def _note(self, path: str) -> None:
        with os.scandir(path) as items:
            self.names[path] = {item.name: item.inode() for item in items}
        for name in self.names[path]:
            self.keep(os.path.join(path, name))

    def call(self, what: str, path: str) -> None:
        """Take note of a call that is about to be made; from where the power fails on, none is made any more."""
        if self._mine(path):
            if self.fails_at is not None and self.fails_at <= len(self.calls):
                raise PowerLossError
            short = os.path.relpath(path, self.folder)
            self.watch(what, short)
            self.calls.append((what, short))

    def secure(self, path: Path) -> bool:
        """Tell whether the bytes of a file and every name that leads to it are on the disk."""
        whole = path.stat().st_ino in self.flushed
        while whole and path != self.folder:
            whole = self.names.get(str(path.parent), {}).get(path.name) == path.stat().st_ino
            path = path.parent
        return whole

    def keep(self, path: str) -> None:
        """Keep the bytes of a file that is about to lose its name."""
        if self._mine(path) and os.path.isfile(path):
            kept = self.keeping / str(os.stat(path).st_ino)
            if not kept.exists():
                _LINK(path, kept)

    def flush(self, number: int) -> None:
        """Note that a file, or the names in a folder, are on the disk."""
        path = os.readlink(f"/proc/self/fd/{number}")
        if not self._mine(path):
            return
        if os.path.isdir(path):
            self._note(path)
        else:
            self.keep(path)  # its inode is given to no other file
            self.flushed.add(os.fstat(number).st_ino)

    def after(self, rng: random.Random) -> None:
        """Leave on the disk what a loss of power may leave."""
        self._restore(str(self.folder), rng)

    def _restore(self, folder: str, rng: random.Random) -> None:
        certain = self.names.get(folder, {})
        now = {item.name: item.inode() for item in os.scandir(folder)}
        for name in sorted(certain.keys() | now.keys()):
            path = os.path.join(folder, name)
            if certain.get(name) == now.get(name) or rng.random() < 0.5:
                if name in now and os.path.isdir(path):
                    self._restore(path, rng)
                elif name in now:
                    self._damage(path, rng)
                continue
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif name in now:
                os.remove(path)
            if name in certain and (kept := self.keeping / str(certain[name])).exists():
                shutil.copyfile(kept, path)
                if certain[name] not in self.flushed:
                    _cut(path, rng)

    def _damage(self, path: str, rng: random.Random) -> None:
        if os.stat(path).st_ino not in self.flushed and rng.random() < 0.8:
            _cut(path, rng)

    def _mine(self, path: str) -> bool:
        return os.path.abspath(path).startswith(str(self.folder))


def _cut(path: str, rng: random.Random) -> None:
    """Leave a file empty, cut, or full of zeros: its length may be on the disk before its bytes are."""
    size = os.path.getsize(path)
    kind = rng.choice(("empty", "cut", "zeros"))
    os.truncate(path, 0 if kind == "zeros" else rng.randrange(size + 1) if kind == "cut" else 0)
    if kind == "zeros":
        os.truncate(path, size)


@contextmanager
def watched(folder: Path, keeping: Path, fails_at: int | None = None) -> Iterator[Disk]:
    """Follow what this process does to a folder until the block ends, or the power fails at one of its calls."""
    keeping.mkdir(parents=True)
    disk = Disk(folder, keeping, fails_at)
    disk.boot()
    with pytest.MonkeyPatch.context() as patch:
        _hook(patch, disk, "replace", at=1)
        _hook(patch, disk, "link", at=1)
        _hook(patch, disk, "remove", at=0)
        _hook(patch, disk, "unlink", at=0)
        flush = os.fsync

        def fsync(file: Any) -> None:
            number = file if isinstance(file, int) else file.fileno()
            disk.call("asks to flush", os.readlink(f"/proc/self/fd/{number}"))
            flush(number)
            disk.flush(number)

        patch.setattr(os, "fsync", fsync)
        yield disk


def _hook(patch: pytest.MonkeyPatch, disk: Disk, name: str, *, at: int) -> None:
    plain: Callable[..., Any] = getattr(os, name)

    def hooked(*paths: Any) -> None:
        disk.call(name, os.fspath(paths[at]))
        disk.keep(os.fspath(paths[at]))
        plain(*paths)

    patch.setattr(os, name, hooked)
