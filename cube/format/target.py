"""Where a cube, its build records and its catalog lie: ``X.zarr``, ``X.build`` and ``X.stac``, side by side."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cube.errors import CubeError, StorageError, TargetError
from cube.store.protocol import Store
from cube.store.urls import is_local, open_store, refuse_credentials

_SUFFIX = ".zarr"
UNFINISHED = "unfinished"
"""Folder of a local build where files are written until they are whole."""
ROOT = "zarr.json"
COLLECTION = "collection.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Answers of a disk that is full."""


@dataclass(frozen=True, slots=True)
class Target:
    """The three stores of one cube. Small and picklable."""

    url: str
    cube: Store
    """The Zarr group and nothing else."""
    build: Store
    """Plan, receipts and report."""
    stac: Store
    """The catalog."""

    @property
    def beside(self) -> Store:
        """The build records, written with no way by the folder of unfinished files: until a build gives a sign of life,
        others may clear that.
        """
        return open_store(self.build.url, options=self.build.options)

    def complete(self) -> bool:
        """Tell whether the cube can be opened: its root metadata, written last, is there."""
        return self.cube.exists(ROOT)

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Turn what a disk or a network answers while the cube is written into an error that says what to do."""
        try:
            yield
        except CubeError:
            raise
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise StorageError(f"writing to {self.url} failed: {reason}; {remedy(error)} and run again") from error

    @contextmanager
    def writable(self) -> Iterator[None]:
        """Turn what is answered to the first small objects that are written into an error that says what to do."""
        if is_local(self.url) and os.path.isfile(self.cube.url):
            raise TargetError(f"{self.url}: cannot be written (it is a file); choose another --to")
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            if error.errno in FULL:
                raise StorageError(f"writing to {self.url} failed: {reason}; {remedy(error)} and run again") from error
            raise TargetError(f"{self.url}: cannot be written ({reason}); choose another --to or mend its rights") from None


def remedy(error: OSError) -> str:
    """Return what to do about a failure to write."""
    return "free some space (there and in the temporary folder)" if error.errno in FULL else "mend that"


def target_of(url: str, *, options: Mapping[str, Any] | None = None, flush: bool = True) -> Target:
    """Return the stores of a cube by its URL; without ``flush``, writing there does not wait for the disk.

    Raises ``TargetError`` if the URL does not end in ``.zarr``, ``RequestError`` if it holds credentials.
    """
    refuse_credentials(url)
    url = url.rstrip("/")
    stem = url.removesuffix(_SUFFIX)
    if stem == url or not os.path.basename(stem):
        raise TargetError(f"{url!r}: expected a path or URL that ends in {_SUFFIX}, such as cubes/name{_SUFFIX}")
    staging = f"{stem}.build/{UNFINISHED}" if is_local(url) else ""
    return Target(
        url,
        open_store(url, options=options, staging=staging, flush=flush),
        open_store(f"{stem}.build", options=options, staging=staging, flush=flush),
        open_store(f"{stem}.stac", options=options, staging=staging, flush=flush),
    )
