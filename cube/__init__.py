"""Folders of satellite patch files into one verified Zarr data cube, and lazy readers of it."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cube.read.open import open_cube
    from cube.read.scenes import open_patch, open_scene
    from cube.train.batches import Batches
    from cube.train.samples import Samples
    from cube.train.shuffle import Shuffle

_HOMES = {
    "Batches": "train.batches",
    "Samples": "train.samples",
    "Shuffle": "train.shuffle",
    "open_cube": "read.open",
    "open_patch": "read.scenes",
    "open_scene": "read.scenes",
}

__all__ = ["Batches", "Samples", "Shuffle", "open_cube", "open_patch", "open_scene"]
__version__ = version("patchcube")


def __getattr__(name: str) -> Any:
    # Workers that only write need no xarray: 0.5 s and 40 MB each.
    if name in _HOMES:
        return getattr(import_module(f"cube.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cube' has no attribute {name!r}")
