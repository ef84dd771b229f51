"""Arrays that a cube has only where its files, or its growth, need them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cube.format.arrays import ArraySpec
from cube.format.layout import constant, label_spec
from cube.format.versions import SUPERSEDES

if TYPE_CHECKING:
    from cube.recipes.recipe import Recipe

ADDITIONS = frozenset({"crs_index", "crs_wkt", SUPERSEDES})
_ROOM = 4096
"""Characters by which the room for the definition of a CRS is measured."""


def definition_arrays(
    recipe: Recipe, patches: int, definitions: Sequence[str]
) -> tuple[ArraySpec, tuple[ArraySpec, NDArray[Any]]]:
    """Return, for patches whose CRS has no EPSG code, the label that points at its definition, and the definitions."""
    text = "row of crs_wkt that defines the patch's CRS; -1 where epsg does or it is unknown"
    spec, values = constant("crs_wkt", ("crs_definition",), list(definitions), "definition of a CRS without an EPSG code, WKT2")
    room = -(-max(map(len, definitions)) // _ROOM) * _ROOM  # one chunk each, of one length, so that others can follow
    table = replace(spec, chunks=(1,), dtype=f"<U{room}"), values.astype(f"<U{room}")
    return label_spec(recipe, patches, "crs_index", "<i4", text, fill=-1), table


def supersedes_array(recipe: Recipe, patches: int) -> ArraySpec:
    """Return, for patches that take the place of others, the label that says of which."""
    text = "row of the patch whose place this one takes; -1 where it takes none"
    return label_spec(recipe, patches, SUPERSEDES, "<i4", text, fill=-1)
