"""Memory that is used again: fresh pages cost as much as decoding what goes into them."""

from __future__ import annotations

import os
import weakref
from collections import defaultdict, deque
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_PAGE = 2 << 20
"""Bytes of a large page. NumPy asks the kernel for such pages where an array has some of them."""


def aligned_empty(size: int) -> Array:
    """Return (size) bytes with arbitrary contents; many begin with a large page."""
    if size < _PAGE:
        return np.empty(size, np.uint8)
    room = np.empty(size + _PAGE, np.uint8)
    start = -room.ctypes.data % _PAGE
    return room[start : start + size]


class Recycler:
    """Gives out arrays whose memory is used again as soon as nobody holds them."""

    def __init__(self, keep: int, most: int = 1 << 62) -> None:
        """Keep so many arrays of each size, and ``most`` bytes of all that nobody holds."""
        self._free: dict[int, deque[Array]] = defaultdict(lambda: deque(maxlen=keep))
        self._most = most

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array with arbitrary contents."""
        size = int(np.prod(shape)) * dtype.itemsize
        free = self._free[size]
        try:
            base = free.pop()
        except IndexError:
            base = aligned_empty(size)
        array: Array = np.frombuffer(base.data, dtype)
        weakref.finalize(array.base, self._take_back, base).atexit = False
        return array.reshape(shape)

    def _take_back(self, base: Array) -> None:
        if base.nbytes > self._most:
            return
        if sum(size * len(free) for size, free in list(self._free.items())) + base.nbytes > self._most:
            self._free.clear()  # they are of sizes that were asked for before
        self._free[base.nbytes].append(base)


class Workspace:
    """The memory that epochs of one loader use, one after the other, in one process."""

    def __init__(self, keep: int) -> None:
        self.recycler = Recycler(keep)
        self._rooms: dict[Hashable, Array] = {}

    def room(self, name: Hashable, size: int) -> Array:
        """Return (size) bytes for a purpose, as the last user of this name left them."""
        room = self._rooms.get(name)
        if room is None or room.nbytes < size:
            self._rooms.pop(name, None)
            room = self._rooms[name] = aligned_empty(size)
        return room[:size]


class Workspaces:
    """Workspaces that are free: two epochs that run at the same time never have the same one. Not pickled."""

    def __init__(self) -> None:
        self._pid, self._free = os.getpid(), list[Workspace]()

    def __reduce__(self) -> tuple[type[Workspaces], tuple[()]]:
        return Workspaces, ()

    def take(self, keep: int) -> Workspace:
        """Return a workspace for one epoch, whose recycler keeps so many arrays of a size."""
        if self._pid != os.getpid():  # what a parent process left belongs to it
            self._pid, self._free = os.getpid(), []
        try:
            return self._free.pop()
        except IndexError:
            return Workspace(keep)

    def give_back(self, workspace: Workspace) -> None:
        """Take a workspace back."""
        self._free.append(workspace)
