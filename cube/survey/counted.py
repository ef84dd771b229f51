"""What a survey has counted, kept beside a cube: where it grows, only what is new needs to be looked at.

It is one object: the hash of all that follows, then a NumPy archive. One that is damaged, of another recipe or of other pixels
is none, and everything is counted again.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cube.recipes.recipe import Recipe
from cube.survey.summary import Key

COUNTED = "counted.npz"
"""Name of the object among the build records."""
_FORMAT = 1
_HASH = 32

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The state of a survey after some patches, the first of a cube."""

    patches: int
    scenes: tuple[Key, ...]
    grounded: NDArray[np.bool_]
    """(scene)"""
    drawn: NDArray[np.bool_]
    """(scene)"""
    folds: Mapping[str, Mapping[str, Array]]
    """Modality → name of a count → its values, the first dimension by scene, or by patch."""
    pictures: Mapping[Key, Mapping[str, bytes]] = field(default_factory=dict)
    """Scene → modality → PNG, as the catalog has them; not kept with the rest."""

    def illustrated(self, pictures: Mapping[Key, Mapping[str, bytes]]) -> Counted:
        """Return it with pictures."""
        return replace(self, pictures=pictures)


def packed(counted: Counted, recipe: Recipe, pixels: str) -> bytes:
    """Return the object that is kept of a cube of these pixels."""
    facts = {
        "format": _FORMAT,
        "recipe": _surveyed(recipe),
        "pixels": pixels,
        "patches": counted.patches,
        "scenes": [list(key) for key in counted.scenes],
    }
    arrays: dict[str, Any] = {f"{name} {what}": values for name, of in counted.folds.items() for what, values in of.items()}
    arrays |= {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}
    arrays |= {"grounded": counted.grounded, "drawn": counted.drawn}
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    body = sink.getvalue()
    return blake3(body).digest() + body


def unpacked(data: bytes, recipe: Recipe, pixels: str) -> Counted | None:
    """Return what was kept of a cube of these pixels; None for anything else."""
    body = data[_HASH:]
    if blake3(body).digest() != data[:_HASH]:
        return None
    try:
        # NumPy unpickles nothing unless it is told to.
        with np.load(io.BytesIO(body)) as file:
            arrays = dict(file)
        facts = json.loads(arrays.pop("facts").tobytes())
        known = facts["format"], facts["recipe"], facts["pixels"]
        if known != (_FORMAT, _surveyed(recipe), pixels):
            return None
        scenes = tuple((str(season), int(scene)) for season, scene in facts["scenes"])
        grounded, drawn = arrays.pop("grounded"), arrays.pop("drawn")
        folds: dict[str, dict[str, Array]] = {name: {} for name in recipe.modalities}
        for key, values in arrays.items():
            name, _, what = key.partition(" ")
            folds[name][what] = values
        return Counted(patches=int(facts["patches"]), scenes=scenes, grounded=grounded, drawn=drawn, folds=folds)
    except (ValueError, LookupError, TypeError, OSError, zipfile.BadZipFile):
        return None


def _surveyed(recipe: Recipe) -> str:
    """Return the hash of what of a recipe decides what is counted."""
    document = recipe.model_dump(mode="json", include={"modalities", "legends"})
    document |= {"tile": recipe.layout.tile, "shard": recipe.layout.shard, "size": recipe.patch.size}
    return str(blake3(json.dumps(document, sort_keys=True).encode()).hexdigest())
