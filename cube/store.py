"""Reading and writing objects by key, on a local disk or on an object store. The only room that knows about S3.

A store is a small frozen value (a URL and options), so it can be pickled to any worker; connections are opened where they
are used. An object appears whole or not at all: local files are written aside and renamed, object stores do so by nature.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import fsspec

from cube.answers import DamagedAnswer, client_errors, explained, insist, unlike_listed, with_defaults
from cube.errors import RequestError

SPOOL_LIMIT = 32 * 2**20
"""Bytes of one object held in memory before they are spooled to a temporary file (object stores only)."""
_MEDIA_TYPES = {".html": "text/html; charset=utf-8", ".json": "application/json", ".png": "image/png"}
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""Answers of a file system that has no hard links."""

Rest = ParamSpec("Rest")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing."""

    key: str
    """Path relative to the store, with ``/`` between its parts."""
    size: int
    """Bytes; -1 where the listing could not tell (a broken link)."""
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


class Store(Protocol):
    """Objects by key. Every method raises ``OSError`` (``FileNotFoundError`` for a missing key) when it fails."""

    @property
    def url(self) -> str:
        """Where the store lies."""

    @property
    def options(self) -> Mapping[str, Any]:
        """fsspec storage options. They may hold secrets: never print or keep them."""

    def child(self, name: str) -> Store:
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

    def announce(self, ranges: list[Range]) -> None:
        """Say which ranges will be read soon, so that a disk can begin; nothing waits for it."""

    def read_into(self, key: str, start: int, out: memoryview) -> int:
        """Fill ``out`` with the bytes from ``start`` on and return how many there were; fewer only where the object ends."""

    def read_many(self, keys: list[str]) -> Iterator[bytes | OSError]:
        """Yield each object, or the error that reading it raised, in order."""

    def read_listed(self, entries: list[Entry]) -> Iterator[bytes | OSError]:
        """Yield objects as ``read_many`` does; what arrives from an object store must be what its listing said.

        That is the size and, where the stamp is an MD5, every bit. It is asked for again where it is not.
        """

    def write(self, key: str, data: bytes) -> None:
        """Write a whole object."""

    def write_new(self, key: str, data: bytes) -> bytes:
        """Write a whole object unless there is one already; return what stands there then."""

    def writing(self, key: str) -> Any:
        """Return a context manager giving a file; the object appears when the block ends without an error."""

    def remove(self, key: str) -> None:
        """Remove an object."""

    def exists(self, key: str) -> bool:
        """Tell whether an object exists."""

    def answers(self) -> bool:
        """Tell whether the store itself can be listed."""

    def list(self, prefix: str = "") -> Iterable[Entry]:
        """Return every object under ``prefix``."""

    def folders(self) -> Iterable[str]:
        """Return the names of the folders (parts of keys up to the next ``/``) right below; none if it is not there."""

    def give_up_uploads(self, *, remove: bool) -> int:
        """Return how many uploads in parts somebody left unfinished, which an object store keeps; remove them if asked to."""


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
        with open(self._path(key), "rb", buffering=0) as file:
            return file.readall()

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        with open(self._path(key), "rb", buffering=0) as file:
            return _pread(file.fileno(), Range(key, start, stop))

    def read_ranges(self, ranges: list[Range]) -> list[bytes]:
        parts = []
        for key, of_key in groupby(ranges, key=lambda item: item.key):
            with open(self._path(key), "rb", buffering=0) as file:
                parts += [_pread(file.fileno(), item) for item in of_key]
        return parts

    @property
    def near(self) -> bool:
        return True

    def announce(self, ranges: list[Range]) -> None:
        if sys.platform != "linux":
            return
        for key, of_key in groupby(ranges, key=lambda item: item.key):
            with open(self._path(key), "rb", buffering=0) as file:
                for _, start, stop in of_key:
                    os.posix_fadvise(file.fileno(), start, 0 if stop is None else stop - start, os.POSIX_FADV_WILLNEED)

    def read_into(self, key: str, start: int, out: memoryview) -> int:
        filled = 0
        file = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        try:
            while filled < len(out) and (count := os.preadv(file, [out[filled:]], start + filled)):
                filled += count
        finally:
            os.close(file)
        return filled

    def read_many(self, keys: list[str]) -> Iterator[bytes | OSError]:
        for key in keys:
            try:
                yield self.read(key)
            except OSError as error:
                yield error

    def read_listed(self, entries: list[Entry]) -> Iterator[bytes | OSError]:
        return self.read_many([entry.key for entry in entries])

    def write(self, key: str, data: bytes) -> None:
        with self.writing(key) as file:
            file.write(data)

    def write_new(self, key: str, data: bytes) -> bytes:
        with self._aside(self._path(key)) as (path, aside):
            Path(aside).write_bytes(data)
            try:
                _link(aside, path)
            except FileExistsError:
                return self.read(key)
        return data

    @contextmanager
    def writing(self, key: str) -> Iterator[IO[bytes]]:
        with self._aside(self._path(key)) as (path, aside):
            with open(aside, "wb", buffering=2**16) as file:
                yield file
            os.replace(aside, path)

    @contextmanager
    def _aside(self, path: str) -> Iterator[tuple[str, str]]:
        """Give a path and that of a file beside it, on the same file system, which is gone when the block ends."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
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


