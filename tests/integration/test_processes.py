"""Readers in other processes, however they are started and wherever the cube lies: nothing hangs, nothing differs.

In every test the parent has read before it starts others, so that it has threads, connections, indexes and decoded tiles.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from making import BANDS, Built, Made, require_torch
from seeing import ROWS, opened_there, readers, told
from servers import S3Server, close_connections, seaweedfs
from web import Ranged, serving

from cube import open_cube

SECONDS = 120
"""After so long a process hangs."""
METHODS = ("fork", "spawn", "forkserver")
STORES = ("disk", "s3", "http")
Place = tuple[str, dict[str, Any]]
"""URL and storage options."""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, tiny_cube: Built) -> Iterator[Place]:
    with seaweedfs(tmp_path_factory.mktemp("seaweed")) as server:
        _upload(server, Path(tiny_cube.url))
        yield "s3://public/tiny.zarr", {"anon": True, "endpoint_url": server.endpoint}
        close_connections()


def _upload(server: S3Server, folder: Path) -> None:
    client = server.client()
    for path in folder.rglob("*"):
        if path.is_file():
            client.put_object(Bucket="public", Key=f"tiny.zarr/{path.relative_to(folder).as_posix()}", Body=path.read_bytes())
    client.close()


@pytest.fixture(scope="module")
def places(s3: Place, tiny_cube: Built) -> Iterator[dict[str, Place]]:
    """Where one cube lies: name of the store → its URL there."""
    with serving(Path(tiny_cube.url).parent, Ranged) as url:
        yield {"disk": (tiny_cube.url, {}), "s3": s3, "http": (f"{url}/tiny.zarr", {})}


@pytest.fixture(scope="module")
def expected(tiny_cube: Built, made: Made) -> dict[str, int]:
    """What this process sees on a disk; pixels are those of the files."""
    opened = readers(tiny_cube.url, {})
    batch = opened["samples"].read(ROWS)
    for name in BANDS:
        assert np.array_equal(batch[name], made.array(name)[ROWS], equal_nan=name == "s1")
        assert np.array_equal(opened["engine"][name].values, made.array(name), equal_nan=name == "s1")
    return told(opened)


@pytest.mark.parametrize("method", METHODS)
def test_every_reader_in_every_kind_of_process(places: dict[str, Place], expected: dict[str, int], method: str) -> None:
    opened = [readers(*places[store]) for store in STORES]
    assert [told(each) for each in opened] == [expected] * len(STORES)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(told, [*opened, *opened], chunksize=1).get(timeout=SECONDS) == [expected] * (2 * len(STORES))
        fresh = [pool.apply_async(opened_there, places[store]) for store in STORES]
        assert [each.get(timeout=SECONDS) for each in fresh] == [expected] * len(STORES)


def slow(*methods: str) -> list[Any]:
    """Return all ways to start a process; those named here take long."""
    return [pytest.param(method, marks=pytest.mark.judges) if method in methods else method for method in METHODS]


@pytest.mark.parametrize("method", slow("spawn", "forkserver"))
def test_every_dataset_in_workers_of_a_loader(places: dict[str, Place], made: Made, method: str) -> None:
    require_torch()
    import torch

    from cube.train.torch import BatchLoader, PatchDataset

    context = {"num_workers": 2, "multiprocessing_context": method, "timeout": SECONDS}
    for url, options in (places[store] for store in STORES):
        dataset = PatchDataset(url, storage_options=options)
        dataset[0]
        batches = list(torch.utils.data.DataLoader(dataset, batch_size=8, **context))
        whole = BatchLoader(dataset.samples, workers=2, context=method, batch_size=8, shuffle=False)
        order = [name for batch in whole for name in batch["patch"]]
        assert sorted(order) == sorted(made.ids)
        for name in BANDS:
            seen = np.concatenate([batch[name].numpy() for batch in batches])
            assert np.array_equal(seen, made.array(name), equal_nan=name == "s1")


@pytest.mark.parametrize("method", slow("fork", "forkserver"))
def test_dask_workers(places: dict[str, Place], made: Made, method: str) -> None:
    with dask.config.set({"distributed.worker.multiprocessing-method": method}):
        cubes = [_read_before(*places[store]) for store in STORES]
        local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
        with LocalCluster(n_workers=2, threads_per_worker=2, **local) as cluster, Client(cluster) as client:
            _check_computed(cubes, made, lambda *parts: [each.result(timeout=SECONDS) for each in client.compute(parts)])


@pytest.mark.parametrize("method", slow("spawn", "forkserver"))
def test_dasks_own_processes(places: dict[str, Place], made: Made, method: str) -> None:
    cubes = [_read_before(*places[store]) for store in STORES]
    with dask.config.set({"multiprocessing.context": method}):
        _check_computed(cubes, made, lambda *parts: dask.compute(*parts, scheduler="processes", num_workers=2))


def _read_before(url: str, options: dict[str, Any]) -> xr.Dataset:
    cube = open_cube(url, storage_options=options)
    cube["s2"].isel(patch=ROWS).load()
    return cube


def _check_computed(cubes: list[xr.Dataset], made: Made, compute: Any) -> None:
    """Compare every pixel that Dask gives, by chunks of patches, by those of the cube, and after pickling."""
    for cube in cubes:
        chunked = cube[list(BANDS)].chunk(patch=4)
        sent = pickle.loads(pickle.dumps(chunked))
        spring = chunked.sel(season="spring").isel(y=slice(5, 27)).max("patch")
        found = compute(*(chunked[name].data for name in BANDS), *(sent[name].data for name in BANDS), spring["s2"].data)
        for name, values in zip((*BANDS, *BANDS), found[:-1], strict=True):
            assert np.array_equal(values, made.array(name), equal_nan=name == "s1")
        rows = [row for row, name in enumerate(made.ids) if "spring" in name]
        assert np.array_equal(found[-1], made.array("s2")[rows][:, :, 5:27].max(axis=0))
