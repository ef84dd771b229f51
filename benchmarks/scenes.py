"""Data sets shaped like SEN12MS, cut from real Sentinel-2 texture, for benchmarks.

Patches are 256 px windows of one scene at a stride of 128 px, so neighbours share their overlap bit for bit. Twelve S2
bands are real texture; **B10, S1 and land cover are made up**. Files have the real ones' byte layout: uncompressed,
pixel-interleaved.
"""

from __future__ import annotations

import argparse
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

SHARED = Path(os.environ.get("CUBE_SHARED") or Path(__file__).resolve().parents[2] / "shared")
"""Where inputs that are no part of the project are looked for."""
TEXTURE = SHARED / "data" / "sentinel2-texture"
WIDTH = 28
"""Patches in a row of a full scene, and rows in it."""
PATCH, STRIDE = 256, 128
S2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
CELL = 1068
"""Pixels along one side of a texture cell."""
MODIS_PIXEL = 46.3
"""Side of a land-cover cell in 10 m pixels."""
_IGBP_CYCLE = (17, 11, 10, 12, 14, 9, 8, 5, 4, 1, 7, 16, 13)
_LEGENDS = {
    1: (11, 10, 10), 4: (14, 10, 10), 5: (15, 10, 10), 7: (43, 40, 40), 8: (21, 20, 20), 9: (22, 20, 20), 10: (32, 30, 30),
    11: (31, 30, 50), 12: (31, 36, 30), 13: (1, 9, 1), 14: (31, 25, 30), 16: (1, 1, 1), 17: (3, 3, 3),
}  # fmt: skip
"""IGBP class → the classes that go with it in the other three schemes."""

Pixels = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One modality of the file format."""

    name: str
    dtype: str
    bands: int
    photometric: int
    rows_per_strip: int
    extra_samples: tuple[int, ...]
    sample_format: int

    @property
    def patch_bytes(self) -> int:
        """Bytes of a patch's pixels."""
        return PATCH * PATCH * self.bands * np.dtype(self.dtype).itemsize


KINDS = (
    Kind(name="s1", dtype="<f4", bands=2, photometric=1, rows_per_strip=4, extra_samples=(0,), sample_format=3),
    Kind(name="s2", dtype="<u2", bands=13, photometric=1, rows_per_strip=1, extra_samples=(0,) * 12, sample_format=1),
    Kind(name="lc", dtype="|u1", bands=4, photometric=2, rows_per_strip=8, extra_samples=(2,), sample_format=1),
)
TRIPLET_BYTES = sum(kind.patch_bytes for kind in KINDS)
"""Pixel bytes of one triplet."""


@dataclass(frozen=True)
class Scene:
    """Where one scene lies and what it is called."""

    number: int
    zone: int
    south: bool
    x: float
    y: float

    @property
    def epsg(self) -> int:
        """EPSG code of the scene's UTM zone."""
        return (32700 if self.south else 32600) + self.zone

    def path(self, kind: str, row: int, column: int) -> str:
        """Return the name of the file at a place of the grid, counted from 1, below the data set's folder."""
        number = row * (WIDTH + 1) + column
        return f"ROIs1158_spring/{kind}_{self.number}/ROIs1158_spring_{kind}_{self.number}_p{number}.tif"


SCENES = (
    Scene(1, 37, True, 374132.3389928384, 8118022.836060452),
    Scene(8, 31, False, 604342.595787463, 5631401.982979552),
    Scene(15, 48, False, 362612.1968593299, 1987088.206431803),
    Scene(24, 19, True, 501234.5012345678, 6012345.678901234),
)
LARGEST = len(SCENES) * WIDTH * WIDTH
"""Most patches a data set can have."""


