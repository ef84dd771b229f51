"""The section of a recipe that says which small data set ``cube demo`` makes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cube.recipes.sections import Count, Section


class DemoScene(Section):
    """One made scene."""

    season: str
    scene: Count
    epsg: Annotated[int, Field(ge=1024, lt=32767)]
    x: float
    y: float
    """Upper left corner of the first patch, in CRS units."""
    missing: tuple[Count, ...] = ()
    """Patch numbers left out."""


class DemoFile(Section):
    """One file of the made data set."""

    season: str
    scene: Count
    patch: Count
    modality: str


class Demo(Section):
    """The data set that ``cube demo`` makes."""

    rows: Annotated[int, Field(ge=1, le=1024)]
    columns: Annotated[int, Field(ge=1, le=1024)]
    grid_width: Annotated[int, Field(ge=1, lt=2**20)]
    """Patches in a row of the numbering."""
    scenes: Annotated[tuple[DemoScene, ...], Field(min_length=1)]
    broken: DemoFile
    """The file that is cut off in the middle."""
