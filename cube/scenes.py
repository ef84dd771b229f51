"""Whole scenes and single patches as georeferenced datasets."""

from cube.read.scenes import open_patch, open_scene

__all__ = ["open_patch", "open_scene"]
