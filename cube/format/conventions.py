"""Which published conventions of Zarr a cube follows, as its root document declares them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cube.recipes.recipe import Recipe

CATALOG = "../{name}.stac/collection.json"
"""Where the catalog lies, from the cube: ``name`` is the cube's own without ``.zarr``, so that a cube may be renamed."""
_CF = {
    "uuid": "77c308c7-4db2-4774-8b2d-aa37e9997db6",
    "name": "CF",
    "version": "1.11",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/CF/refs/tags/v1/schema.json",
    "spec_url": "https://cfconventions.org/Data/cf-conventions/cf-conventions-1.11/cf-conventions.html",
}
_SPATIAL = {
    "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
    "name": "spatial",
    "description": "Spatial coordinate information",
}


def convention_attributes(recipe: Recipe) -> dict[str, Any]:
    """Return the root attributes that tell readers of conventions what a cube is.

    A cube has a CRS and an affine for each patch, in its labels. A transform type of its own keeps readers from making one
    grid of all patches.
    """
    if recipe.source.georeference != "file":
        return {"zarr_conventions": [_CF], "catalog": CATALOG}
    return {
        "zarr_conventions": [_CF, _SPATIAL],
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [recipe.patch.size, recipe.patch.size],
        "spatial:transform_type": "per-sample",
        "catalog": CATALOG,
    }
