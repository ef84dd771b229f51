"""What the engine is asked to choose when a cube is opened, and where it may be opened from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import dask
import numpy as np
import pytest
import xarray as xr
from making import MODALITIES, Built, Made
from web import Ranged, Whole, serving

from cube import Samples, open_cube
from cube.errors import FilterError, RequestError
from cube.store.local import LocalStore


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
    assert set(chosen.season.values) == {"summer"}
    assert sorted(asked) == ["patch/c/0", "season/c/0", "zarr.json"]


def test_what_is_not_there_is_refused(tiny_cube: Built) -> None:
    with pytest.raises(FilterError, match="did you mean 'season'"):
        open_cube(tiny_cube.url, where="sesaon=summer")
    with pytest.raises(FilterError, match="did you mean 'summer'"):
        open_cube(tiny_cube.url, where="season=sumer")
    with pytest.raises(RequestError, match="no modalities"):
        open_cube(tiny_cube.url, modalities=["s3"])


def test_dask_chunks_of_a_run_end_where_those_of_the_cube_do(tiny_cube: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cube.read.engine._DASK_BYTES", 16 * 13 * 32 * 32 * 2)
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


def test_a_plain_web_server_is_enough(tiny_cube: Built, made: Made) -> None:
    folder = Path(tiny_cube.url).parent
    with serving(folder, Ranged) as url:
        seen = open_cube(f"{url}/tiny.zarr").isel(patch=[3, 17]).s2.values
        assert np.array_equal(seen, made.array("s2")[[3, 17]])
        assert np.array_equal(Samples(f"{url}/tiny.zarr", modalities=["lc"]).read([4])["lc"], made.array("lc")[[4]])
        with pytest.raises(FileNotFoundError):
            open_cube(f"{url}/other.zarr")


@pytest.fixture
def counted(tiny_cube: Built) -> Iterator[tuple[str, list[str]]]:
    """URL of a cube on a web server, and what it was asked for so far."""

    class Counting(Ranged):
        asked: ClassVar[list[str]] = []

        def do_GET(self) -> None:
            self.asked.append(self.path.removeprefix("/tiny.zarr/"))
            super().do_GET()

        def do_HEAD(self) -> None:
            self.asked.append(f"HEAD {self.path}")
            super().do_HEAD()

    with serving(Path(tiny_cube.url).parent, Counting) as url:
        yield f"{url}/tiny.zarr", Counting.asked


def tiles_of(asked: list[str]) -> set[str]:
    return {key for key in asked if key.split("/")[0] in MODALITIES}


def test_opening_selecting_and_planning_ask_for_no_tile(counted: tuple[str, list[str]], made: Made) -> None:
    url, asked = counted
    cube = xr.open_dataset(url, engine="cube")
    assert asked == ["zarr.json", "patch/c/0"]
    one = cube.sel(patch=made.ids[4], s2_band=["B04", "B02"])
    part = cube.sel(season="spring").sel(split="train").isel(y=slice(0, 16))
    assert 0 < part.sizes["patch"] < len(made.ids)
    assert sorted(asked[2:]) == ["season/c/0", "split/c/0"]
    chosen = open_cube(url, where="season=summer and split=train", bbox=(-180, -90, 180, 90))
    part.chunk(patch=4).mean()
    xr.open_dataset(url, engine="cube", chunks={}).mean()
    repr(chosen), chosen._repr_html_()
    assert tiles_of(asked) == set()
    assert np.array_equal(one.s2.values, made.pixels[made.ids[4], "s2"][[3, 1]])
    assert tiles_of(asked) == {"s2/c/0/0/0/0"}


@pytest.mark.parametrize("patches", [1, 4, 16, 100])
def test_a_mean_has_about_two_tasks_a_chunk(tiny_cube: Built, monkeypatch: pytest.MonkeyPatch, patches: int) -> None:
    monkeypatch.setattr("cube.read.engine._DASK_BYTES", patches * 13 * 32 * 32 * 2)
    whole = xr.open_dataset(tiny_cube.url, engine="cube", chunks={})
    for cube in (whole, open_cube(tiny_cube.url).chunk(patch=patches)):
        chunks = sum(len(array.chunks[0]) for array in cube.data_vars.values())
        (mean,) = dask.optimize(cube.mean())
        assert chunks <= len(dict(mean.__dask_graph__())) <= 2 * chunks + 3 * len(cube.data_vars)


def test_a_server_that_ignores_ranges_is_refused(tiny_cube: Built) -> None:
    with serving(Path(tiny_cube.url).parent, Whole) as url:
        cube = open_cube(f"{url}/tiny.zarr")
        with pytest.raises(OSError, match="must honour Range"):
            cube.s2.load()


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("season=spring or season=summer", lambda cube: np.isin(cube["season"], ["spring", "summer"])),
        ("not season=spring and lat>-90", lambda cube: cube["season"] != "spring"),
        ("patch=*_p1*", lambda cube: np.char.find(cube["patch"].values.astype(str), "_p1") >= 0),
        ("zero_count:s2=0", lambda cube: cube["zero_count"][:, 1] == 0),
        ("present:s1=true", lambda cube: cube["present"][:, 0]),
        ("nan_count:s1>0 or nan_count:s1=0", lambda cube: cube["number"] >= 0),
    ],
)
def test_every_label_is_a_field(tiny_cube: Built, where: str, chosen: Callable[[xr.Dataset], Any]) -> None:
    whole = open_cube(tiny_cube.url)
    expected = whole["patch"].values[np.asarray(chosen(whole))].tolist()
    assert open_cube(tiny_cube.url, where=where)["patch"].values.tolist() == expected
    if expected:
        assert Samples(tiny_cube.url, where=where).ids.tolist() == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nan_count=0", "holds a value for each modality: name one, such as nan_count:s1"),
        ("nan_count:s9=0", "name one, such as nan_count:s1"),
        ("transform=0", "holds several values per patch"),
        ("transform:s1=0", "holds several values per patch"),
        ("nancount:s1=0", "unknown field 'nancount:s1'"),
    ],
)
def test_labels_that_are_no_fields(tiny_cube: Built, where: str, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        open_cube(tiny_cube.url, where=where)
