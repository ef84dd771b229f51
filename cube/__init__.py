"""Folders of satellite patch files into one verified Zarr data cube, and lazy readers of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from cube.convert.tolerance import Tolerance
    from cube.jobs.build import build
    from cube.jobs.export import export
    from cube.read.open import open_cube
    from cube.read.scenes import open_patch, open_scene
    from cube.train.batches import Batches
    from cube.train.samples import Samples
    from cube.train.shuffle import Shuffle

_HOMES = {
    "Batches": "train.batches",
    "Samples": "train.samples",
    "Shuffle": "train.shuffle",
    "Tolerance": "convert.tolerance",
    "build": "jobs.build",
    "export": "jobs.export",
    "open_cube": "read.open",
    "open_patch": "read.scenes",
    "open_scene": "read.scenes",
}

__all__ = ["Batches", "Samples", "Shuffle", "Tolerance", "build", "export", "open_cube", "open_patch", "open_scene"]


def __getattr__(name: str) -> Any:
    # Workers that only write need no xarray: 0.5 s and 40 MB each.
    if name in _HOMES:
        return getattr(import_module(f"cube.{_HOMES[name]}"), name)
    if name == "__version__":  # 0.1 s, which nobody needs who opens a cube
        from importlib.metadata import version

        return version("patchcube")
    raise AttributeError(f"module 'cube' has no attribute {name!r}")
