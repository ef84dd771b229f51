"""What the engine is asked to choose when a cube is opened, and where it may be opened from."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from making import Built, Made

from cube import Samples, open_cube
from cube.errors import FilterError, RequestError
from cube.store import LocalStore


def test_a_filter_chooses_as_plain_xarray_does(tiny_cube: Built) -> None:
    plain = xr.open_zarr(tiny_cube.url, chunks=None)
    seen = xr.open_dataset(tiny_cube.url, engine="cube", where="season=spring and scene=15")
    rows = (plain.season.values == "spring") & (plain.scene.values == 15)
    xr.testing.assert_identical(seen.load(), plain.isel(patch=np.flatnonzero(rows)).load())
    scattered = open_cube(tiny_cube.url, where="number=30,33")
    rows = np.isin(plain.number.values, [30, 33])
    xr.testing.assert_identical(scattered.load(), plain.isel(patch=np.flatnonzero(rows)).load())


def test_a_box_and_modalities_choose(tiny_cube: Built) -> None:
    whole = open_cube(tiny_cube.url)
    lon, lat = float(whole.lon[0]), float(whole.lat[0])
    near = open_cube(tiny_cube.url, bbox=(lon, lat, lon, lat), modalities=["s2"])
    assert list(near.data_vars) == ["s2"]
    assert whole.patch.values[0] in near.patch.values
    assert 0 < near.sizes["patch"] < 10
    assert open_cube(tiny_cube.url, bbox=(0.0, 0.0, 1.0, 1.0)).sizes["patch"] == 0


def test_a_filter_reads_the_labels_it_names(tiny_cube: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read = LocalStore.read
    monkeypatch.setattr(LocalStore, "read", lambda self, key: asked.append(key) or read(self, key))
    chosen = open_cube(tiny_cube.url, where="season=summer")
    assert sorted(set(asked)) == ["patch/c/0", "season/c/0", "zarr.json"]
    assert set(chosen.season.values) == {"summer"}


def test_what_is_not_there_is_refused(tiny_cube: Built) -> None:
    with pytest.raises(FilterError, match="did you mean 'season'"):
        open_cube(tiny_cube.url, where="sesaon=summer")
    with pytest.raises(FilterError, match="did you mean 'summer'"):
        open_cube(tiny_cube.url, where="season=sumer")
    with pytest.raises(RequestError, match="no modalities"):
        open_cube(tiny_cube.url, modalities=["s3"])


def test_dask_chunks_of_a_run_end_where_those_of_the_cube_do(tiny_cube: Built) -> None:
    whole = xr.open_dataset(tiny_cube.url, engine="cube", chunks={})
    assert whole.s2.chunks[0] == (16, 9)
    run = xr.open_dataset(tiny_cube.url, engine="cube", chunks={}, where="scene=15")  # patches 11 to 16
    assert run.s2.chunks[0] == (5, 1)
    (optimized,) = dask.optimize(run.s2.mean())
    assert 2 <= len(optimized.__dask_graph__()) <= 8
    xr.testing.assert_identical(run.load(), open_cube(tiny_cube.url, where="scene=15").load())


def test_a_catalog_leads_to_its_cube(tiny_cube: Built, tmp_path: Path) -> None:
    catalog = tmp_path / "x.stac"
    catalog.mkdir()
    asset = {"href": "../x.zarr", "type": "application/vnd.zarr; version=3"}
    (catalog / "collection.json").write_text(json.dumps({"assets": {"page": {"href": "i.html"}, "zarr": asset}}))
    shutil.copytree(tiny_cube.url, tmp_path / "x.zarr")
    expected = open_cube(tiny_cube.url).load()
    for url in (f"{catalog}/collection.json", f"{catalog}/", f"{tmp_path}/x.zarr/zarr.json"):
        xr.testing.assert_identical(open_cube(url).load(), expected)
    (catalog / "collection.json").write_text(json.dumps({"assets": {}}))
    with pytest.raises(RequestError, match="lists no Zarr asset"):
        open_cube(str(catalog))


class _Ranged(http.server.SimpleHTTPRequestHandler):
    """Serves files, and parts of files where it is asked for them."""

    ranges = True

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        path = Path(self.translate_path(self.path))
        if not (self.ranges and asked and path.is_file()):
            super().do_GET()
            return
        data = path.read_bytes()
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else len(data) - int(last)
        stop = int(last) + 1 if first and last else len(data)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(data[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


class _Whole(_Ranged):
    ranges = False


@contextmanager
def serving(folder: Path, handler: type[_Ranged]) -> Iterator[str]:
    """Serve a folder on the loopback interface."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_plain_web_server_is_enough(tiny_cube: Built, made: Made) -> None:
    folder = Path(tiny_cube.url).parent
    with serving(folder, _Ranged) as url:
        seen = open_cube(f"{url}/tiny.zarr").isel(patch=[3, 17]).s2.values
        assert np.array_equal(seen, made.array("s2")[[3, 17]])
        assert np.array_equal(Samples(f"{url}/tiny.zarr", modalities=["lc"]).read([4])["lc"], made.array("lc")[[4]])
        with pytest.raises(FileNotFoundError):
            open_cube(f"{url}/other.zarr")


def test_a_server_that_ignores_ranges_is_refused(tiny_cube: Built) -> None:
    with serving(Path(tiny_cube.url).parent, _Whole) as url:
        cube = open_cube(f"{url}/tiny.zarr")
        with pytest.raises(OSError, match="must honour Range"):
            cube.s2.load()