def make_scenes(folder: str | Path, patches: int, width: int = WIDTH, texture: Path = TEXTURE) -> list[str]:
    """Write the first ``patches`` triplets, row by row and scene by scene, and return their paths (s1, s2, lc, s1, …)."""
    if not 0 < patches <= len(SCENES) * WIDTH * width or not 0 < width <= WIDTH:
        raise ValueError(
            f"{patches} patches in rows of {width}: expected at most {WIDTH} rows of {WIDTH} in {len(SCENES)} scenes"
        )
    cells = read_cells(texture)
    per_scene, paths = WIDTH * width, []
    for place, scene in enumerate(SCENES[: -(-patches // per_scene)]):
        count = min(per_scene, patches - place * per_scene)
        rows = -(-count // width)
        images = make_images(cells, place, (rows + 1) * STRIDE, (width + 1) * STRIDE)
        spots = [divmod(number, width) for number in range(count)]
        paths += write_scene(Path(folder), scene, images, spots)
    return paths


def write_scene(folder: Path, scene: Scene, images: dict[str, Pixels], spots: list[tuple[int, int]]) -> list[str]:
    """Write the triplets at some (row, column) places of a scene, counted from 0, and return their relative paths."""
    headers = {kind.name: make_header(kind, scene) for kind in KINDS}
    for kind in KINDS:
        (folder / scene.path(kind.name, 1, 1)).parent.mkdir(parents=True, exist_ok=True)

    def write(spot: tuple[int, int]) -> list[str]:
        names = []
        for kind in KINDS:
            name = scene.path(kind.name, spot[0] + 1, spot[1] + 1)
            write_patch(folder / name, headers[kind.name], images[kind.name], spot, scene)
            names.append(name)
        return names

    with ThreadPoolExecutor(2) as pool:
        return [name for names in pool.map(write, spots) for name in names]


def write_patch(path: Path, header: tuple[bytes, int], image: Pixels, spot: tuple[int, int], scene: Scene) -> None:
    """Write one file: the scene's header with the patch's corner put in, then the pixels."""
    head, at = bytearray(header[0]), header[1]
    x, y = scene.x + 10 * STRIDE * (spot[1] + 1), scene.y - 10 * STRIDE * (spot[0] + 1)
    struct.pack_into("<6d", head, at, 0, 0, 0, x, y, 0)
    top, left = spot[0] * STRIDE, spot[1] * STRIDE
    pixels = np.ascontiguousarray(image[top : top + PATCH, left : left + PATCH])
    with open(path, "wb", buffering=0) as file:
        os.writev(file.fileno(), [head, pixels.reshape(-1).view(np.uint8).data])


def make_header(kind: Kind, scene: Scene) -> tuple[bytes, int]:
    """Return everything before the pixels of one modality's files, and where the six doubles of the corner stand in it."""
    strips = PATCH // kind.rows_per_strip
    strip_bytes = kind.patch_bytes // strips
    citation = f"WGS 84 / UTM zone {scene.zone}{'S' if scene.south else 'N'}|WGS 84|\0".encode()
    keys = (1, 1, 0, 7, 1024, 0, 1, 1, 1025, 0, 1, 1, 1026, 34737, 22, 0, 2049, 34737, 7, 22)
    keys += (2054, 0, 1, 9102, 3072, 0, 1, scene.epsg, 3076, 0, 1, 9001)
    tags: dict[int, tuple[str, tuple[Any, ...]]] = {
        256: ("H", (PATCH,)),
        257: ("H", (PATCH,)),
        258: ("H", (8 * np.dtype(kind.dtype).itemsize,) * kind.bands),
        259: ("H", (1,)),
        262: ("H", (kind.photometric,)),
        273: ("I", (0,) * strips),
        277: ("H", (kind.bands,)),
        278: ("H", (kind.rows_per_strip,)),
        279: ("I", (strip_bytes,) * strips),
        284: ("H", (1,)),
        338: ("H", kind.extra_samples),
        339: ("H", (kind.sample_format,) * kind.bands),
        33550: ("d", (10.0, 10.0, 0.0)),
        33922: ("d", (0.0,) * 6),
        34735: ("H", keys),
        34737: ("s", (citation,)),
    }
    size, places = _place_values(tags)
    tags[273] = ("I", tuple(size + strip * strip_bytes for strip in range(strips)))
    return _directory(tags, size, places), places[33922]


def _encode(code: str, values: tuple[Any, ...]) -> bytes:
    return values[0] if code == "s" else struct.pack(f"<{len(values)}{code}", *values)


def _place_values(tags: dict[int, tuple[str, tuple[Any, ...]]]) -> tuple[int, dict[int, int]]:
    """Return the header's size and where each value too long for its entry stands: by tag, but strip sizes before offsets."""
    end, places = 8 + 2 + 12 * len(tags) + 4, {}
    for tag in sorted(tags, key=lambda tag: 272 if tag == 279 else tag):
        length = len(_encode(*tags[tag]))
        if length > 4:
            places[tag], end = end, end + length
    return end, places


def _directory(tags: dict[int, tuple[str, tuple[Any, ...]]], size: int, places: dict[int, int]) -> bytes:
    """Return a TIFF header with one directory."""
    data = bytearray(size)
    struct.pack_into("<2sHIH", data, 0, b"II", 42, 8, len(tags))
    for number, (tag, (code, values)) in enumerate(tags.items()):
        raw = _encode(code, values)
        count = len(raw) if code == "s" else len(values)
        kind = {"s": 2, "H": 3, "I": 4, "d": 12}[code]
        short = raw.ljust(4, b"\0") if tag not in places else struct.pack("<I", places[tag])
        struct.pack_into("<HHI4s", data, 10 + 12 * number, tag, kind, count, short)
        if tag in places:
            data[places[tag] : places[tag] + len(raw)] = raw
    return bytes(data)


def read_cells(texture: Path) -> list[Pixels]:
    """Return the texture cells as (y, x, band) at 10 m, in the bands' order, with zeros for B10."""
    folders = sorted(folder for folder in texture.iterdir() if folder.is_dir())
    return [_read_cell(folder) for folder in folders]


def _read_cell(folder: Path) -> Pixels:
    cell = np.zeros((CELL, CELL, len(S2_BANDS)), np.uint16)
    for place, band in enumerate(S2_BANDS):
        if band != "B10":
            with rasterio.open(folder / f"{band}.tif") as file:
                cell[..., place] = enlarge(file.read(1))
    return cell


def enlarge(band: Pixels) -> Pixels:
    """Bring a band to 10 m: 20 m bands bilinearly, coarser ones by repeating, as the real files' pixels look."""
    times = CELL // band.shape[0]
    if times == 2:
        band = band.astype(np.float32)
        for axis in (0, 1):
            before, after = (np.take(band, np.clip(np.arange(band.shape[axis]) + k, 0, 533), axis) for k in (-1, 1))
            pairs = np.stack([0.75 * band + 0.25 * before, 0.75 * band + 0.25 * after], axis + 1)
            band = pairs.reshape([n * (2 if a == axis else 1) for a, n in enumerate(band.shape)])
        return np.rint(band).astype(np.uint16)
    return band.repeat(times, 0).repeat(times, 1)


def make_images(cells: list[Pixels], seed: int, height: int, width: int) -> dict[str, Pixels]:
    """Return one scene as images (y, x, band), by modality; equal arguments give equal images."""
    rng = np.random.default_rng([20240517, seed])
    s2 = _mosaic(cells, rng, height, width)
    s2[..., S2_BANDS.index("B10")] = _made_up_cirrus(rng, height, width)
    return {"s1": _made_up_radar(s2, rng), "s2": s2, "lc": _made_up_cover(rng, height, width)}


def _mosaic(cells: list[Pixels], rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Lay each cell in its eight orientations side by side: nothing stands twice at the same place of a 128 px tile."""
    variants = [_turned(cell, turn) for cell in cells for turn in range(8)]
    across = -(-width // CELL)
    order = iter(rng.permutation(len(variants)))
    image = np.empty((height, width, len(S2_BANDS)), np.uint16)
    for top in range(0, height, CELL):
        for left in range(0, across * CELL, CELL):
            part = variants[next(order)][: height - top, : width - left]
            image[top : top + CELL, left : left + CELL] = part
    return image


def _turned(cell: Pixels, turn: int) -> Pixels:
    turned = np.rot90(cell, turn % 4)
    return turned[:, ::-1] if turn >= 4 else turned


def _smooth(rng: np.random.Generator, shape: tuple[int, int], cell: int) -> Pixels:
    """Return smooth noise between 0 and 1 whose features are about ``cell`` pixels wide."""
    small = rng.random((shape[0] // cell + 3, shape[1] // cell + 3), np.float32)
    for axis, length in enumerate(shape):
        at = np.arange(length, dtype=np.float32) / cell
        low = at.astype(int)
        share = (at - low).reshape(-1, 1) if axis == 0 else at - low
        small = np.take(small, low, axis) * (1 - share) + np.take(small, low + 1, axis) * share
    return small


def _made_up_cirrus(rng: np.random.Generator, height: int, width: int) -> Pixels:
    coarse = (height // 6 + 1, width // 6 + 1)
    values = 11 + 33 * _smooth(rng, coarse, 60) + 4 * rng.random(coarse, np.float32)
    return values.astype(np.uint16).repeat(6, 0).repeat(6, 1)[:height, :width]


def _made_up_radar(s2: Pixels, rng: np.random.Generator) -> Pixels:
    """Return VV and VH in dB: a base that follows the texture, times speckle of about four looks."""
    image = np.empty((*s2.shape[:2], 2), np.float32)
    base = np.float32(6e-4) * s2[..., S2_BANDS.index("B11")]
    for place, (level, low, high) in enumerate(((-12.0, -27.6, 0.0), (-19.0, -36.5, -0.27))):
        speckle = rng.standard_gamma(4.4, s2.shape[:2], np.float32)
        decibels = np.float32(10) * np.log10(speckle * np.float32(1 / 4.4)) + base
        np.clip(decibels + np.float32(level), low, high, out=image[..., place])
    return image


def _made_up_cover(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return the four land-cover bands: classes in 500 m cells, enlarged by nearest neighbour."""
    rows, columns = (((np.arange(n) + rng.integers(46)) / MODIS_PIXEL).astype(int) for n in (height, width))
    shape = int(rows[-1]) + 1, int(columns[-1]) + 1
    wave = _smooth(rng, shape, 12) * 0.9 + rng.random(shape, np.float32) * 0.1
    places = np.clip((wave * len(_IGBP_CYCLE)).astype(int), 0, len(_IGBP_CYCLE) - 1)
    codes = np.array([(code, *_LEGENDS[code]) for code in _IGBP_CYCLE], np.uint8)
    return np.ascontiguousarray(codes[places][rows][:, columns])


def main() -> None:
    """Write a data set from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--patches", type=int, default=336)
    parser.add_argument("--texture", type=Path, default=TEXTURE)
    arguments = parser.parse_args()
    paths = make_scenes(arguments.folder, arguments.patches, texture=arguments.texture)
    print(f"{len(paths):,} files in {arguments.folder}")


if __name__ == "__main__":
    main()
