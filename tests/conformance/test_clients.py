"""A catalog on a real S3 server, read over plain HTTP by clients nobody here wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import Built, Made, build, survey, write_recipe
from packages import python_packages
from servers import S3Server, close_connections, seaweedfs

from cube import Samples, open_cube
from cube.catalog.describe import describe
from cube.catalog.patch_items import items
from cube.catalog.publish import publish
from cube.format.target import target_of
from cube.query.search import search

pytestmark = pytest.mark.judges

CLIENTS = Path(__file__).parent / "clients"
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


@pytest.fixture(scope="module")
def remote(server: S3Server, made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The cube of ``made`` and its catalog on S3."""
    close_connections()
    recipe = write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        built = build(recipe, made.folder, "s3://public/cubes/tiny.zarr")
        report, found = survey(built)
        publish(describe(built.target, built.plan.recipe, report, found), built.target, report)
        yield built
    close_connections()


@pytest.fixture(scope="module")
def url(server: S3Server, remote: Built) -> str:
    """URL of the catalog's folder for anybody."""
    return f"{server.endpoint}/public/cubes/tiny.stac"


@pytest.fixture(scope="module")
def ask(url: str) -> Ask:
    """Run a client in a process of its own, without credentials."""
    folder = python_packages(CLIENTS / "requirements.txt")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}

    def run(client: str, *arguments: str) -> Any:
        command = [sys.executable, CLIENTS / "read.py", client, url, *arguments]
        environment = clean | {"PYTHONPATH": str(folder)}
        got = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
        assert got.returncode == 0, got.stderr[-2000:]
        return json.loads(got.stdout)

    return run


def test_pystac_client_walks_from_the_root_to_every_item(ask: Ask, url: str) -> None:
    seen = ask("pystac_client")
    cube = f"{url.removesuffix('.stac')}.zarr"
    assert seen["items"] == dict.fromkeys(("spring-1", "spring-15", "summer-1"), cube)
    assert seen == {**seen, "collection": "tiny", "table": f"{url}/items.parquet"}


def test_xpystac_opens_the_asset_made_for_it(ask: Ask, remote: Built, made: Made) -> None:
    opened = ask("xpystac", "zarr-xarray")
    first = made.array("s2")[0]
    assert opened == {"patches": len(made.ids), "sum": int(first.sum())}


def test_xpystac_still_refuses_the_recommended_form(ask: Ask) -> None:
    """It knows no media type with a parameter. When this fails, the second asset is needed no more."""
    assert "UnboundLocalError" in ask("xpystac", "zarr")["refused"]


def test_stac_geoparquet_makes_the_items_of_the_table(ask: Ask, remote: Built, url: str) -> None:
    table = search(remote.target, columns=None).table
    ours = list(items(table, target_of(f"{url.removesuffix('.stac')}.zarr")))
    theirs = ask("stac_geoparquet")
    assert [item["id"] for item in theirs] == [item["id"] for item in ours]
    for one, other in zip(theirs, ours, strict=True):
        assert one["geometry"] == other["geometry"]
        assert one["bbox"] == other["bbox"]
        times = {name: one["properties"].pop(name).replace(".000Z", "Z") for name in ("start_datetime", "end_datetime")}
        assert one["properties"] | times == other["properties"]


def test_duckdb_finds_what_search_finds(ask: Ask, remote: Built) -> None:
    found = search(remote.target, "season=spring and class:Urban>0.1").table["id"].to_pylist()
    assert found
    assert ask("duckdb") == found


def test_geopandas_reads_the_places(ask: Ask, made: Made) -> None:
    assert ask("geopandas") == {"ids": made.ids, "crs": "OGC:CRS84", "valid": True}


def test_readers_choose_by_class_from_s3(remote: Built, server: S3Server) -> None:
    where = "season=spring and class:Urban>0.1"
    found = search(remote.target, where).table["id"].to_pylist()
    anonymous = {"anon": True, "endpoint_url": server.endpoint}
    assert open_cube(remote.url, where=where, storage_options=anonymous)["patch"].values.tolist() == found
    samples = Samples(remote.url, where=where, modalities=["s2"], incomplete="keep", storage_options=anonymous)
    assert samples.ids.tolist() == found
    over_http = open_cube(f"{server.endpoint}/public/cubes/tiny.zarr", where=where)
    assert np.array_equal(over_http["patch"].values, found)


def test_a_small_table_takes_one_request(remote: Built) -> None:
    found = search(remote.target, "class:Urban>0.1", (-180.0, -90.0, 180.0, 90.0))
    assert found.requests == 1
