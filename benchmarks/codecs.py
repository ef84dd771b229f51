"""Which codec for the tiles of each modality: bytes, speed of writing, time of reading a tile and three of its bands.

Tiles are those of a cube made by ``read.py`` (Sentinel-2 is real texture, **the others are made up**) and, where they are
beside the repository, of real files of SEN12MS and SEN12MS-CR. Medians of several rounds on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import rasterio
from convert import as_text
from numpy.typing import NDArray
from scenes import SHARED

from cube import Samples
from cube.format.decoding import TileDecoder
from cube.format.tiles import TileLayout

OUT = Path(__file__).resolve().parent / "out" / "codecs.json"
KIB = 1024
SETTINGS: dict[str, tuple[tuple[str, int, str, int], ...]] = {
    "s1": (("lz4", 5, "bitshuffle", 0), ("lz4", 5, "shuffle", 0), ("lz4", 9, "shuffle", 0), ("lz4hc", 5, "shuffle", 0),
           ("zstd", 1, "shuffle", 0), ("zstd", 5, "shuffle", 0), ("zstd", 3, "bitshuffle", 0)),
    "s2": (("zstd", 2, "shuffle", 0), ("zstd", 1, "shuffle", 128 * KIB), ("zstd", 2, "shuffle", 128 * KIB),
           ("zstd", 2, "shuffle", 256 * KIB), ("zstd", 5, "shuffle", 0), ("zstd", 5, "shuffle", 128 * KIB),
           ("lz4", 5, "bitshuffle", 0), ("lz4", 9, "bitshuffle", 0), ("lz4", 9, "bitshuffle", 32 * KIB),
           ("lz4", 9, "bitshuffle", 64 * KIB), ("lz4", 9, "bitshuffle", 128 * KIB), ("lz4", 1, "bitshuffle", 64 * KIB),
           ("lz4hc", 5, "bitshuffle", 128 * KIB), ("lz4hc", 5, "shuffle", 128 * KIB)),
    "lc": (("zstd", 1, "shuffle", 0), ("zstd", 3, "shuffle", 0), ("zstd", 5, "shuffle", 0), ("lz4", 5, "shuffle", 0),
           ("lz4", 9, "shuffle", 0), ("lz4hc", 5, "shuffle", 0), ("lz4hc", 9, "shuffle", 0)),
}  # fmt: skip
"""Modality → Blosc codec, level, shuffle and bytes of a block (0: what Blosc chooses)."""
SHUFFLES = {"shuffle": numcodecs.Blosc.SHUFFLE, "bitshuffle": numcodecs.Blosc.BITSHUFFLE}
RGB = [3, 2, 1]
Array = NDArray[Any]


def cube_tiles(folder: Path, name: str, count: int) -> list[Array]:
    """Return tiles (band, y, x) of patches all over the cube."""
    samples = Samples(str(folder / "cube.zarr"), modalities=[name])
    pixels = samples.read(np.linspace(0, len(samples) - 1, count).astype(int))[name]
    return [np.ascontiguousarray(patch[:, :128, :128]) for patch in pixels]


def file_tiles(name: str) -> list[Array]:
    """Return the tiles of real files."""
    tiles = []
    for path in sorted((SHARED / "data").glob(f"sen12ms*/**/*_{name}_*.tif")):
        with rasterio.open(path) as file:
            pixels = file.read()
        tiles += [np.ascontiguousarray(pixels[:, y : y + 128, x : x + 128]) for y in (0, 128) for x in (0, 128)]
    return tiles


def measured(name: str, tiles: list[Array], setting: tuple[str, int, str, int], rounds: int) -> dict[str, float]:
    """Return raw / stored, MB/s of writing, and microseconds of reading a tile and three of its bands."""
    codec, level, shuffle, block = setting
    first = tiles[0]
    layout = TileLayout(
        size=256, tile=128, bands=len(first), dtype=first.dtype.str.replace("|", "<"), slots=1, codec="zstd", level=1,
        shuffle="shuffle",
    )  # fmt: skip
    blosc = numcodecs.Blosc(codec, level, SHUFFLES[shuffle], block)
    writing, reading, part = [], [], []
    whole, out = np.empty_like(first), np.empty_like(first[: len(RGB)])
    decoder, some = TileDecoder(layout), TileDecoder(layout, RGB) if name == "s2" else None
    stored: list[bytes] = []
    for _ in range(rounds):
        begun = time.perf_counter()
        bodies = [blosc.encode(tile) for tile in tiles]
        writing.append(time.perf_counter() - begun)
        stored = [bytes(body) + google_crc32c.value(body).to_bytes(4, "little") for body in bodies]
        reading.append(_seconds(decoder.decode(data, whole) for data in stored))
        part.append(_seconds(some.decode(data, out) for data in stored) if some else 0.0)
    raw = sum(tile.nbytes for tile in tiles)
    return {
        "ratio": raw / sum(map(len, stored)),
        "writing": raw / statistics.median(writing) / 1e6,
        "reading": statistics.median(reading) / len(tiles) * 1e6,
        "bands": statistics.median(part) / len(tiles) * 1e6,
    }


def _seconds(work: Iterable[None]) -> float:
    begun = time.perf_counter()
    for _ in work:
        pass
    return time.perf_counter() - begun


def table(name: str, tiles: list[Array], rounds: int) -> Iterator[dict[str, Any]]:
    """Measure all settings of a modality."""
    for setting in SETTINGS[name]:
        yield {"setting": setting, **measured(name, tiles, setting, rounds)}


def main() -> None:
    """Print a table for each modality and kind of tiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where read.py has left its cube")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    numcodecs.blosc.use_threads = False
    found: dict[str, Any] = {}
    for name in SETTINGS:
        for kind, tiles in (("cube", cube_tiles(given.folder, name, 48)), ("files", file_tiles(name))):
            if not tiles:
                continue
            rows = [["", "raw / stored", "writing, MB/s", "reading a tile, µs", "three bands, µs"]]
            found[f"{name} {kind}"] = list(table(name, tiles, given.rounds))
            for row in found[f"{name} {kind}"]:
                codec, level, shuffle, block = row["setting"]
                text = f"{codec}-{level}{'-bit' if shuffle == 'bitshuffle' else ''}{f', {block // KIB} KiB' if block else ''}"
                figures = [f"{row['ratio']:.3f}", *(f"{row[key]:.0f}" for key in ("writing", "reading", "bands"))]
                rows.append([text, *figures])
            print(f"\n{name}, {len(tiles)} tiles of {kind}\n" + as_text(rows), flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
