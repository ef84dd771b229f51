"""What threads hand to each other: items in a bounded queue, errors, and memory that is used again."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict, deque
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Item = TypeVar("Item")


class Closed(Exception):
    """The other side has stopped."""


class Channel(Generic[Item]):
    """A queue from one thread to another that either may close; ``room`` bounds it."""

    def __init__(self, room: int | None) -> None:
        self._room, self._items = room, deque[Item]()
        self._closed = self._ended = False
        self._error: BaseException | None = None
        self._change = threading.Condition()

    def put(self, item: Item) -> None:
        """Add an item, waiting for room. Raises ``Closed``."""
        with self._change:
            self._change.wait_for(lambda: self._closed or self._room is None or len(self._items) < self._room)
            if self._closed:
                raise Closed
            self._items.append(item)
            self._change.notify_all()

    def get(self) -> Item | None:
        """Return the oldest item, waiting for one, or None at the end. Raises what ended it early, or ``Closed``."""
        with self._change:
            self._change.wait_for(lambda: self._closed or self._ended or bool(self._items))
            if self._closed:
                raise Closed
            if self._items:
                item = self._items.popleft()
                self._change.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    def end(self, error: BaseException | None) -> None:
        """Tell the other side that nothing follows, and why if that is an error."""
        with self._change:
            self._ended, self._error = True, error
            self._change.notify_all()

    def close(self) -> None:
        """Wake and stop both sides; what is left is dropped."""
        with self._change:
            self._closed = True
            self._items.clear()
            self._change.notify_all()


class handing_on:  # noqa: N801 (a context manager reads as a verb)
    """Ends a channel with the block; an error of the block is raised where the channel is read, not here."""

    def __init__(self, channel: Channel[Any]) -> None:
        self._channel = channel

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self._channel.end(None if isinstance(error, Closed) else error)
        return True


class Recycler:
    """Gives out arrays whose memory is used again as soon as nobody holds them: fresh pages cost as much as decoding."""

    def __init__(self, keep: int) -> None:
        self._free: dict[int, deque[Array]] = defaultdict(lambda: deque(maxlen=keep))

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return an array with arbitrary contents."""
        size = int(np.prod(shape)) * dtype.itemsize
        free = self._free[size]
        try:
            base = free.pop()
        except IndexError:
            base = np.empty(size, np.uint8)
        array: Array = np.frombuffer(base.data, dtype)
        weakref.finalize(array.base, free.append, base).atexit = False
        return array.reshape(shape)
