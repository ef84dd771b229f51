"""One competitor of ``read.py``, run as a process of its own: ``python readers.py NAME FOLDER`` prints one JSON document.

Every loader gives shuffled batches of 32 patches of all modalities: s1 float32, s2 int32 or uint16, lc uint8.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

BATCH, WORKERS = 32, 2
KINDS = ("s1", "s2", "lc")
Array = NDArray[Any]
Figures = dict[str, Any]


def cube_url(folder: Path) -> str:
    """Return where the cube lies: below the folder, or where ``CUBE_URL`` says."""
    return os.environ.get("CUBE_URL") or str(folder / "cube.zarr")


def options() -> dict[str, Any]:
    """Return what fsspec needs for the server of the benchmark."""
    return json.loads(os.environ.get("CUBE_OPTIONS", "{}"))


def triplets(folder: Path) -> list[dict[str, str]]:
    """Return the three files of every patch."""
    s2 = sorted((folder / "files").rglob("*_s2_*_p*.tif"))
    return [{kind: str(path).replace("/s2_", f"/{kind}_").replace("_s2_", f"_{kind}_") for kind in KINDS} for path in s2]


def timed(batches: Iterable[Any], most: int | None = None, size: Callable[[Any], int] = lambda batch: BATCH) -> Figures:
    """Consume batches; return patches a second after the first one, and how long that one took."""
    begun = time.perf_counter()
    iterator = iter(batches)
    size(next(iterator))
    first = time.perf_counter()
    count = sum(size(batch) for batch in islice(iterator, most))
    seconds = time.perf_counter() - first
    return {"rate": count / seconds, "first": first - begun, "patches": count}


def rasterio_one(folder: Path) -> Figures:
    """Read files with rasterio on one thread."""
    import rasterio

    chosen = np.random.default_rng(0).permutation(len(files := triplets(folder)))[:300]

    def read() -> Iterator[int]:
        for place in chosen.tolist():
            for kind in KINDS:
                with rasterio.open(files[place][kind]) as file:
                    file.read()
            yield 1

    return timed(read(), size=int)


class Files:
    """Three GeoTIFFs a sample, all bands."""

    def __init__(self, folder: Path) -> None:
        self.files = triplets(folder)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Any:
        import rasterio
        import torch

        read = []
        for kind in KINDS:
            with rasterio.open(self.files[place][kind]) as file:
                pixels = file.read()
            read.append(torch.from_numpy(pixels.astype(np.int32) if pixels.dtype == np.uint16 else pixels))
        image = torch.cat(read[:2], dim=0).index_select(0, torch.arange(15)).float()
        return {"image": image, "mask": read[2][0].long()}


def files_loader(folder: Path) -> Figures:
    """Open three GeoTIFFs a sample, all bands, in a DataLoader with two workers, as TorchGeo's data set does."""
    return timed(_loader(Files(folder)), 40)


def _loader(dataset: Any) -> Any:
    import torch

    return torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=WORKERS, multiprocessing_context="spawn")


class ZarrPatches:
    """One patch at a time through zarr-python."""

    def __init__(self, url: str, length: int) -> None:
        self.url, self.length, self.group = url, length, None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: int) -> Any:
        import zarr

        if self.group is None:
            self.group = zarr.open_group(self.url, mode="r", zarr_format=3)
        sample = {kind: self.group[kind][place] for kind in KINDS}
        return sample | {"s2": sample["s2"].astype(np.int32)}


def zarr_loader(folder: Path) -> Figures:
    """Read patch by patch with zarr-python in a DataLoader with two workers."""
    return timed(_loader(ZarrPatches(cube_url(folder), len(triplets(folder)))), 30)


def tensorstore_batches(folder: Path) -> Figures:
    """Read with tensorstore: futures for all patches of a batch, two threads, a cache of 2 GiB."""
    import tensorstore

    threads = {"limit": WORKERS}
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 2 << 30}, "data_copy_concurrency": threads})
    arrays = {
        kind: tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{cube_url(folder)}/{kind}"}}, read=True, context=context
        ).result()
        for kind in KINDS
    }
    order = np.random.default_rng(0).permutation(arrays["s2"].shape[0])

    def batches() -> Iterator[Any]:
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH].tolist()
            futures = {kind: [array[row].read() for row in rows] for kind, array in arrays.items()}
            yield {kind: np.stack([future.result() for future in read]) for kind, read in futures.items()}

    return timed(batches(), 60)


