"""What is not used of a source, and why."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cube.errors import RejectedFile
from cube.store.urls import is_local

if TYPE_CHECKING:
    from cube.source.files import Source

_OF_FILE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True, slots=True)
class Rejected:
    """One file or patch that is not used, and why."""

    path: str
    """Path relative to the source, or the id of a patch."""
    reason: str
    """One of a few fixed words: ``wrong name``, ``duplicate``, ``incomplete``, ``truncated``, …"""
    detail: str
    """What was seen and what was expected."""


def require_answer(store: Source, error: OSError) -> OSError:
    """Return an error that tells of one file; raise one that tells of the store: then no file may be called bad.

    An object store that gives no permission does not mean the one object.
    """
    forbidden = isinstance(error, PermissionError) and not is_local(store.url)
    if forbidden or not (isinstance(error, _OF_FILE) or error.errno == errno.EIO) or not store.answers():
        raise error
    return error


def rejection(path: str, error: RejectedFile | OSError) -> Rejected:
    """Return the rejection of a file that could not be used."""
    if isinstance(error, RejectedFile):
        return Rejected(path, error.reason, error.detail)
    return Rejected(path, "unreadable", error.strerror or str(error) or type(error).__name__)
