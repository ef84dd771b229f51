"""A small made data set, the same on every machine: what it looks like comes from the recipe ``demo``.

The value fields are built from hashed integers with integer arithmetic, so no random generator and no FFT of any library
version can change a pixel.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from cube.recipes.made import Demo, DemoFile, DemoScene
from cube.recipes.recipe import Recipe, read_recipe
from cube.recipes.sections import Modality

_PIXEL = 10.0
"""Metres."""
_CLASS_BLOCK = 46
"""Pixels of one land-cover cell: 500 m on a 10 m grid."""
_ONE = 1 << 12
"""Fields hold integers from 0 to this."""

_SOIL = {0.4: 500, 0.49: 800, 0.56: 1200, 0.665: 1600, 0.8: 2400, 1.6: 3400, 2.2: 3000}
_LEAF = {0.4: 250, 0.49: 300, 0.56: 750, 0.665: 400, 0.705: 1100, 0.75: 2800, 0.9: 3600, 1.6: 1800, 2.2: 800}
"""Wavelength in micrometres → reflectance × 10,000."""

Field = NDArray[np.int64]


def make_demo(folder: Path, name: str = "demo") -> str:
    """Write the made data set of a recipe into a folder and say what was written; files that exist are kept.

    Raises ``ValueError`` if the recipe describes no made data set.
    """
    recipe = read_recipe(name)
    if recipe.demo is None:
        raise ValueError(f"recipe {name!r} describes no made data set")
    files = size = 0
    for path, data in _files(recipe, recipe.demo):
        target = folder / path
        files, size = files + 1, size + len(data)
        if not target.exists() or target.stat().st_size != len(data):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    return f"{files} files, {size / 1e6:.0f} MB, {len(recipe.demo.scenes)} scenes, one file cut off in the middle"


def true_color(recipe: Recipe) -> dict[str, Any]:
    """Return a selection of a season and of the red, green and blue bands, as ``xarray.Dataset.sel`` takes it."""
    chosen: dict[str, Any] = {"season": list(recipe.seasons)[1]}
    for name, modality in recipe.modalities.items():
        bands = {band.common_name: band.name for band in modality.bands}
        if {"red", "green", "blue"} <= bands.keys():
            chosen[f"{name}_band"] = [bands[color] for color in ("red", "green", "blue")]
    return chosen


def _files(recipe: Recipe, demo: Demo) -> Iterator[tuple[str, bytes]]:
    for scene in demo.scenes:
        for modality in recipe.modalities:
            pixels = scene_image(recipe, scene, modality)
            for number, row, column in _places(demo, scene):
                path = _path(recipe, scene.season, modality, scene.scene, number)
                data = _file(recipe, scene, pixels, row, column)
                if DemoFile(season=scene.season, scene=scene.scene, patch=number, modality=modality) == demo.broken:
                    data = data[: len(data) // 2]
                yield path, data


def _places(demo: Demo, scene: DemoScene) -> Iterator[tuple[int, int, int]]:
    """Yield number, row and column of every patch that is not left out."""
    for row in range(demo.rows):
        for column in range(demo.columns):
            number = (row + 1) * demo.grid_width + column + 1
            if number not in scene.missing:
                yield number, row, column


def _path(recipe: Recipe, season: str, modality: str, scene: int, number: int) -> str:
    tokens = {"season": recipe.seasons[season].token, "modality": recipe.modalities[modality].token}
    return recipe.source.path.format(**tokens, scene=scene, patch=number)


def scene_image(recipe: Recipe, scene: DemoScene, modality: str) -> NDArray[Any]:
    """Return one whole made scene (y, x, band) of a modality, in its own type."""
    assert recipe.demo is not None
    tile, size = recipe.layout.tile, recipe.patch.size
    shape = (recipe.demo.rows - 1) * tile + size, (recipe.demo.columns - 1) * tile + size
    seed = f"{scene.season} {scene.scene}"
    land = _field(f"{seed} land", shape, (256, 64, 16, 4))
    wet = land < np.quantile(land, 0.25)
    facts = recipe.modalities[modality]
    if any(band.legend for band in facts.bands):
        return _classes(recipe, facts, land, wet)
    if facts.units == "dB":
        return _backscatter(facts, seed, land, wet)
    return _reflectance(facts, seed, land, wet)


def _classes(recipe: Recipe, facts: Modality, land: Field, wet: NDArray[np.bool_]) -> NDArray[Any]:
    """Classes of coarse cells, by height and water."""
    cells = np.arange(max(land.shape)) // _CLASS_BLOCK * _CLASS_BLOCK
    coarse = land[np.ix_(cells[: land.shape[0]], cells[: land.shape[1]])]
    water = wet[np.ix_(cells[: land.shape[0]], cells[: land.shape[1]])]
    bands = []
    for band in facts.bands:
        codes = [item.value for item in recipe.legends[band.legend or ""]]
        dry = np.array(codes[: max(2, len(codes) * 2 // 3)])
        band_values = dry[coarse * len(dry) // (_ONE + 1)]
        named = [item.value for item in recipe.legends[band.legend or ""] if "Water" in item.name]
        bands.append(np.where(water, named[0], band_values) if named else band_values)
    return np.stack(bands, axis=-1).astype(facts.numpy_dtype)


def _backscatter(facts: Modality, seed: str, land: Field, wet: NDArray[np.bool_]) -> NDArray[Any]:
    """Decibels: dark water, rough land, speckle down to the last bit of the mantissa."""
    bands = []
    for place, band in enumerate(facts.bands):
        speckle = sum(_noise(f"{seed} {band.name} {look}", land.shape) for look in range(3)) - 3 * (1 << 15)
        height = np.where(wet, -20.0, -14.0 + land * 7.0 / _ONE) - 6.5 * place
        bands.append(np.clip(height + speckle * (5.0 / (1 << 16)), -36.5, 0.0))
    return np.stack(bands, axis=-1).astype(facts.numpy_dtype)


def _reflectance(facts: Modality, seed: str, land: Field, wet: NDArray[np.bool_]) -> NDArray[Any]:
    """Reflectance × 10,000: dark water, brown soil, leaves bright in the near infrared, fields in patches, blue haze."""
    fields = _field(f"{seed} fields", land.shape, (96, 24)) * 9 // _ONE * _ONE // 9
    plants = (_field(f"{seed} plants", land.shape, (128, 32, 8)) + fields) * 2 - _ONE * 3 // 2
    plants = np.clip(plants, 0, _ONE)
    bands = []
    for band in facts.bands:
        wave = band.center_wavelength or 1.0
        fine = _field(f"{seed} {band.name}", land.shape, (8, 2) if (band.gsd or 10.0) <= 20 else (32, 16))
        haze, soil, leaf = round(600 * (0.443 / wave) ** 4), _spectrum(_SOIL, wave), _spectrum(_LEAF, wave)
        dry = (soil * (_ONE - plants) + leaf * plants) // _ONE * (land + 2 * _ONE) // (3 * _ONE)
        value = haze + np.where(wet, 90, dry) + (fine - _ONE // 2) * 140 // _ONE
        if band.common_name == "cirrus":
            value = 10 + fine * 30 // _ONE
        bands.append(np.clip(value, 1, 10000))
    return np.stack(bands, axis=-1).astype(facts.numpy_dtype)


def _spectrum(points: dict[float, int], wave: float) -> int:
    return round(float(np.interp(wave, list(points), list(points.values()))))


def _field(seed: str, shape: tuple[int, int], scales: tuple[int, ...]) -> Field:
    """Return smooth noise from 0 to ``_ONE``: lattices of hashed integers, linearly interpolated, coarse ones strongest."""
    total = np.zeros(shape, np.int64)
    weight = 0
    for step in scales:
        rows, columns = shape[0] // step + 2, shape[1] // step + 2
        lattice = _hashed(f"{seed} {step}", rows * columns).astype(np.int64).reshape(rows, columns) * _ONE >> 16
        total += _interpolate(lattice, shape, step) * step
        weight += step
    return total // weight


def _interpolate(lattice: Field, shape: tuple[int, int], step: int) -> Field:
    (y, ty), (x, tx) = (np.divmod(np.arange(length), step) for length in shape)
    left = lattice[y][:, x] * (step - ty)[:, None] + lattice[y + 1][:, x] * ty[:, None]
    right = lattice[y][:, x + 1] * (step - ty)[:, None] + lattice[y + 1][:, x + 1] * ty[:, None]
    return np.asarray((left * (step - tx) + right * tx) // (step * step))


def _noise(seed: str, shape: tuple[int, int]) -> Field:
    return _hashed(seed, shape[0] * shape[1]).astype(np.int64).reshape(shape)


def _hashed(seed: str, count: int) -> NDArray[np.uint16]:
    return np.frombuffer(hashlib.shake_128(seed.encode()).digest(2 * count), "<u2")


def _file(recipe: Recipe, scene: DemoScene, pixels: NDArray[Any], row: int, column: int) -> bytes:
    tile, size = recipe.layout.tile, recipe.patch.size
    window = pixels[row * tile : row * tile + size, column * tile : column * tile + size]
    corner = scene.x + column * tile * _PIXEL, scene.y - row * tile * _PIXEL
    return tiff(np.ascontiguousarray(window), scene.epsg, corner)


def tiff(pixels: NDArray[Any], epsg: int, corner: tuple[float, float]) -> bytes:
    """Return an uncompressed, pixel-interleaved GeoTIFF of pixels (y, x, band), laid out as GDAL lays it out."""
    height, width, bands = pixels.shape
    strip_rows = max(1, 8192 // (width * bands * pixels.itemsize))
    strips = -(-height // strip_rows)
    row_bytes = width * bands * pixels.itemsize
    sizes = [min(strip_rows, height - at * strip_rows) * row_bytes for at in range(strips)]
    color = bands == 4 and pixels.dtype.itemsize == 1
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    extra = bands - 3 if color else bands - 1
    names = f"{CRS.from_epsg(epsg).name}|WGS 84|\0".encode()
    geokeys = _geokeys(epsg, len(names))
    tags: list[tuple[int, str, list[Any]]] = [
        (256, "H", [width]),
        (257, "H", [height]),
        (258, "H", [pixels.itemsize * 8] * bands),
        (259, "H", [1]),
        (262, "H", [2 if color else 1]),
        (273, "I", [0] * strips),
        (277, "H", [bands]),
        (278, "H", [strip_rows]),
        (279, "I", sizes),
        (284, "H", [1]),
        *([(338, "H", [2 if color else 0] * extra)] if extra else []),
        (339, "H", [kind] * bands),
        (33550, "d", [_PIXEL, _PIXEL, 0.0]),
        (33922, "d", [0.0, 0.0, 0.0, *corner, 0.0]),
        (34735, "H", geokeys),
        (34737, "s", [names]),
    ]
    return _assemble(tags, sizes) + pixels.tobytes()


def _geokeys(epsg: int, names: int) -> list[int]:
    """Return the GeoKey directory of a projected CRS: model, raster, citations, units and code."""
    citation = names - 8
    keys = [1024, 0, 1, 1, 1025, 0, 1, 1, 1026, 34737, citation, 0, 2049, 34737, 7, citation, 2054, 0, 1, 9102]
    return [1, 1, 0, 7, *keys, 3072, 0, 1, epsg, 3076, 0, 1, 9001]


def _assemble(tags: list[tuple[int, str, list[Any]]], sizes: list[int]) -> bytes:
    """Return header, directory and tag values; the pixels follow at once."""
    codes = {"s": 2, "H": 3, "I": 4, "d": 12}
    at = 8 + 2 + 12 * len(tags) + 4
    counts = {tag: len(values[0]) if code == "s" else len(values) for tag, code, values in tags}
    room = [struct.calcsize(f"<{counts[tag]}{code}") for tag, code, _ in tags]
    start = at + sum(size for size in room if size > 4)
    directory, body = b"", b""
    for tag, code, listed in tags:
        values = [start + sum(sizes[:place]) for place in range(len(sizes))] if tag == 273 else listed
        packed = struct.pack(f"<{counts[tag]}{code}", *values)
        if len(packed) > 4:
            place = struct.pack("<I", at + len(body))
            body += packed
        else:
            place = packed.ljust(4, b"\0")
        directory += struct.pack("<HHI", tag, codes[code], counts[tag]) + place
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + directory + bytes(4) + body
