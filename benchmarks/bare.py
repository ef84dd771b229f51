"""The bare loop: the least any converter to shared tiles has to do, without Dask, checks, receipts or metadata.

Per patch: read the file into a buffer that is used again, hash each tile, de-interleave and encode the tiles not seen before
in this shard, add a checksum, append to an open file. ``unshared`` encodes every tile instead. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
from blake3 import blake3
from scenes import KINDS, PATCH, STRIDE, Kind

SHARD = 256
"""Patches whose tiles are shared."""
KEY = bytes(32)
Codecs = dict[str, tuple[str, int, int]]
"""Modality → Blosc codec, level and shuffle."""


class Modality:
    """The loop's state for one modality: its codec, its buffers and the tiles seen in this shard."""

    def __init__(self, kind: Kind, codec: tuple[str, int, int]) -> None:
        across = PATCH // STRIDE
        self.codec = numcodecs.Blosc(*codec)
        self.file_buffer = bytearray(kind.patch_bytes + 8192)
        self.pixels_at = -kind.patch_bytes
        self.bytes = kind.patch_bytes
        self.dtype = np.dtype(kind.dtype)
        self.tiles = np.empty((across * across, STRIDE, STRIDE, kind.bands), self.dtype)
        self.grid = self.tiles.reshape(across, across, STRIDE, STRIDE * kind.bands)
        self.rows = (across, STRIDE, across, STRIDE * kind.bands)
        self.planes = np.empty((kind.bands, STRIDE, STRIDE), self.dtype)
        self.raw = [tile.reshape(-1).view(np.uint8).data for tile in self.tiles]
        self.seen: dict[bytes, tuple[int, int]] = {}
        self.stored = 0

    def load(self, path: str) -> None:
        """Read a file and cut its pixels into tiles."""
        with open(path, "rb", buffering=0) as file:
            size = file.readinto(self.file_buffer)
        pixels = np.frombuffer(self.file_buffer, self.dtype, self.bytes // self.dtype.itemsize, size - self.bytes)
        np.copyto(self.grid, pixels.reshape(self.rows).transpose(0, 2, 1, 3))

    def store(self, place: int, file: Any) -> tuple[int, int]:
        """Encode one tile and append it."""
        np.copyto(self.planes, self.tiles[place].transpose(2, 0, 1))
        data = self.codec.encode(self.planes)
        file.write(data)
        file.write(google_crc32c.value(data).to_bytes(4, "little"))
        at, self.stored = self.stored, self.stored + len(data) + 4
        return at, len(data) + 4


def convert_shard(
    modalities: dict[str, Modality], patches: list[dict[str, str]], folder: Path, *, shared: bool
) -> tuple[int, int]:
    """Convert the files of one shard; return the bytes stored and the tiles encoded."""
    stored = tiles = 0
    files = {name: open(folder / f"{name}-{os.getpid()}", "wb") for name in modalities}  # noqa: SIM115
    for modality in modalities.values():
        modality.seen, modality.stored = {}, 0
    for patch in patches:
        for name, modality in modalities.items():
            modality.load(patch[name])
            for place, raw in enumerate(modality.raw):
                if not shared:
                    modality.store(place, files[name])
                    tiles += 1
                    continue
                digest = blake3(raw, key=KEY).digest()
                if digest not in modality.seen:
                    modality.seen[digest] = modality.store(place, files[name])
                    tiles += 1
    for name, file in files.items():
        file.close()
        stored += modalities[name].stored
        os.replace(file.name, folder / f"{name}-{os.getpid()}-{time.monotonic_ns()}")
    return stored, tiles


def work(
    share: list[list[dict[str, str]]], codecs: Codecs, folder: Path, shared: bool, start: Any
) -> tuple[float, float, int, int]:
    """Convert one process's shards; return when it ended, its CPU seconds, the bytes stored and the tiles encoded."""
    numcodecs.blosc.use_threads = False
    modalities = {kind.name: Modality(kind, codecs[kind.name]) for kind in KINDS}
    start.wait()
    cpu, stored, tiles = time.process_time(), 0, 0
    for patches in share:
        done = convert_shard(modalities, patches, folder, shared=shared)
        stored, tiles = stored + done[0], tiles + done[1]
    return time.monotonic(), time.process_time() - cpu, stored, tiles


def _send_work(pipe: Any, *arguments: Any) -> None:
    pipe.send(work(*arguments))


def run(patches: list[dict[str, str]], codecs: Codecs, folder: Path, *, shared: bool, processes: int) -> dict[str, Any]:
    """Convert all patches with some processes; time runs from the moment all of them are ready."""
    shards = [patches[at : at + SHARD] for at in range(0, len(patches), SHARD)]
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(processes + 1)
    pipes, running = [], []
    for number in range(processes):
        here, there = context.Pipe(duplex=False)
        arguments = (there, shards[number::processes], codecs, folder, shared, start)
        running.append(context.Process(target=_send_work, args=arguments))
        running[-1].start()
        pipes.append(here)
    start.wait()
    begun = time.monotonic()
    results = [pipe.recv() for pipe in pipes]
    for process in running:
        process.join()
    return {
        "patches": len(patches),
        "seconds": max(end for end, *_ in results) - begun,
        "cpu_seconds": sum(cpu for _, cpu, *_ in results),
        "stored_bytes": sum(stored for *_, stored, _ in results),
        "tiles": sum(tiles for *_, tiles in results),
    }


def list_patches(source: str) -> list[dict[str, str]]:
    """Return the paths of each triplet, by scene and patch number."""
    found: dict[tuple[int, int], dict[str, str]] = {}
    for path in Path(source).rglob("*.tif"):
        _, _, kind, scene, number = path.stem.split("_")
        found.setdefault((int(scene), int(number[1:])), {})[kind] = str(path)
    return [found[key] for key in sorted(found)]


def codecs_of(recipe: str, profile: str) -> Codecs:
    """Return the codecs of a recipe's profile."""
    from cube.recipes.recipe import read_recipe

    shuffles = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
    loaded = read_recipe(recipe)
    codecs = {name: loaded.codec(name, profile) for name in loaded.modalities}
    return {name: (codec.name, codec.level, shuffles[codec.shuffle]) for name, codec in codecs.items()}


def main() -> None:
    """Run the loop over the first patches of a data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True)
    parser.add_argument("--to", required=True, type=Path, help="an existing folder")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--patches", type=int, required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--unshared", action="store_true")
    given = parser.parse_args()
    patches: Iterator[dict[str, str]] | list[dict[str, str]] = list_patches(given.source)[: given.patches]
    codecs = codecs_of(given.recipe, given.profile)
    print(json.dumps(run(list(patches), codecs, given.to, shared=not given.unshared, processes=given.processes)))


if __name__ == "__main__":
    main()
