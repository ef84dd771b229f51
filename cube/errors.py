"""Every error this package raises on purpose, grouped by what the caller would do about it.

::

    CubeError
    ├── RequestError (ValueError)      the request was wrong: mend it and ask again; exit code 2
    │   ├── RecipeError                the recipe file says something impossible
    │   ├── ConfigError                the file of ``--config`` says something impossible
    │   ├── FilterError                a ``--where`` expression cannot be read
    │   └── TargetError                the target exists, cannot be written, or holds something else
    └── WorkError (RuntimeError)       the request was right, the work says no; exit code 1
        ├── RejectedFile               one input file cannot be used
        ├── UnusableError              no file at all can be used
        ├── IncompleteError            patches lack files and the policy is ``fail``
        ├── CorruptError               stored bytes are not what was written
        ├── StorageError (OSError)     reading or writing failed: disk full, connection lost
        └── UntrustedError             a cube that did not pass its verification was to be published
"""

from __future__ import annotations

import re
from typing import Self

_SCHEMES = "https?|s3a?|gcs|gs|abfss?|adl|az|s?ftp|ftps|hdfs|webhdfs|ssh|tcp|tls|ucxx?|wss?|inproc|github|oci"
_URL = re.compile(rf"""[\w+.:-]*://[^\s'"<>]+|\b(?:{_SCHEMES}):[^\s'"<>]*@[^\s'"<>]*""")
_TAIL = re.compile(r"([?#;]).+")


def without_secrets(text: str) -> str:
    """Return a text in which no URL says more than where something lies: no user, no query, no parameter, no fragment."""
    return _URL.sub(_place, text)


def _place(url: re.Match[str]) -> str:
    scheme, mark, rest = url[0].partition("://" if "://" in url[0] else ":")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{mark}{'…' if user else ''}{at}" + _TAIL.sub(r"\1…", place)


class CubeError(Exception):
    """Base of all errors raised on purpose. What may be a secret in a URL is taken out of what they say."""

    def __str__(self) -> str:
        return without_secrets(super().__str__())

    def __repr__(self) -> str:
        return without_secrets(super().__repr__())


class RequestError(CubeError, ValueError):
    """The request was wrong; nothing has been done."""


class RecipeError(RequestError):
    """A recipe says something unknown or impossible; the message names file and line."""


class ConfigError(RequestError):
    """A config file cannot be read, or says something unknown; the message never quotes a value."""


class FilterError(RequestError):
    """A ``--where`` expression cannot be read, or names an unknown field or value."""


class TargetError(RequestError):
    """The target exists already, cannot be written, or holds another plan's cube."""


class WorkError(CubeError, RuntimeError):
    """The work itself says no."""


class RejectedFile(WorkError):
    """One input file cannot be used.

    ``reason`` is one of a few fixed words that can be counted, ``detail`` says what was seen and what was expected.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return without_secrets(f"{self.reason}: {self.detail}")


class UnusableError(WorkError):
    """No file at all can be used: the files are not what the recipe says."""


class IncompleteError(WorkError):
    """Patches lack files and the policy is ``fail``."""


class CorruptError(WorkError):
    """Stored bytes are not what was written."""


class StorageError(WorkError, OSError):
    """Reading or writing failed for good: disk full, connection lost, permission taken away."""

    def __new__(cls, *words: object) -> Self:
        """Make one as ``OSError`` does: what brings errors back from a Dask worker calls this."""
        return OSError.__new__(cls, *words)


class UntrustedError(WorkError):
    """A cube that did not pass its verification was to be published."""
