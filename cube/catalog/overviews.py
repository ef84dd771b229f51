"""The overview pictures of a catalog: where they lie, and the assets that name them. Pure."""

from __future__ import annotations

import struct

from cube.catalog.collection import Document, file_facts
from cube.recipes.recipe import Recipe
from cube.survey.summary import Key, Survey

OVERVIEWS = "overviews"
"""Folder of the pictures."""


def pictures(survey: Survey) -> dict[str, bytes]:
    """Return the pictures by where they lie in the catalog."""
    return {
        overview_path(key, name): picture for key, of_scene in survey.overviews.items() for name, picture in of_scene.items()
    }


def overview_path(key: Key, name: str) -> str:
    """Return where the picture of a scene and a modality lies in a catalog."""
    return f"{OVERVIEWS}/{key[0]}-{key[1]}-{name}.png"


def overview_assets(recipe: Recipe, key: tuple[str, int], survey: Survey) -> Document:
    """Return the overviews of a scene; the first in colours, or else the first, is its thumbnail too."""
    assets, what = {}, "Map" if survey.drawn[key] else "Patches side by side"
    for name, picture in survey.overviews[key].items():
        width, height = struct.unpack(">II", picture[16:24])
        assets[f"overview-{name}"] = {
            "href": f"../{overview_path(key, name)}",
            "type": "image/png",
            "title": f"{what}, 1/{survey.reduction[name]}: {recipe.modalities[name].title}",
            "roles": ["overview"],
            "proj:shape": [height, width],
            **file_facts(picture),
        }
    colored = (name for name, modality in recipe.modalities.items() if any(b.common_name == "red" for b in modality.bands))
    first = next(colored, next(iter(recipe.modalities)))
    return {**assets, "thumbnail": {**assets[f"overview-{first}"], "roles": ["thumbnail"]}}
