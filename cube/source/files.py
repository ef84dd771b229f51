"""The files of a source: in folders, in an object store, and in archives among them, which are never unpacked."""

from __future__ import annotations

import errno
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from io import BufferedReader
from typing import Any, Protocol

from cube.errors import RequestError, StorageError
from cube.source.gzip_index import ObjectFile, index_key, make_index, read_index, read_window
from cube.source.inflate import Inflating, inflated
from cube.source.members import Listing, Member, kind_of, tar_listing, unreadable_archive, zip_listing, zipped
from cube.source.rejected import Rejected
from cube.store.local import LocalStore
from cube.store.protocol import Entry, Range, Readable, Store
from cube.store.urls import is_local, open_store

INDEXES = "archives"
"""Folder of the build records where the indexes of archives are kept."""
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Answers of a place where nothing may be written."""
_BUFFER = 2**16
"""Bytes that are read at a time where only headers are wanted."""


class Source(Protocol):
    """Patch files by their paths: all that comes after it knows no other way to them. A part of it travels to workers."""

    @property
    def url(self) -> str:
        """Where the files lie."""

    def listed(self) -> Iterator[Entry | Rejected]:
        """Yield every file, and what is no file that can be read; nothing is decoded."""

    def part(self, paths: Iterable[str]) -> Source:
        """Return what reads these paths and travels to a worker; the source has been listed before."""

    def read_listed(self, entries: list[Entry]) -> Iterator[bytes | OSError]:
        """Yield whole files, or the error that reading one raised, in order; see ``Store.read_listed``."""

    def read_many(self, paths: list[str], most: int | None = None) -> Iterator[bytes | OSError]:
        """Yield whole files by their paths; see ``Store.read_many``."""

    def answers(self) -> bool:
        """Tell whether the source can be listed."""

    @property
    def remark(self) -> str:
        """What is to be known about the way to the files once they were listed; an empty text where nothing is."""


def open_source(
    url: str,
    options: Mapping[str, Any] | None = None,
    *,
    indexes: Store | None = None,
    ignored: Callable[[str], bool] = lambda _: False,
    say: Callable[[str], None] = lambda _: None,
) -> Files:
    """Return the source at a folder, a prefix or one archive, reached by fsspec ``options``; nothing is read yet.

    ``indexes`` keeps what inflating an archive once has told; a temporary folder does where it is None. ``ignored`` tells
    which archives are none of the data, and ``say`` is told what takes long.

    Raises ``RequestError`` if there is no such folder.
    """
    if kind_of(url) and not (is_local(url) and os.path.isdir(url.removeprefix("file://"))):
        folder, _, name = url.rpartition("/")
        store, only = open_store(folder or ("/" if url.startswith("/") else "."), options=options), name
    else:
        store, only = open_store(url, options=options), ""
    if (said := unreadable_archive(url)) and not (is_local(url) and os.path.isdir(store.url)):
        raise RequestError(f"{url}: {said}")
    if is_local(url) and not os.path.exists(os.path.join(store.url, only) if only else store.url):
        raise RequestError(f"{url}: no such {'file' if only else 'folder'}")
    if is_local(url) and not only and not os.path.isdir(store.url):
        raise RequestError(f"{url}: no such folder, and no archive that can be read in place")
    return Files(store, only, indexes=indexes, ignored=ignored, say=say)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that is gone when the process ends."""
    return tempfile.TemporaryDirectory(prefix="cube-archives-")


