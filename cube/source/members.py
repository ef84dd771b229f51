"""What an archive holds and where: a tar, by its headers, a zip, by its directory. Names of members are looked through here."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from dataclasses import dataclass, field
from itertools import pairwise
from typing import IO, Any, NamedTuple

from cube.source.inflate import START, Point
from cube.source.rejected import Rejected

SUFFIXES = {".tar": "tar", ".tar.gz": "gzip", ".tgz": "gzip", ".zip": "zip"}
"""Endings of archives that are read in place, and how."""
_OTHERS = (".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".7z", ".rar")
_MOST_MEMBERS = 10**7
_LONGEST_HEADER = 2**20
"""Bytes of one header of a tar, names and all that extends it."""
_LOCAL_HEADER = 30
"""Bytes of a zip's own header before the name of a file; after it come name, extension and data."""
_LONGEST_LOCAL = _LOCAL_HEADER + 2 * 0xFFFF
_ENCRYPTED = 0x1


class Member(NamedTuple):
    """One file of an archive."""

    archive: str
    """Key of the archive."""
    kind: str
    """``tar``, ``gzip`` (a tar in a gzip) or ``zip``."""
    start: int
    """First byte in the archive, in what the gzip inflates to, or of the zip's own header."""
    stop: int
    """One past the last byte; of a zip at most."""
    size: int
    """Bytes of the file."""
    crc: int = -1
    """CRC-32 of the file; -1 where the archive has none for single files."""
    point: Point = START
    """Where inflating begins that leads to it."""


@dataclass
class Listing:
    """The files of one archive by their paths, and what is not read of it."""

    members: dict[str, Member] = field(default_factory=dict)
    refused: list[Rejected] = field(default_factory=list)


def kind_of(key: str) -> str:
    """Return how an archive is read, by its name; an empty text for what is no archive."""
    return next((kind for ending, kind in SUFFIXES.items() if key.lower().endswith(ending)), "")


def unreadable_archive(key: str) -> str:
    """Return why an archive is not read in place, by its name; an empty text for all else."""
    ending = next((ending for ending in _OTHERS if key.lower().endswith(ending)), "")
    known = ", ".join(SUFFIXES)
    return f"{ending} cannot be read in place, {known} can: unpack it, or pack it anew" if ending else ""


def within(archive: str, name: str) -> str:
    """Return the path, relative to the source, of a file in an archive, as if that were unpacked where it lies."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join([*archive.split("/")[:-1], *parts])


def _refusal(archive: str, name: str, why: str) -> Rejected:
    return Rejected(f"{archive}: {name}", "unsafe member", why)


def _leads_out(name: str) -> str:
    """Return what is wrong with the name of a member; an empty text where nothing is."""
    if name.startswith("/") or name[1:2] == ":":
        return "its name is absolute: nothing is read but what lies below the archive"
    if ".." in name.replace("\\", "/").split("/"):
        return "its name leads out of the folder of the archive"
    return "its name is empty, or has a zero byte" if not name or "\0" in name else ""


def tar_listing(archive: str, kind: str, file: Any) -> Listing:
    """Read the headers of a tar. ``file`` needs ``read``, ``tell``, and ``seek`` forwards.

    What is damaged or cut off ends the listing with a refusal.
    """
    listing, headers = Listing(), _Headers(file)
    try:
        with tarfile.TarFile(fileobj=headers) as tar:  # type: ignore[arg-type]
            while (item := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else all of them would be kept
                _add(listing, archive, kind, item)
        headers.require_end()
    except (tarfile.TarError, EOFError) as error:
        detail = f"after {len(listing.members):,} files: {error}. Those are used; download the archive again for the others"
        listing.refused.append(Rejected(archive, "damaged archive", detail))
    return listing


def _add(listing: Listing, archive: str, kind: str, item: tarfile.TarInfo) -> None:
    if item.isdir():
        return
    if said := _leads_out(item.name):
        listing.refused.append(_refusal(archive, item.name, said))
    elif not item.isreg() or item.issparse():
        what = "a link" if item.issym() or item.islnk() else "a sparse file" if item.issparse() else "a pipe or a device"
        listing.refused.append(_refusal(archive, item.name, f"is {what}: only regular files are read"))
    else:
        start = item.offset_data
        listing.members[within(archive, item.name)] = Member(archive, kind, start, start + item.size, item.size)
    if len(listing.members) + len(listing.refused) > _MOST_MEMBERS:
        raise tarfile.ReadError(f"more than {_MOST_MEMBERS:,} files")


class _Headers:
    """A file of which only headers are read: no claim of a length makes it read more."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.name = ""
        self.mode = "rb"
        self.tell, self.seek = file.tell, file.seek
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        self.last = self.file.read(size)
        return self.last

    def require_end(self) -> None:
        """Raise ``tarfile.ReadError`` unless blocks of zeros end it: the tar module takes any damaged header for its end."""
        if not self.last:
            raise tarfile.ReadError("cut off: it has no end mark")
        while self.last:
            if self.last.strip(b"\0"):
                raise tarfile.ReadError("a header is damaged")
            self.read(_LONGEST_HEADER)


def zip_listing(archive: str, file: IO[bytes]) -> Listing:
    """Read the directory of a zip; one that cannot be read is a refusal, and a cut-off zip has none: it stands at the end."""
    listing = Listing()
    try:
        with zipfile.ZipFile(file) as opened:
            items, end = opened.infolist(), opened.start_dir
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        detail = f"its directory cannot be read: {error}. Download the archive again"
        listing.refused.append(Rejected(archive, "damaged archive", detail))
        return listing
    if len(items) > _MOST_MEMBERS:
        listing.refused.append(Rejected(archive, "damaged archive", f"more than {_MOST_MEMBERS:,} files"))
        return listing
    starts = sorted({item.header_offset for item in items} | {end})
    following = dict(pairwise(starts))
    for item in items:
        if not item.is_dir():
            _add_zipped(listing, archive, item, following.get(item.header_offset, end))
    return listing


def _add_zipped(listing: Listing, archive: str, item: zipfile.ZipInfo, following: int) -> None:
    name, mode = item.filename, item.external_attr >> 16
    if said := _leads_out(name):
        listing.refused.append(_refusal(archive, name, said))
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        listing.refused.append(_refusal(archive, name, "is a link, a pipe or a device: only regular files are read"))
    elif item.flag_bits & _ENCRYPTED:
        listing.refused.append(_refusal(archive, name, "is encrypted: unpack the archive"))
    elif item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        how = zipfile.compressor_names.get(item.compress_type, item.compress_type)  # type: ignore[attr-defined]
        listing.refused.append(_refusal(archive, name, f"is compressed by {how}, not deflated: unpack the archive"))
    else:
        stop = min(following, item.header_offset + _LONGEST_LOCAL + item.compress_size)
        key = within(archive, name)
        listing.members[key] = Member(archive, "zip", item.header_offset, stop, item.file_size, item.CRC)


def zipped(data: bytes) -> tuple[int, bytes]:
    """Return the method and the compressed bytes of a file of a zip, and what follows them, from its own header on.

    Raises ``ValueError`` if there is no such header.
    """
    if data[:4] != b"PK\3\4" or len(data) < _LOCAL_HEADER:
        raise ValueError("no file begins where the directory of the zip says")
    name, extension = (int.from_bytes(data[place : place + 2], "little") for place in (26, 28))
    return int.from_bytes(data[8:10], "little"), data[_LOCAL_HEADER + name + extension :]
