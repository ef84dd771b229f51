"""STAC documents of a catalog as large as SEN12MS, made up: what the datasheet page is tried on."""

from __future__ import annotations

from typing import Any

import numpy as np

from cube.catalog.collection import read_template
from cube.format.layout import class_word
from cube.recipes.recipe import Recipe, read_recipe

Document = dict[str, Any]

BINS = 64
_SCENES = 60
"""In a season whose number of scenes nobody published."""


def full_size(recipe_name: str = "sen12ms") -> tuple[Document, dict[str, Document]]:
    """Return a collection and its items: scenes and patches as many as the recipe's published counts, everything filled in."""
    recipe, rng = read_recipe(recipe_name), np.random.default_rng(12)
    items: dict[str, Document] = {}
    for name, season in recipe.seasons.items():
        scenes = season.scenes or _SCENES
        patches = rng.multinomial((season.patches or 0) - scenes, np.ones(scenes) / scenes) + 1
        for scene, number in enumerate(patches.tolist(), start=1):
            items[f"items/{name}-{scene}.json"] = _item(recipe, (name, scene), number, rng)
    return _collection(recipe, items, rng), items


def _shares(recipe: Recipe, rng: np.random.Generator) -> Document:
    return {
        legend: dict(
            zip([item.name for item in classes], np.round(rng.dirichlet(np.ones(len(classes))), 6).tolist(), strict=True)
        )
        for legend, classes in recipe.legends.items()
    }


def _item(recipe: Recipe, key: tuple[str, int], patches: int, rng: np.random.Generator) -> Document:
    season, scene = key
    names = [item.name for item in next(iter(recipe.legends.values()), ())]
    counted = rng.multinomial(patches, rng.dirichlet(np.ones(len(names)))).tolist() if names else []
    west, south = round(float(rng.uniform(-180, 179)), 7), round(float(rng.uniform(-50, 70)), 7)
    notes = {
        f"patchcube:{count}": {name: int(rng.integers(10**6)) for name in recipe.modalities}
        for count in ("nan_count", "zero_count", "saturated_count")
    }
    pictures = {
        f"overview-{name}": {
            "href": f"../overviews/{season}-{scene}-{name}.png",
            "title": f"Map, 1/8: {modality.title}",
            "proj:shape": [416, 480],
        }
        for name, modality in recipe.modalities.items()
    }
    return {
        "id": f"{season}-{scene}",
        "bbox": [west, south, west + 0.4, south + 0.3],
        "properties": {
            "patchcube:season": season,
            "patchcube:scene": scene,
            "patchcube:split": recipe.split_of(season, scene),
            "patchcube:patches": patches,
            "patchcube:images": dict.fromkeys(recipe.modalities, patches),
            **notes,
            "patchcube:classes": _shares(recipe, rng),
            "patchcube:patches_by_class": {name: number for name, number in zip(names, counted, strict=True) if number},
        },
        "assets": pictures,
    }


def _collection(recipe: Recipe, items: dict[str, Document], rng: np.random.Generator) -> Document:
    bands = []
    for name, modality in recipe.modalities.items():
        for band in modality.bands:
            classes = [
                {"value": item.value, "name": class_word(item.name), "title": item.name, "color_hint": item.color.upper()}
                for item in recipe.legends.get(band.legend or "", ())
            ]
            measured = {
                "statistics": {"minimum": 0, "maximum": 28000, "mean": 1234.56789, "stddev": 987.654321, "count": 10**10},
                "patchcube:histogram": {"lower": 0, "upper": 10240, "counts": rng.integers(10**9, size=BINS).tolist()},
            }
            more = {"classification:classes": classes} if classes else measured
            bands.append(
                {"name": f"{name}[{name}_band={band.name}]", "eo:common_name": band.common_name, "gsd": band.gsd, **more}
            )
    return {
        **read_template(recipe.catalog),
        "id": recipe.name,
        "version": "0123456789abcdef",
        "extent": {"temporal": {"interval": [["2016-12-01T00:00:00Z", "2017-11-30T23:59:59Z"]]}},
        "assets": {"zarr": {"href": f"../{recipe.name}.zarr", "type": "application/vnd.zarr; version=3", "bands": bands}},
        "patchcube:patches": sum(item["properties"]["patchcube:patches"] for item in items.values()),
        "patchcube:raw_bytes": 449_000_000_000,
        "patchcube:stored_bytes": 70_000_000_000,
        "patchcube:tiles": {name: {"used": 722_648, "stored": 250_000} for name in recipe.modalities},
        "patchcube:rejected": {"truncated": 1, "incomplete": 1},
        "patchcube:checks": ["root", "metadata", "pixels"],
        "patchcube:pixels_digest": f"blake3:{'0123456789abcdef' * 4}",
        "patchcube:classes": _shares(recipe, rng),
    }
