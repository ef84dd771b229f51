"""What a recipe expects of every patch file. Pure."""

from __future__ import annotations

from cube.recipes.recipe import Recipe
from cube.source.rasters import Expectation


def expectations(recipe: Recipe) -> dict[str, Expectation]:
    """Return what every file of each modality must be."""
    return {
        name: Expectation(
            dtype=modality.dtype,
            size=recipe.patch.size,
            bands=len(modality.bands),
            georeferenced=recipe.source.georeference == "file",
        )
        for name, modality in recipe.modalities.items()
    }