def _link(aside: str, path: str) -> None:
    """Give a whole file a second name; raises ``FileExistsError`` where the name is taken."""
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with open(path, "xb") as file:
            file.write(Path(aside).read_bytes())


def _inside(key: str) -> str:
    """Return a key that stays in its store; keys may come from a listing or a cube that somebody else made."""
    if key.startswith("/") or ".." in key.split("/"):
        raise PermissionError(errno.EPERM, "the key leads out of its folder", key)
    return key


def _identity(folder: str) -> tuple[int, int]:
    """Return what is the same for a folder and every link to it: a link may lead back to where it lies."""
    info = os.stat(folder)
    return info.st_dev, info.st_ino


def _pread(file: int, part: Range) -> bytes:
    """Read a part of an open file; fewer bytes only where the file ends."""
    size = os.fstat(file).st_size
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
    return info.st_size, str(info.st_mtime_ns), info.st_mtime


def _attempt(call: Callable[[], Result]) -> Result | Exception:
    """Return what a call returns, or how it failed."""
    try:
        return call()
    except OSError as error:
        return error
    except client_errors() as error:
        return error


def _insisting(method: Callable[Concatenate[ObjectStore, str, Rest], Result]) -> Callable[..., Result]:
    """Have a method on one key make its request again where that may help, and raise an error that says what to do."""

    @wraps(method)
    def insisting(store: ObjectStore, key: str, *rest: Rest.args, **named: Rest.kwargs) -> Result:
        def ask(_: Sequence[str]) -> list[Result | Exception]:
            return [_attempt(lambda: method(store, key, *rest, **named))]

        (answer,) = insist(ask, [key])
        if isinstance(answer, Exception):
            raise explained(f"{store.url}/{key}".rstrip("/"), answer)
        return answer

    return insisting


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A prefix in an object store, reached through fsspec."""

    prefix: str
    """URL such as ``s3://bucket/name.zarr``."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """fsspec storage options; not shown, for they may hold secrets."""

    @property
    def url(self) -> str:
        return self.prefix

    def child(self, name: str) -> ObjectStore:
        return ObjectStore(f"{self.prefix.rstrip('/')}/{name}", self.options)

    def _open(self) -> tuple[Any, str]:
        options = with_defaults(self.prefix, self.options)
        fs, root = fsspec.core.url_to_fs(self.prefix, use_listings_cache=False, **options)
        return fs, root.rstrip("/")

    @_insisting
    def read(self, key: str) -> bytes:
        fs, root = self._open()
        return bytes(fs.cat_file(f"{root}/{key}"))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        return self.read_ranges([Range(key, start, stop)])[0]

    def read_ranges(self, ranges: list[Range]) -> list[bytes]:
        found = []
        for item, data in zip(ranges, insist(self._ask_ranges, ranges) if ranges else [], strict=True):
            if isinstance(data, Exception):
                raise explained(f"{self.prefix}/{item.key}", data)
            found.append(data)
        short = [place for place, item in enumerate(ranges) if len(found[place]) < item.length]
        # The object may end there. If not, less arrived than the server sent: then the second answer is the longer one.
        again = insist(self._ask_ranges, [ranges[place] for place in short]) if short else []
        for place, data in zip(short, again, strict=True):
            if isinstance(data, bytes) and len(data) > len(found[place]):
                found[place] = data
        return found

    def _ask_ranges(self, ranges: Sequence[Range]) -> list[bytes | Exception]:
        fs, root = self._open()
        paths = [f"{root}/{item.key}" for item in ranges]
        found = fs.cat_ranges(paths, [item.start for item in ranges], [item.stop for item in ranges], on_error="return")
        for item, data in zip(ranges, found, strict=True):
            if isinstance(data, bytes) and len(data) > item.length:
                raise OSError(f"{self.prefix}/{item.key}: asked for a part and was given more; the server must honour Range")
        return list(found)

    @property
    def near(self) -> bool:
        return False

    def announce(self, ranges: list[Range]) -> None:
        pass

    def read_into(self, key: str, start: int, out: memoryview) -> int:
        data = self.read_range(key, start, start + len(out))
        out[: len(data)] = data
        return len(data)

    def read_many(self, keys: list[str]) -> Iterator[bytes | OSError]:
        for key, value in zip(keys, insist(self._ask_many, keys) if keys else [], strict=True):
            yield self._told(key, value)

    def read_listed(self, entries: list[Entry]) -> Iterator[bytes | OSError]:
        for entry, value in zip(entries, insist(self._ask_listed, entries) if entries else [], strict=True):
            yield self._told(entry.key, value)

    def _told(self, key: str, value: Any) -> Any:
        """Return what was read, or the error of its reading; raise one that is no failure of a request."""
        if not isinstance(value, Exception):
            return value
        told = explained(f"{self.prefix}/{key}", value)
        if not isinstance(told, OSError):
            raise told
        return told

    def _ask_many(self, keys: Sequence[str]) -> list[Any]:
        fs, root = self._open()
        # Not fs.cat: it takes a bracket in a key for a pattern.
        return list(fs.cat_ranges([f"{root}/{key}" for key in keys], None, None, on_error="return"))

    def _ask_listed(self, entries: Sequence[Entry]) -> list[Any]:
        values = self._ask_many([entry.key for entry in entries])
        pairs = list(zip(entries, values, strict=True))
        hashed = None
        for place, (entry, value) in enumerate(pairs):
            if isinstance(value, Exception) or not (said := unlike_listed(value, entry.size, entry.stamp)):
                continue
            if len(value) == entry.size:
                hashed = self._etags_are_md5(entry.key) if hashed is None else hashed
            if len(value) != entry.size or hashed:
                values[place] = DamagedAnswer(f"{self.prefix}/{entry.key}: {said}")
        return values

    def _etags_are_md5(self, key: str) -> bool:
        """Tell whether an ETag that looks like an MD5 is one; where the owner of a bucket holds the keys it is not."""
        fs, root = self._open()
        bucket, path, _ = fs.split_path(f"{root}/{key}")
        answer = fs.call_s3("head_object", Bucket=bucket, Key=path)
        return "aws:kms" not in str(answer.get("ServerSideEncryption")) and "SSECustomerAlgorithm" not in answer

    @_insisting
    def write(self, key: str, data: bytes) -> None:
        fs, root = self._open()
        fs.pipe_file(f"{root}/{key}", data, **_media_type(fs, key))

    @_insisting
    def write_new(self, key: str, data: bytes) -> bytes:
        fs, root = self._open()
        try:
            fs.pipe_file(f"{root}/{key}", data, mode="create")
        except OSError as refused:
            # "There is one already", but it may be our own: of a try whose answer was lost. Whoever asked compares.
            try:
                return self.read(key)
            except FileNotFoundError:
                raise refused from None
        return data

    @contextmanager
    def writing(self, key: str) -> Iterator[IO[bytes]]:
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_LIMIT) as spool:
            yield spool
            self._upload(key, spool, spool.tell())

    @_insisting
    def _upload(self, key: str, spool: IO[bytes], size: int) -> None:
        fs, root = self._open()
        spool.seek(0)
        _upload(fs, f"{root}/{key}", spool, size)

    @_insisting
    def remove(self, key: str) -> None:
        fs, root = self._open()
        fs.rm_file(f"{root}/{key}")

    @_insisting
    def exists(self, key: str) -> bool:
        fs, root = self._open()
        return bool(fs.exists(f"{root}/{key}"))

    def answers(self) -> bool:
        try:
            return bool(self._below(""))
        except OSError:
            return False

    @_insisting
    def _below(self, key: str) -> Sequence[Mapping[str, Any]]:
        fs, root = self._open()
        return list(fs.ls(f"{root}/{key}".rstrip("/"), detail=True))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        _, root = self._open()
        below = f"{root}/{prefix}".rstrip("/")
        for path, info in self._found(prefix).items():
            # Where nothing is found, some servers have find() give the prefix itself, as a folder.
            if path.startswith(f"{below}/") and info["type"] == "file":
                stamp = str(info.get("ETag") or info.get("LastModified") or "")
                written = info.get("LastModified")
                yield Entry(path[len(root) + 1 :], int(info["size"]), stamp, written.timestamp() if written else 0.0)

    def folders(self) -> Iterable[str]:
        try:
            below = self._below("")
        except FileNotFoundError:
            return []
        return sorted(item["name"].rstrip("/").rpartition("/")[2] for item in below if item["type"] == "directory")

    def give_up_uploads(self, *, remove: bool) -> int:
        return int(self._given_up("", remove=remove))

    @_insisting
    def _given_up(self, _: str, *, remove: bool) -> int:
        fs, root = self._open()
        if not hasattr(fs, "call_s3"):
            return 0
        bucket, _, prefix = root.partition("/")
        page: dict[str, Any] = {"NextKeyMarker": "", "NextUploadIdMarker": "", "IsTruncated": True}
        count = 0
        while page["IsTruncated"]:
            marks = {name: page[f"Next{name}"] for name in ("KeyMarker", "UploadIdMarker") if page.get(f"Next{name}")}
            page = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/", **marks)
            for upload in page.get("Uploads", []):
                count += 1
                if remove:
                    fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return count

    @_insisting
    def _found(self, prefix: str) -> dict[str, Any]:
        fs, root = self._open()
        return dict(fs.find(f"{root}/{prefix}".rstrip("/"), detail=True))


