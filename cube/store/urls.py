"""Which store a path or URL means.

A store is a small frozen value (a URL and options), so it can be pickled to any worker; connections are opened where they
are used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from cube.errors import RequestError, without_secrets
from cube.store.local import LocalStore
from cube.store.objects import ObjectStore
from cube.store.protocol import Store


def open_store(url: str, *, options: Mapping[str, Any] | None = None, staging: str = "", flush: bool = True) -> Store:
    """Return the store at a path or URL; nothing is read or written yet.

    Without ``flush``, a disk keeps what was written through a loss of power only by chance.
    Raises ``RequestError`` for a URL that holds credentials.
    """
    if is_local(url):
        refuse_credentials(url)
        return LocalStore(os.path.abspath(_strip_scheme(url)), os.path.abspath(staging) if staging else "", flush)
    refuse_credentials(url)
    return ObjectStore(url.rstrip("/"), dict(options or {}))


def refuse_credentials(url: str) -> None:
    """Raise ``RequestError``, without showing them, if credentials stand in a URL: URLs are printed and kept."""
    before, _, rest = url.rpartition("://")
    parts = urlsplit(f"{before.rpartition(':')[2]}://{rest}" if before else url)  # simplecache::s3://… is one of s3
    host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].partition(':')[0]}"
    port = parts.netloc.rpartition("@")[2].partition(":")[2]
    bare = not before and without_secrets(url) != url  # https:user:password@host
    if bare or (before and ("@" in parts.netloc or not (port.isdecimal() or not port))):
        raise RequestError(
            f"the URL of {host} holds credentials, which would be printed and kept: "
            "give them in the environment (AWS_ACCESS_KEY_ID, …), in storage options or in a --config file"
        )
    if parts.scheme in ("http", "https") and any(sign in url for sign in "?#;"):
        raise RequestError(
            f"the URL of {host} has a query (?…), such as a signature, a parameter (;…) or a fragment (#…): "
            "a cube is many objects, give its plain URL"
        )


def is_local(url: str) -> bool:
    """Tell whether ``url`` is a path of this machine."""
    return "://" not in url or url.startswith("file://")


def _strip_scheme(url: str) -> str:
    return url.removeprefix("file://")