def _samples(folder: Path, length: int) -> Iterator[dict[str, Array]]:
    from cube import Batches, Samples

    for batch in islice(Batches(Samples(cube_url(folder)), shuffle=False), length // BATCH):
        for row in range(BATCH):
            yield {kind: batch[kind][row] for kind in KINDS}


def litdata_loader(folder: Path) -> Figures:
    """Stream LitData chunks of 64 MB, shuffled, two workers."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    out = folder / "litdata"
    if not out.exists():
        writer = BinaryWriter(str(out), chunk_bytes=64_000_000)
        for place, sample in enumerate(_samples(folder, 1344)):
            writer.add_item(place, sample)
        writer.done()
        writer.merge()
    dataset = StreamingDataset(str(out), shuffle=True, seed=1)
    return timed(StreamingDataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, shuffle=True), 38)


def webdataset_loader(folder: Path) -> Figures:
    """Stream WebDataset shards of 64 patches, shuffled over 500, two workers."""
    import webdataset

    out = folder / "webdataset"
    if not out.exists():
        out.mkdir()
        with webdataset.ShardWriter(f"{out}/%04d.tar", maxcount=64, verbose=0) as writer:
            for place, sample in enumerate(_samples(folder, 1344)):
                writer.write({"__key__": f"{place:06d}", **{f"{kind}.npy": sample[kind] for kind in KINDS}})
    shards = sorted(str(path) for path in out.glob("*.tar"))
    dataset = webdataset.WebDataset(shards, shardshuffle=100).shuffle(500).decode().to_tuple(*(f"{k}.npy" for k in KINDS))
    loader = webdataset.WebLoader(dataset.batched(BATCH), batch_size=None, num_workers=WORKERS)
    return timed(loader, 36)


def _bare(folder: Path, assemble: bool) -> Figures:
    """Decode every distinct tile once into a reused buffer, on two threads; copy it to all its patches if asked for."""
    from cube import Samples
    from cube.read.pixels import TileReader
    from cube.read.ranges import Tile

    samples = Samples(cube_url(folder))
    jobs = []
    for name, reader in samples.readers.items():
        shards, entries = (samples.rows // reader.layout.slots).tolist(), reader.indexes.entries(samples.rows).tolist()
        uses: dict[Tile, list[tuple[int, int]]] = {}
        for row, (shard, places) in enumerate(zip(shards, entries, strict=True)):
            for place, (offset, length) in enumerate(places):
                uses.setdefault(Tile(shard, offset, length), []).append((row, place))
        tiles = sorted(uses)
        jobs += [(name, [(tile, uses[tile]) for tile in tiles[start : start + 64]]) for start in range(0, len(tiles), 64)]
    layouts = {name: reader.layout for name, reader in samples.readers.items()}
    batch = {
        name: np.zeros((BATCH, lay.bands, lay.across, lay.tile, lay.across, lay.tile), lay.dtype)
        for name, lay in layouts.items()
    }

    def work(job: tuple[str, list[tuple[Tile, list[tuple[int, int]]]]]) -> None:
        name, items = job
        reader = samples.readers[name]
        with reader.store.opened() as files:
            tiles = TileReader(reader, files)
            pixels, across = tiles.empty(), reader.layout.across
            for (tile, uses), data in zip(items, reader.fetch_ahead([tile for tile, _ in items], files), strict=True):
                tiles.decode(tile, data, pixels)
                for row, place in uses if assemble else ():
                    np.copyto(batch[name][row % BATCH, :, place // across, :, place % across], pixels)

    rates = []
    for _ in range(2):
        begun = time.perf_counter()
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(work, jobs))
        rates.append(len(samples) / (time.perf_counter() - begun))
    return {"rate": rates[-1], "first": 0.0, "patches": len(samples)}


def bare_decode(folder: Path) -> Figures:
    """The bare loop."""
    return _bare(folder, assemble=False)


def bare_assemble(folder: Path) -> Figures:
    """The bare loop that also copies tiles to the patches of a batch."""
    return _bare(folder, assemble=True)


def bare_gather(folder: Path) -> Figures:
    """Decode and copy as ours does, two threads that each have a half of the patches: planned before, nothing shared."""
    from cube import Samples
    from cube.read.memory import aligned_empty
    from cube.read.pixels import TileReader
    from cube.train.planning import TilePlan
    from cube.train.pools import Modality, Pool

    samples = Samples(cube_url(folder))

    def work(rows: Array) -> Callable[[], None]:
        """Plan for some patches; return what reads them."""
        plans, made = {}, {}
        for name, reader in samples.readers.items():
            layout = reader.layout
            plan = TilePlan(rows, BATCH, shard=layout.slots, places=layout.across**2, entries=reader.indexes.entries)
            plans[name] = [plan.step(number) for number in range(len(plan))]
            part = Modality(reader=reader, bands=slice(None), dtype=np.dtype(layout.dtype))
            pool = Pool(part, plan.slots.top, aligned_empty(plan.slots.top * part.tile_bytes))
            ring = [np.zeros((BATCH, layout.bands, layout.size, layout.size), layout.dtype) for _ in range(3)]
            made[name] = pool, ring, TileReader(reader, files)

        def read() -> None:
            for number in range(len(plans["s2"])):
                for name, (pool, ring, tiles) in made.items():
                    step = plans[name][number]
                    for tile, slot in zip(step.tiles, step.slots.tolist(), strict=True):
                        tiles.decode(tile, None, pool.tiles[slot])
                    pool.copy(step.gathered, ring[number % 3][: len(step.gathered)])

        return read

    with samples.readers["s2"].store.opened() as files, ThreadPoolExecutor(WORKERS) as pool:
        loops = [work(part) for part in np.array_split(samples.rows, WORKERS)]
        for _ in range(2):
            begun = time.perf_counter()
            list(pool.map(lambda loop: loop(), loops))
    return {"rate": len(samples) / (time.perf_counter() - begun), "first": 0.0, "patches": len(samples)}


def cube_batches(folder: Path, modalities: Any = None, **more: Any) -> Figures:
    """Ours: one epoch to warm up, one that counts."""
    from cube import Batches, Samples

    begun = time.perf_counter()
    samples = Samples(cube_url(folder), storage_options=options(), modalities=modalities)
    batches = Batches(samples, batch_size=BATCH, **more)
    iterator = iter(batches)
    next(iterator)
    first = time.perf_counter() - begun
    for _ in iterator:
        pass
    memory = []
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    count = 0
    for batch in batches:
        count += len(batch["patch"])
        memory.append(psutil.Process().memory_info().rss)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    counters = batches.counters
    tenths = [int(np.max(part)) for part in np.array_split(memory, 10)]
    return {
        "rate": count / seconds, "first": first, "patches": count, "memory": tenths, "bound": batches.memory_bytes,
        "requests": counters.requests, "bytes": counters.bytes, "tiles": counters.tiles, "limit": counters.limit,
        "cpu": cpu / count * 1000, "faults": (after.ru_minflt - before.ru_minflt) / count,
    }  # fmt: skip


def cube_stored(folder: Path) -> Figures:
    """Ours, in stored order."""
    return cube_batches(folder, shuffle=False)


def cube_optical(folder: Path) -> Figures:
    """Ours, the thirteen bands of Sentinel-2 only."""
    return cube_batches(folder, ["s2"])


def cube_colors(folder: Path) -> Figures:
    """Ours, three bands of Sentinel-2."""
    return cube_batches(folder, {"s2": ["B04", "B03", "B02"]})


def many_epochs(folder: Path) -> Figures:
    """Note the resident memory at the end of each of twenty epochs."""
    from cube import Batches, Samples

    batches = Batches(Samples(cube_url(folder)), batch_size=BATCH)
    memory = []
    for _ in range(20):
        for _ in batches:
            pass
        memory.append(psutil.Process().memory_info().rss)
    return {"memory": memory, "bound": batches.memory_bytes}


def far_epoch(folder: Path) -> Figures:
    """Read an epoch from the far store, and the same again where ``CUBE_CACHE`` names a folder to keep tiles in."""
    from cube import Batches, Samples

    begun = time.perf_counter()
    samples = Samples(cube_url(folder), storage_options=options(), cache=os.environ.get("CUBE_CACHE"))
    opened = time.perf_counter()
    batches = Batches(samples, batch_size=BATCH)
    found = timed(batches)
    counters, bytes_of = batches.counters, unshared(folder, options())["distinct"]
    again = timed(batches) if os.environ.get("CUBE_CACHE") else {}
    return {
        **found, "opened": opened - begun, "requests": counters.requests, "bytes": counters.bytes, "needed": bytes_of,
        "patches": len(samples), "limit": counters.limit, "again": again, "asked again": batches.counters.requests,
    }  # fmt: skip


def cube_loader(folder: Path, workers: int = 0) -> Figures:
    """Ours as tensors, assembled in the training process."""
    from cube import Samples
    from cube.train.torch import BatchLoader

    loader = BatchLoader(Samples(cube_url(folder)), workers=workers, batch_size=BATCH, threads=WORKERS if not workers else 1)
    for _ in loader:
        pass
    return timed(loader)


def cube_form(folder: Path) -> Figures:
    """Ours in the form of TorchGeo's data set: image float32 of 15 bands, mask int64."""
    from cube import Samples
    from cube.torch import BatchLoader, ImageAndMask

    loader = BatchLoader(Samples(cube_url(folder)), batch_size=BATCH, form=ImageAndMask())
    for _ in loader:
        pass
    return timed(loader)


def cube_loader_processes(folder: Path) -> Figures:
    """Ours as tensors, two worker processes."""
    return cube_loader(folder, WORKERS)


def random_engine(folder: Path) -> Figures:
    """Read 32 random patches of all modalities through the engine."""
    import xarray as xr

    cube = xr.open_dataset(cube_url(folder), engine="cube")
    return _random(lambda rows: cube.isel(patch=rows), 9)


def random_plain(folder: Path) -> Figures:
    """Read 32 random patches of all modalities through ``xr.open_zarr``."""
    import xarray as xr

    cube = xr.open_zarr(cube_url(folder), chunks=None)
    return _random(lambda rows: cube.isel(patch=rows), 1)


def _random(select: Callable[[Array], Any], times: int) -> Figures:
    seconds = []
    for seed in range(times):
        rows = np.sort(np.random.default_rng(seed).choice(2000, BATCH, replace=False))
        begun = time.perf_counter()
        chosen = select(rows)
        for kind in KINDS:
            chosen[kind].values  # noqa: B018 (reads them)
        seconds.append(time.perf_counter() - begun)
    return {"rate": BATCH / float(np.median(seconds)), "first": seconds[0], "patches": BATCH}


def random_requests(folder: Path) -> Figures:
    """Count what 32 random patches cost, shard indexes included."""
    from cube import Samples

    samples = Samples(cube_url(folder), storage_options=options())
    rows = np.random.default_rng(0).choice(len(samples), BATCH, replace=False)
    samples.read(rows)
    found: Figures = {}
    for name, reader in samples.readers.items():
        entries = reader.indexes.entries(rows)
        shards = rows // reader.layout.slots
        tiles = {(s, o): n for s, places in zip(shards.tolist(), entries.tolist(), strict=True) for o, n in places}
        found[name] = {
            "requests": reader.traffic.requests, "shards": len(set(shards.tolist())), "bytes": reader.traffic.bytes,
            "tiles": sum(tiles.values()), "indexes": len(set(shards.tolist())) * reader.layout.index_bytes,
        }  # fmt: skip
    return found


def unshared(folder: Path, storage: dict[str, Any] | None = None) -> Figures:
    """Count the bytes of an epoch of this cube, and of one with the same codecs where every patch stores its own tiles."""
    from cube import Samples

    samples = Samples(cube_url(folder), storage_options=storage)
    every = distinct = 0
    for reader in samples.readers.values():
        entries = reader.indexes.entries(samples.rows)
        every += int(entries[..., 1].sum())
        shards = np.repeat(samples.rows // reader.layout.slots, entries.shape[1])
        tiles = np.unique(np.column_stack([shards, entries.reshape(-1, 2).astype(np.int64)]), axis=0)
        distinct += int(tiles[:, 2].sum())
    return {"every": every, "distinct": distinct}


def bands(folder: Path) -> Figures:
    """Read red, green and blue only; and what two groups of bands would store and decode."""
    from cube import Samples

    rgb = ["B04", "B03", "B02"]
    whole, part = Samples(cube_url(folder), modalities=["s2"]), Samples(cube_url(folder), modalities={"s2": rgb})
    rows = np.arange(512)
    seconds: dict[str, float] = {}
    for name, samples in (("all bands", whole), ("three bands", part), ("all bands", whole), ("three bands", part)):
        begun = time.perf_counter()
        samples.read(rows)
        seconds[name] = time.perf_counter() - begun
    return {"seconds": seconds, **_grouped(whole, [whole.bands("s2").index(band) for band in rgb])}


def _grouped(samples: Any, first: list[int]) -> Figures:
    """Encode some tiles whole and as two groups of bands; return bytes and seconds to decode."""
    reader = samples.readers["s2"]
    compressor = reader.layout.compressor()
    pixels = samples.read(np.arange(0, 512, 8))["s2"][:, :, :128, :128]
    rest = [band for band in range(pixels.shape[1]) if band not in first]
    found: Figures = {}
    for name, chosen in (("whole", slice(None)), ("rgb", first), ("rest", rest)):
        encoded = [compressor.encode(np.ascontiguousarray(tile[chosen])) for tile in pixels]
        begun = time.perf_counter()
        for data in encoded:
            compressor.decode(data)
        found[name] = {"bytes": sum(map(len, encoded)), "decode": time.perf_counter() - begun}
    return found


COMPETITORS: dict[str, Callable[[Path], Figures]] = {
    function.__name__: function
    for function in (
        rasterio_one, files_loader, zarr_loader, tensorstore_batches, litdata_loader, webdataset_loader, bare_decode,
        bare_assemble, bare_gather, cube_batches, cube_stored, cube_optical, cube_colors, many_epochs, far_epoch,
        cube_loader, cube_form, cube_loader_processes, random_engine, random_plain,
        random_requests, unshared, bands,
    )
}  # fmt: skip

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=COMPETITORS)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    print(json.dumps(COMPETITORS[given.name](given.folder)))
