"""Folders of satellite patch files into one verified Zarr data cube, and lazy readers of it."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cube.batches import Batches
    from cube.reader import open_cube
    from cube.samples import Samples
    from cube.scenes import open_patch, open_scene
    from cube.shuffle import Shuffle

_HOMES = {
    "Batches": "batches",
    "Samples": "samples",
    "Shuffle": "shuffle",
    "open_cube": "reader",
    "open_patch": "scenes",
    "open_scene": "scenes",
}

__all__ = ["Batches", "Samples", "Shuffle", "open_cube", "open_patch", "open_scene"]
__version__ = version("patchcube")


def __getattr__(name: str) -> Any:
    # Workers that only write need no xarray: 0.5 s and 40 MB each.
    if name in _HOMES:
        return getattr(import_module(f"cube.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cube' has no attribute {name!r}")