class Files:
    """Files of a store and of the archives in it. A file has the path it would have if its archive were unpacked where it lies.

    A file that lies there, too, is used in place of the archive's, unless it is shorter: then it was not unpacked whole.
    """

    def __init__(
        self,
        store: Readable,
        only: str = "",
        *,
        indexes: Store | None = None,
        ignored: Callable[[str], bool] = lambda _: False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store, self.only = store, only
        self.members: dict[str, Member] = {}
        self.archives: dict[str, Entry] = {}
        self._indexes, self._ignored, self._say = indexes, ignored, say
        self._inflating: dict[str, Inflating] = {}
        self._checked: set[str] = set()

    def __reduce__(self) -> Any:
        return _travelled, (self.store, self.only, self.members, self.archives, self.indexes if self.archives else None)

    @property
    def url(self) -> str:
        return f"{self.store.url}/{self.only}" if self.only else self.store.url

    @property
    def remark(self) -> str:
        if not self.archives:
            return ""
        sizes = {name: entry.size for name, entry in self.archives.items()}
        zipped = sum(size for name, size in sizes.items() if kind_of(name) == "gzip")
        again = (
            f"; {_megabytes(zipped)} of gzip were inflated once to be listed, and are once more to be read" if zipped else ""
        )
        counted = f"{len(sizes):,} archives" if len(sizes) > 1 else "1 archive"
        return f"{counted} of {_megabytes(sum(sizes.values()))}, read in place{again}"

    @property
    def indexes(self) -> Store:
        """Where the indexes of archives are kept."""
        return LocalStore(_temporary().name) if self._indexes is None else self._indexes

    def answers(self) -> bool:
        return self.store.answers()

    def part(self, paths: Iterable[str]) -> Files:
        members = {path: self.members[path] for path in paths if path in self.members}
        archives = {name: self.archives[name] for name in {member.archive for member in members.values()}}
        return _travelled(self.store, self.only, members, archives, self.indexes if archives else None)

    def listed(self) -> Iterator[Entry | Rejected]:
        plain: dict[str, Entry] = {}
        archives: list[Entry] = []
        for entry in self._there():
            if entry.size > 0 and kind_of(entry.key) and not self._ignored(entry.key):
                archives.append(entry)
            elif (said := unreadable_archive(entry.key)) and not self._ignored(entry.key):
                yield Rejected(entry.key, "unreadable archive", said)
            else:
                plain[entry.key] = entry
        contrary: dict[str, tuple[str, str]] = {}
        self.members.clear()
        for archive in sorted(archives, key=lambda entry: (entry.size, entry.key)):
            listing = self._listing(archive)
            yield from listing.refused
            self.archives[archive.key] = archive
            for path, member in listing.members.items():
                if path in plain and plain[path].size >= member.size:
                    continue
                plain.pop(path, None)
                other = self.members.setdefault(path, member)
                if other is not member and not self._alike(path, other, member):
                    contrary[path] = other.archive, member.archive
        for path, (one, other_archive) in contrary.items():
            del self.members[path]
            detail = f"stands in {one} and in {other_archive}, which differ; which one is meant? Remove all but one"
            yield Rejected(path, "duplicate", detail)
        for path, member in self.members.items():
            yield Entry(path, member.size, f"{member.archive} {self.archives[member.archive].stamp}")
        yield from plain.values()

    def _alike(self, path: str, one: Member, other: Member) -> bool:
        """Tell whether two archives hold the same file, to the byte."""
        if one.size != other.size:
            return False
        first, second = (self._content(path, member) for member in (one, other))
        return isinstance(first, bytes) and first == second

    def _content(self, path: str, member: Member) -> bytes | OSError:
        if member.kind == "gzip":
            return self._inflate(path, member)
        return _stored(path, member, self.store.read_range(member.archive, member.start, member.stop))

    def _there(self) -> Iterable[Entry]:
        if not self.only:
            return self.store.list()
        try:
            return [self.store.entry(self.only)]
        except FileNotFoundError:
            unsure = "" if self.store.near else ", or its server does not answer"
            raise RequestError(f"{self.url}: no such file{unsure}") from None

    def _listing(self, archive: Entry) -> Listing:
        kind = kind_of(archive.key)
        if kind == "gzip":
            known = read_index(self.indexes, archive)
            return known if known is not None else self._indexed(archive)
        file = BufferedReader(ObjectFile(self.store, archive), _BUFFER)
        return tar_listing(archive.key, "tar", file) if kind == "tar" else zip_listing(archive.key, file)

    def _indexed(self, archive: Entry) -> Listing:
        self._say(f"{archive.key}: inflating {_megabytes(archive.size)} once, to know what it holds")
        try:
            return make_index(self.store, archive, self.indexes)
        except OSError as error:
            if self._indexes is None or error.errno not in _NOT_OURS:
                raise
        self._indexes = None  # what lies beside somebody else's cube is not ours to write
        return make_index(self.store, archive, self.indexes)

    def read_listed(self, entries: list[Entry]) -> Iterator[bytes | OSError]:
        plain = self.store.read_listed([entry for entry in entries if entry.key not in self.members])
        return self._mixed([entry.key for entry in entries], plain, None)

    def read_many(self, paths: list[str], most: int | None = None) -> Iterator[bytes | OSError]:
        return self._mixed(paths, self.store.read_many([path for path in paths if path not in self.members], most), most)

    def _mixed(self, paths: list[str], plain: Iterator[bytes | OSError], most: int | None) -> Iterator[bytes | OSError]:
        stored = [self.members[path] for path in paths if path in self.members and self.members[path].kind != "gzip"]
        for name in sorted({self.members[path].archive for path in paths if path in self.members} - self._checked):
            self._require_unchanged(name)
        ranges = iter(self.store.read_ranges([Range(member.archive, member.start, member.stop) for member in stored]))
        for path in paths:
            member = self.members.get(path)
            if member is None:
                yield next(plain)
                continue
            if most is not None and member.size > most:
                yield _bad(path, member, f"has {member.size:,} bytes, more than the {most:,} any such file needs")
                continue
            yield self._inflate(path, member) if member.kind == "gzip" else _stored(path, member, next(ranges))

    def _require_unchanged(self, name: str) -> None:
        listed, now = self.archives[name], self.store.entry(name)
        if (now.size, now.stamp) != (listed.size, listed.stamp):
            raise StorageError(f"{self.store.url}/{name}: written anew since it was listed: run again")
        self._checked.add(name)

    def _inflate(self, path: str, member: Member) -> bytes | OSError:
        archive = self.archives[member.archive]
        if archive.key not in self._inflating:
            window = partial(read_window, self.indexes, index_key(archive))
            self._inflating[archive.key] = Inflating(partial(self.store.read_range, archive.key), window)
        try:
            return self._inflating[archive.key].take(member.point, member.start, member.size)
        except (zlib.error, EOFError) as error:
            return _bad(path, member, f"is damaged or cut off: {error}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 10**7 else f"{size / 1e3:,.0f} kB"


def _travelled(
    store: Readable, only: str, members: dict[str, Member], archives: dict[str, Entry], indexes: Store | None
) -> Files:
    files = Files(store, only, indexes=indexes)
    files.members, files.archives = members, archives
    return files


def _stored(path: str, member: Member, data: bytes) -> bytes | OSError:
    """Return a file of a tar or a zip from the bytes of the archive that hold it."""
    if member.kind == "tar":
        return data if len(data) == member.size else _bad(path, member, "is cut off")
    try:
        method, packed = zipped(data)
        whole = inflated(packed, member.size) if method else packed[: member.size]
    except (zlib.error, ValueError) as error:
        return _bad(path, member, f"is damaged: {error}")
    sound = zlib.crc32(whole) == member.crc and len(whole) == member.size
    return whole if sound else _bad(path, member, "has a wrong checksum")


def _bad(path: str, member: Member, what: str) -> OSError:
    return OSError(errno.EIO, f"in {member.archive} it {what}", path)
