"""A store in an object store, reached through fsspec. The only room that knows about S3."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from cube.store.failures import DamagedAnswer, explained, insist, insisting, unlike_listed, with_defaults
from cube.store.protocol import Entry, Range

SPOOL_LIMIT = 32 * 2**20
"""Bytes of one object held in memory before they are spooled to a temporary file."""
_MEDIA_TYPES = {".html": "text/html; charset=utf-8", ".json": "application/json", ".png": "image/png"}


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

    @property
    def server(self) -> str:
        """What tells servers apart: the first part of the URL and the endpoint."""
        given = self.options.get("endpoint_url") or self.options.get("client_kwargs", {}).get("endpoint_url", "")
        return f"{'/'.join(self.prefix.split('/', 3)[:3])} {given or os.environ.get('AWS_ENDPOINT_URL', '')}"

    def child(self, name: str) -> ObjectStore:
        return ObjectStore(f"{self.prefix.rstrip('/')}/{name}", self.options)

    def _open(self) -> tuple[Any, str]:
        options = with_defaults(self.prefix, self.options)
        import fsspec  # 50 ms, which only object stores are worth

        fs, root = fsspec.core.url_to_fs(self.prefix, use_listings_cache=False, **options)
        return fs, root.rstrip("/")

    @insisting
    def read(self, key: str) -> bytes:
        fs, root = self._open()
        return bytes(fs.cat_file(f"{root}/{key}"))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        return self.read_ranges([Range(key, start, stop)])[0]

    def read_ranges(self, ranges: list[Range]) -> list[bytes]:
        found = []
        for item, data in zip(ranges, insist(self._ask_ranges, ranges, self.server) if ranges else [], strict=True):
            if isinstance(data, Exception):
                raise explained(f"{self.prefix}/{item.key}", data)
            found.append(data)
        short = [place for place, item in enumerate(ranges) if len(found[place]) < item.length]
        # The object may end there. If not, less arrived than the server sent: then the second answer is the longer one.
        again = insist(self._ask_ranges, [ranges[place] for place in short], self.server) if short else []
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

    @contextmanager
    def opened(self) -> Iterator[ObjectStore]:
        yield self

    def announce(self, ranges: list[Range]) -> None:
        pass

    def read_into(self, key: str, start: int, out: memoryview) -> int:
        data = self.read_range(key, start, start + len(out))
        out[: len(data)] = data
        return len(data)

    def read_many(self, keys: list[str], most: int | None = None) -> Iterator[bytes | OSError]:
        for key, value in zip(keys, insist(self._ask_many, keys, self.server) if keys else [], strict=True):
            data = self._told(key, value)
            long = isinstance(data, bytes) and most is not None and len(data) > most
            yield OSError(f"{self.prefix}/{key}: {len(data):,} bytes, more than {most:,}") if long else data

    def read_listed(self, entries: list[Entry]) -> Iterator[bytes | OSError]:
        for entry, value in zip(entries, insist(self._ask_listed, entries, self.server) if entries else [], strict=True):
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

    @insisting
    def write(self, key: str, data: bytes) -> None:
        fs, root = self._open()
        fs.pipe_file(f"{root}/{key}", data, **_media_type(fs, key))

    @insisting
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

    def secure(self, keys: Iterable[str]) -> None:
        pass

    def keep(self, key: str, data: bytes) -> None:
        self.write(key, data)

    @insisting
    def replace(self, key: str, data: bytes, before: bytes) -> bool:
        fs, root = self._open()
        conditions = {"IfMatch": str(fs.info(f"{root}/{key}", refresh=True)["ETag"])} if hasattr(fs, "call_s3") else {}
        if (there := self.read(key)) != before:
            return there == data  # our own, of a try whose answer was lost
        try:
            fs.pipe_file(f"{root}/{key}", data, **_media_type(fs, key), **conditions)
        except OSError:
            if (there := self.read(key)) == before:
                raise  # it was refused for another reason
            return there == data
        return True

    @insisting
    def _upload(self, key: str, spool: IO[bytes], size: int) -> None:
        fs, root = self._open()
        spool.seek(0)
        _upload(fs, f"{root}/{key}", spool, size)

    @insisting
    def remove(self, key: str) -> None:
        fs, root = self._open()
        fs.rm_file(f"{root}/{key}")

    @insisting
    def exists(self, key: str) -> bool:
        fs, root = self._open()
        return bool(fs.exists(f"{root}/{key}"))

    def answers(self) -> bool:
        try:
            return bool(self._below(""))
        except OSError:
            return False

    @insisting
    def _below(self, key: str) -> Sequence[Mapping[str, Any]]:
        fs, root = self._open()
        return list(fs.ls(f"{root}/{key}".rstrip("/"), detail=True))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        _, root = self._open()
        below = f"{root}/{prefix}".rstrip("/")
        for path, info in self._found(prefix).items():
            # Where nothing is found, some servers have find() give the prefix itself, as a folder.
            if path.startswith(f"{below}/") and info["type"] == "file":
                yield _entry(path[len(root) + 1 :], info)

    @insisting
    def entry(self, key: str) -> Entry:
        fs, root = self._open()
        return _entry(key, fs.info(f"{root}/{key}"))

    def folders(self) -> Iterable[str]:
        try:
            below = self._below("")
        except FileNotFoundError:
            return []
        return sorted(item["name"].rstrip("/").rpartition("/")[2] for item in below if item["type"] == "directory")

    def give_up_uploads(self, *, remove: bool) -> int:
        return int(self._given_up("", remove=remove))

    @insisting
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

    @insisting
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


def _entry(key: str, info: Mapping[str, Any]) -> Entry:
    """Return what an object store tells of an object; over http, size and ETag only."""
    written = info.get("LastModified")
    size = info["size"]
    stamp = str(info.get("ETag") or written or "")
    return Entry(key, -1 if size is None else int(size), stamp, written.timestamp() if written else 0.0)
