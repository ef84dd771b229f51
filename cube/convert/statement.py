"""What the root of a new cube tells its readers. Pure."""

from __future__ import annotations

from typing import Any

from cube.convert.plan import Plan
from cube.format.conventions import convention_attributes
from cube.format.layout import FORMAT
from cube.format.root import opening_line


def root_attributes(plan: Plan, coordinates: list[str], certified: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the root group."""
    recipe = plan.recipe
    layout = recipe.layout
    stacks = [name for name, modality in recipe.modalities.items() if modality.one_file_per_band]
    return {
        "title": recipe.title,
        "Conventions": "CF-1.11",
        **convention_attributes(recipe),
        "coordinates": " ".join(coordinates),
        "open_with": opening_line(plan.inventory.season),
        "notice": "Equal tiles share their bytes: copy the objects of this store as they are, never rewrite them.",
        "cube": {
            "format": FORMAT,
            "recipe": recipe.name,
            "plan": plan.digest,
            "modalities": {name: [band.name for band in m.bands] for name, m in recipe.modalities.items()},
            "seasons": {
                name: {"start": season.start.isoformat(), "end": season.end.isoformat()}
                for name, season in recipe.seasons.items()
            },
            "size": recipe.patch.size,
            "tile": layout.tile,
            **({"one_file_per_band": stacks} if stacks else {}),
            "saturated": {name: m.saturated for name, m in recipe.modalities.items() if m.saturated is not None},
            "software": dict(plan.software),
            "certificate": certified,
        },
    }
