"""SEN12MS with its true names and its true grid, but patches of 16 × 16 pixels at a stride of 8.

Every one of the 180,662 triplets has its three files. They are laid out as GDAL lays them out and read by the same code as
the real ones; patches that overlap on the grid hold equal pixels there. **Pixels are noise, and CRS and corners of the
scenes are made up** (the index says where a patch lies in its scene, not where the scene lies).
"""

from __future__ import annotations

import csv
import gzip
import os
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cube.recipes.recipe import Recipe, read_recipe
from cube.source.demo import tiff

SHARED = Path(os.environ.get("CUBE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
SIZE, STRIDE = 16, 8
"""Pixels along one side of a patch, and between one patch and the next."""
_CORNER = struct.Struct("<6d")


@dataclass(frozen=True)
class TinyScene:
    """One scene and the numbers of its patches, row by row on a grid ``width`` patches wide."""

    season: str
    """Token of the file names, such as ``1158_spring``."""
    number: int
    width: int
    patches: tuple[int, ...]

    @property
    def epsg(self) -> int:
        """A made-up UTM zone, the same for each run."""
        return 32601 + self._hash % 60

    @property
    def corner(self) -> tuple[float, float]:
        """Made-up upper left corner of the grid in metres."""
        return 400000.25 + self._hash % 1000, 5400000.5 + self._hash // 1000 % 1000

    @property
    def _hash(self) -> int:
        return zlib.crc32(f"{self.season} {self.number}".encode())


def read_scenes() -> list[TinyScene]:
    """Return the 252 scenes of the index, in its order."""
    found: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    with gzip.open(SHARED / "data/index/sen12ms_index_180662.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            key = row["roi_season"].removeprefix("ROIs"), int(row["scene"]), int(row["grid_width"])
            found[key].append(int(row["patch"]))
    return [TinyScene(*key, tuple(patches)) for key, patches in found.items()]


def write_recipe(path: Path) -> Path:
    """Write the recipe of SEN12MS for patches of this size."""
    path.write_text(f"extends: sen12ms\nname: tiny\npatch: {{size: {SIZE}}}\nlayout: {{tile: {STRIDE}}}\n", encoding="utf-8")
    return path


def make_tiny(folder: Path, scenes: Iterable[TinyScene], recipe: Path, *, processes: int = 2) -> int:
    """Write the files of some scenes and return how many there are."""
    with ProcessPoolExecutor(processes) as pool:
        return sum(pool.map(partial(_write_scene, folder, recipe), scenes))


def link_scenes(folder: Path, source: Path, scenes: Iterable[TinyScene]) -> Path:
    """Make a source of some scenes out of links to their folders in a larger one."""
    for scene in scenes:
        season = Path(f"ROIs{scene.season}")
        (folder / season).mkdir(parents=True, exist_ok=True)
        for path in (source / season).glob(f"*_{scene.number}"):
            (folder / season / path.name).symlink_to(path)
    return folder


def _write_scene(folder: Path, recipe_path: Path, scene: TinyScene) -> int:
    recipe = read_recipe(str(recipe_path))
    for modality in recipe.modalities:
        _write_images(folder, recipe, modality, scene)
    return len(recipe.modalities) * len(scene.patches)


def _write_images(folder: Path, recipe: Recipe, modality: str, scene: TinyScene) -> None:
    """Write all files of one scene and modality: one header with the corner put in, then a window of one image."""
    image = _scene_image(recipe, modality, scene)
    blank = np.zeros((SIZE, SIZE, image.shape[2]), image.dtype)
    header = tiff(blank, scene.epsg, scene.corner)[: -blank.nbytes]
    before, after = header.split(_CORNER.pack(0, 0, 0, *scene.corner, 0))
    pattern = recipe.source.path.format(season=scene.season, modality=modality, scene=scene.number, patch="{}")
    (folder / pattern).parent.mkdir(parents=True, exist_ok=True)
    for patch in scene.patches:
        row, column = divmod(patch, scene.width)
        top, left = row * STRIDE, column * STRIDE
        corner = _CORNER.pack(0, 0, 0, scene.corner[0] + 10 * left, scene.corner[1] - 10 * top, 0)
        pixels = image[top : top + SIZE, left : left + SIZE].tobytes()
        with open(folder / pattern.format(patch), "wb", buffering=0) as file:
            file.write(b"".join((before, corner, after, pixels)))


def _scene_image(recipe: Recipe, modality: str, scene: TinyScene) -> np.ndarray:
    """Return noise (y, x, band) under the whole grid of a scene, always the same; classes of the legend for class bands."""
    facts = recipe.modalities[modality]
    rng = np.random.default_rng(zlib.crc32(f"{scene.season} {scene.number} {modality}".encode()))
    shape = STRIDE * (max(scene.patches) // scene.width) + SIZE, STRIDE * scene.width + SIZE
    bands = []
    for band in facts.bands:
        if band.legend:
            bands.append(rng.choice([item.value for item in recipe.legends[band.legend]], shape))
        elif facts.numpy_dtype.kind == "f":
            bands.append(rng.normal(-12, 4, shape))
        else:
            bands.append(rng.integers(500, 2000, shape))
    return np.stack(bands, axis=-1).astype(facts.numpy_dtype)
