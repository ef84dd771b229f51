"""What a store is: objects by key, read whole or in ranges, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing."""

    key: str
    """Path relative to the store, with ``/`` between its parts."""
    size: int
    """Bytes; -1 where there are none to tell of (a broken link, a pipe)."""
    stamp: str = ""
    """What changes when the object is written anew: its time, or its ETag."""
    modified: float = 0.0
    """Seconds since 1970 when it was last written; 0 where the listing could not tell."""


class Range(NamedTuple):
    """Some bytes of one object."""

    key: str
    start: int
    """Counted from the end where negative; ``stop`` is None then."""
    stop: int | None

    @property
    def length(self) -> int:
        """Bytes asked for; fewer are there where the object ends."""
        return -self.start if self.stop is None else self.stop - self.start


class Opened(Protocol):
    """Objects by key of which many parts are read, so that what is opened stays open. Raises as a store does."""

    def announce(self, ranges: list[Range]) -> None:
        """Say which ranges will be read soon, so that a disk can begin; nothing waits for it."""

    def read_into(self, key: str, start: int, out: memoryview) -> int:
        """Fill ``out`` with the bytes from ``start`` on and return how many there were; fewer only where the object ends."""


class Readable(Protocol):
    """Objects by key, to be read. Every method raises ``OSError`` (``FileNotFoundError`` for a missing key) when it fails."""

    @property
    def url(self) -> str:
        """Where the store lies."""

    @property
    def options(self) -> Mapping[str, Any]:
        """fsspec storage options. They may hold secrets: never print or keep them."""

    def child(self, name: str) -> Readable:
        """Return the store below ``name``."""

    def read(self, key: str) -> bytes:
        """Return a whole object."""

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop`` of an object."""

    def read_ranges(self, ranges: list[Range]) -> list[bytes]:
        """Return many ranges, in order, asked for together where the store allows it."""

    @property
    def near(self) -> bool:
        """Whether bytes are best read where they are used; elsewhere ranges are asked for together, and ahead."""

    def opened(self) -> AbstractContextManager[Opened]:
        """Return a context manager that gives what reads many parts of objects, from several threads."""

    def read_many(self, keys: list[str], most: int | None = None) -> Iterator[bytes | OSError]:
        """Yield each object, or the error that reading it raised, in order; one of more than ``most`` bytes is an error.

        A disk tells how long a file is before it is read.
        """

    def read_listed(self, entries: list[Entry]) -> Iterator[bytes | OSError]:
        """Yield objects as ``read_many`` does; what arrives from an object store must be what its listing said.

        That is the size and, where the stamp is an MD5, every bit. It is asked for again where it is not. A file on a disk
        that has grown since is an error, and not read.
        """

    def exists(self, key: str) -> bool:
        """Tell whether an object exists."""

    def answers(self) -> bool:
        """Tell whether the store itself can be listed."""

    def list(self, prefix: str = "") -> Iterable[Entry]:
        """Return every object under ``prefix``."""

    def entry(self, key: str) -> Entry:
        """Return one object as a listing tells of it."""

    def folders(self) -> Iterable[str]:
        """Return the names of the folders (parts of keys up to the next ``/``) right below; none if it is not there."""


class Store(Readable, Protocol):
    """Objects by key, to be read and written."""

    def child(self, name: str) -> Store:
        """Return the store below ``name``."""

    def write(self, key: str, data: bytes) -> None:
        """Write a whole object."""

    def write_new(self, key: str, data: bytes) -> bytes:
        """Write a whole object unless there is one already, as ``keep`` does; return what stands there then."""

    def writing(self, key: str) -> Any:
        """Return a context manager giving a file; the object appears when the block ends without an error."""

    def secure(self, keys: Iterable[str]) -> None:
        """Return only when these objects would outlast a loss of power; an object store says so by its answer already."""

    def keep(self, key: str, data: bytes) -> None:
        """Write a whole object that vouches for others, and return only when it would outlast a loss of power."""

    def replace(self, key: str, data: bytes, before: bytes) -> bool:
        """Write a whole object, as ``keep`` does, in place of ``before`` and of nothing else; tell whether that stood there.

        An object store that knows conditions compares and writes in one step; any other has a moment between the two.
        """

    def remove(self, key: str) -> None:
        """Remove an object."""

    def give_up_uploads(self, *, remove: bool) -> int:
        """Return how many uploads in parts somebody left unfinished, which an object store keeps; remove them if asked to."""
