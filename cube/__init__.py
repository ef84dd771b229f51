"""Folders of satellite patch files into one verified Zarr data cube, and lazy readers of it."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cube.reader import open_cube

__all__ = ["open_cube"]
__version__ = version("patchcube")


def __getattr__(name: str) -> Any:
    # Workers that only write need no xarray: 0.5 s and 40 MB each.
    if name == "open_cube":
        from cube.reader import open_cube

        return open_cube
    raise AttributeError(f"module 'cube' has no attribute {name!r}")