def _media_type(fs: Any, key: str) -> dict[str, str]:
    """Return what S3 is to tell browsers, which would save the object to a file instead of showing it."""
    told = _MEDIA_TYPES.get(os.path.splitext(key)[1])
    return {"ContentType": told} if told and "s3" in fs.protocol else {}


def _upload(fs: Any, path: str, spool: IO[bytes], size: int) -> None:
    if size <= SPOOL_LIMIT:
        fs.pipe_file(path, spool.read())
        return
    remote = fs.open(path, "wb", block_size=SPOOL_LIMIT)
    with ExitStack() as unless_done:
        unless_done.callback(_discard, remote)
        while piece := spool.read(SPOOL_LIMIT):
            remote.write(piece)
        remote.flush(force=True)
        unless_done.pop_all()
    remote.close()


def _discard(remote: Any) -> None:
    """Give up an upload; closing it would publish the parts that have arrived as the whole object."""
    remote.closed = True
    remote.discard()


def open_store(url: str, *, options: Mapping[str, Any] | None = None, staging: str = "") -> Store:
    """Return the store at a path or URL; nothing is read or written yet.

    Raises ``RequestError`` for a URL that holds credentials.
    """
    if is_local(url):
        return LocalStore(os.path.abspath(_strip_scheme(url)), os.path.abspath(staging) if staging else "")
    refuse_credentials(url)
    return ObjectStore(url.rstrip("/"), dict(options or {}))


def refuse_credentials(url: str) -> None:
    """Raise ``RequestError``, without showing them, if credentials stand in a URL: URLs are printed and kept."""
    parts = urlsplit(url)
    host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if "://" in url and "@" in parts.netloc:
        raise RequestError(
            f"the URL of {host} holds credentials, which would be printed and kept: "
            "give them in the environment (AWS_ACCESS_KEY_ID, …), in storage options or in a --config file"
        )
    if parts.scheme in ("http", "https") and parts.query:
        raise RequestError(
            f"the URL of {host} has a query (?…), such as a signature: a cube is many objects, give its plain URL"
        )


def is_local(url: str) -> bool:
    """Tell whether ``url`` is a path of this machine."""
    return "://" not in url or url.startswith("file://")


def _strip_scheme(url: str) -> str:
    return url.removeprefix("file://")
