"""What tests are made of: small SEN12MS-shaped files whose every pixel is known, tiny recipes, and builds in this process."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

SEEDS = {"spring": 1158, "summer": 1868, "fall": 1970, "winter": 2017}
"""Season → the number in its file names, in the order of a cube."""
MODALITIES = ("s1", "s2", "lc")
BANDS = {"s1": 2, "s2": 13, "lc": 4}
DTYPES = {"s1": "float32", "s2": "uint16", "lc": "uint8"}
FILLS = {"s1": np.nan, "s2": 0, "lc": 0}
"""What a reader sees where a patch lacks a modality."""
LAND_COVER = ((1, 4, 8, 12, 13, 17), (1, 3, 11, 14, 31, 42), (1, 3, 9, 20, 30, 40), (1, 3, 10, 27, 40, 51))
"""Some classes of each band's scheme."""

LEFT_OUT: set[str] = set()
"""Why tests were left out in this session."""


def leave_out(reason: str, *, required: bool = True) -> None:
    """Skip the running test and have the session say so in one line; where ``CI=true``, fail it instead if required."""
    if required and os.environ.get("CI") == "true":
        pytest.fail(f"in CI nothing is left out: {reason}", pytrace=False)
    LEFT_OUT.add(reason)
    pytest.skip(reason)


def require_torch() -> None:
    """Leave the running test out where PyTorch is not installed, which it is on one line of Python only."""
    if not find_spec("torch"):
        leave_out("PyTorch: it is tested on Python 3.11 only and is not installed here", required=sys.version_info < (3, 12))


@dataclass(frozen=True)
class Scene:
    """One scene image, cut into patches at half a patch's stride."""

    season: str
    number: int
    rows: int = 3
    columns: int = 4
    gaps: tuple[tuple[int, int], ...] = ()
    """(row, column) places where the data set has no patch; the numbers go on over them."""
    first: int = 30
    """Number of the patch in the upper left corner."""
    epsg: int = 32632
    origin: tuple[float, float] = (600000.25, 5400000.5)
    """Upper left corner of the scene, in metres."""

    def places(self) -> Iterable[tuple[int, int, int]]:
        """Yield patch number, row and column, in order."""
        for row in range(self.rows):
            for column in range(self.columns):
                if (row, column) not in self.gaps:
                    yield self.first + row * self.columns + column, row, column

    def id(self, number: int) -> str:
        """Return the id of one patch."""
        return f"ROIs{SEEDS[self.season]}_{self.season}_{self.number}_p{number}"


SCENES = (
    Scene("spring", 1, rows=3, columns=4, gaps=((1, 2),)),
    Scene("spring", 15, rows=2, columns=3, first=0, epsg=32737, origin=(375412.3389928384, 8116742.836060452)),
    Scene("summer", 1, rows=3, columns=3, gaps=((0, 0),), epsg=32633),
)
"""Three scenes, two of them of one number; 25 patches. ``spring/15`` is of the official test split."""


@dataclass(frozen=True)
class Made:
    """Files that were made, and all that is known about them. Everything is in the order of a cube."""

    folder: Path
    size: int
    ids: list[str] = field(default_factory=list)
    scenes: dict[str, Scene] = field(default_factory=dict)
    """Id → its scene."""
    numbers: dict[str, int] = field(default_factory=dict)
    """Id → patch number."""
    transforms: dict[str, Affine] = field(default_factory=dict)
    """Id → affine transform."""
    files: dict[tuple[str, str], Path] = field(default_factory=dict)
    """Id and modality → its file; no entry where none was written."""
    pixels: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    """Id and modality → (band, y, x)."""

    def array(self, modality: str) -> np.ndarray:
        """Return what a cube of all these patches must hold: (patch, band, y, x), fill values where a file is missing."""
        shape = len(self.ids), BANDS[modality], self.size, self.size
        whole = np.full(shape, FILLS[modality], DTYPES[modality])
        for row, name in enumerate(self.ids):
            if (name, modality) in self.pixels:
                whole[row] = self.pixels[name, modality]
        return whole

    def present(self) -> np.ndarray:
        """Return (patch, modality): which files there are."""
        return np.array([[(name, modality) in self.files for modality in MODALITIES] for name in self.ids])


