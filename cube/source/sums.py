"""Checksums as they are published beside archives: a download that differs is found before anything is built of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cube.errors import RequestError
from cube.source.members import kind_of
from cube.store.protocol import Entry, Readable
from cube.store.urls import open_store

_AT_ONCE = 2**24
"""Bytes that are read at a time."""
_KINDS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
"""Digits of a sum → its kind."""
_LINE = re.compile(r"(?P<sum>[0-9a-fA-F]{32,128}) [ *](?P<name>.+)|\w+ \((?P<tagged>.+)\) = (?P<told>[0-9a-fA-F]{32,128})")
_SHOWN = 5


def read_sums(path: str) -> dict[str, str]:
    """Return name → sum of a list on this machine, as ``md5sum`` and its like write it, in either of their two forms.

    Raises ``RequestError`` if it cannot be read, for a line that is none of them, or for a list without any.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        told = str(match["sum"] or match["told"]) if match else ""
        if not match or len(told) not in _KINDS:
            raise RequestError(f"{path}, line {number}: expected a sum and the name of a file, as md5sum writes them")
        sums[(match["name"] or match["tagged"]).removeprefix("./")] = told.lower()
    if not sums:
        raise RequestError(f"{path}: lists no sums")
    return sums


def require_sums(
    source: str,
    sums: Mapping[str, str],
    options: Mapping[str, Any] | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Read the files or archives of a source that a list names, and return how many there are; they are read whole.

    A name of the list is the path in the source, or its end. Raises ``RequestError`` that names the files which differ, or if
    none is listed.
    """
    folder, _, name = source.rstrip("/").rpartition("/")
    only = name if kind_of(source) else ""
    store = open_store((folder or ".") if only else source, options=options)
    entries = [store.entry(only)] if only else [entry for entry in store.list() if entry.size >= 0]
    known = {entry: told for entry in entries if (told := _told(entry.key, sums))}
    if not known:
        raise RequestError(f"{source}: none of its {len(entries):,} files is among the {len(sums):,} of the list of sums")
    wrong = []
    for entry, told in known.items():
        say(f"{entry.key}: {entry.size:,} bytes are summed")
        if _sum(store, entry, _KINDS[len(told)]) != told:
            wrong.append(entry.key)
    if wrong:
        more = f" and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        raise RequestError(f"{source}: {', '.join(wrong[:_SHOWN])}{more}: not the bytes that were published: download again")
    return len(known)


def _told(key: str, sums: Mapping[str, str]) -> str | None:
    parts = key.split("/")
    return next((sums[name] for place in range(len(parts)) if (name := "/".join(parts[place:])) in sums), None)


def _sum(store: Readable, entry: Entry, kind: str) -> str:
    hasher = hashlib.new(kind, usedforsecurity=False)
    for start in range(0, entry.size, _AT_ONCE):
        hasher.update(store.read_range(entry.key, start, min(entry.size, start + _AT_ONCE)))
    return hasher.hexdigest()