def make_patches(
    folder: Path, scenes: Iterable[Scene] = SCENES, *, size: int = 32, missing: Iterable[tuple[str, str]] = ()
) -> Made:
    """Write SEN12MS-shaped files cut from one deterministic image per scene, so that neighbours overlap bit-identically.

    ``missing`` names (id, modality) pairs whose file is not written. Files are uncompressed, interleaved by pixel, with
    CRS and transform, in the folders ``ROIs1158_spring/s2_1/``. A few pixels are NaN, zero and saturated.
    """
    made, missing = Made(Path(folder), size), set(missing)
    stride = size // 2
    for scene in sorted(scenes, key=lambda item: (list(SEEDS).index(item.season), item.number)):
        images = {name: scene_image(scene, name, size) for name in MODALITIES}
        for number, row, column in scene.places():
            name, top, left = scene.id(number), row * stride, column * stride
            made.ids.append(name)
            made.scenes[name], made.numbers[name] = scene, number
            x, y = scene.origin[0] + 10.0 * left, scene.origin[1] - 10.0 * top
            made.transforms[name] = Affine(10.0, 0.0, x, 0.0, -10.0, y)
            for modality, image in images.items():
                if (name, modality) in missing:
                    continue
                pixels = np.ascontiguousarray(image[:, top : top + size, left : left + size])
                path = made.folder / source_path(scene, number, modality)
                write_tif(path, pixels, crs=f"EPSG:{scene.epsg}", transform=made.transforms[name])
                made.files[name, modality], made.pixels[name, modality] = path, pixels
    return made


def source_path(scene: Scene, number: int, modality: str) -> str:
    """Return where a file lies in a source."""
    stem = f"ROIs{SEEDS[scene.season]}_{scene.season}"
    return f"{stem}/{modality}_{scene.number}/{stem}_{modality}_{scene.number}_p{number}.tif"


def scene_image(scene: Scene, modality: str, size: int = 32) -> np.ndarray:
    """Return the whole image of a scene: (band, y, x), always the same for the same scene."""
    height, width = (scene.rows + 1) * size // 2, (scene.columns + 1) * size // 2
    rng = np.random.default_rng(zlib.crc32(f"{scene.season} {scene.number} {modality}".encode()))
    y, x = np.mgrid[0:height, 0:width]
    if modality == "lc":
        cells = rng.integers(0, 6, (len(LAND_COVER), height // 8 + 1, width // 8 + 1))
        classes = np.array(LAND_COVER)
        return np.stack([classes[band][cell[y // 8, x // 8]] for band, cell in enumerate(cells)]).astype("uint8")
    shape = BANDS[modality], height, width
    if modality == "s1":
        image = (rng.integers(-40, 40, shape) / 8 - 12 + (x + y) / 64).astype("float32")
        image[0, 5, 5], image[1, 6, 20] = np.nan, 0.0
        return image
    image = (rng.integers(1, 200, shape) + 1000 + 4 * x + 3 * y).astype("uint16")
    image[3, 7, 7], image[:, 8, 18] = 65535, 0
    return image


def write_tif(path: Path, pixels: np.ndarray, *, crs: str | None, transform: Affine | None, **profile: Any) -> None:
    """Write (band, y, x) as one GeoTIFF, by default as SEN12MS is: uncompressed and interleaved by pixel."""
    bands, height, width = pixels.shape
    settings: dict[str, Any] = {"interleave": "pixel", "crs": crs, "transform": transform}
    if pixels.dtype == np.uint8 and bands == 4:
        settings |= {"photometric": "RGB", "alpha": "YES"}
    settings |= profile
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=pixels.dtype, **settings
    ) as image:
        image.write(pixels)
        if settings.get("alpha"):
            image.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)


def write_recipe(path: Path, *, base: str = "sen12ms", size: int = 32, tile: int = 16, shard: int = 16, more: str = "") -> Path:
    """Write a recipe that is a bundled one but for its sizes, and return its path; ``more`` is YAML added at the end."""
    path.write_text(
        f"extends: {base}\nname: tiny\npatch: {{size: {size}}}\nlayout: {{tile: {tile}, shard: {shard}, labels: 64}}\n{more}",
        encoding="utf-8",
    )
    return path


@dataclass(frozen=True)
class Built:
    """One build in this process."""

    url: str
    plan: Any = field(repr=False)
    written: Any = field(repr=False)
    """What ``write_cube`` gave."""
    target: Any


def survey(built: Built, client: Any = None) -> tuple[Any, Any]:
    """Verify a cube and return its report and its survey."""
    from cube.survey.surveyor import Surveyor
    from cube.verify.verification import verify_cube

    surveyor = Surveyor(built.plan.recipe)
    report = verify_cube(built.target, client, surveyor=surveyor)
    return report, surveyor.survey()


def build(
    recipe: str | Path,
    source: str | Path,
    to: str | Path,
    *,
    incomplete: str | None = None,
    software: Mapping[str, str] | None = None,
    client: Any = None,
) -> Built:
    """Build a cube in this process, without Dask unless ``client`` is given."""
    import numcodecs

    from cube.convert.deciding import make_plan
    from cube.convert.writer import write_cube
    from cube.format.target import target_of
    from cube.recipes.recipe import read_recipe
    from cube.source.scan import examine, scan

    known = read_recipe(str(recipe))
    inventory = examine(known, scan(known, str(source)))
    versions = dict(software or {"numcodecs": numcodecs.__version__})
    plan = make_plan(known, inventory, incomplete=incomplete or known.source.incomplete, software=versions)
    target = target_of(str(to))
    return Built(str(to), plan, write_cube(plan, target, client), target)
