"""Lines of analysis that people write: on every form in which a cube can be opened, they give what NumPy gives."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from making import Made

from cube import open_cube
from cube.jobs.build import Built

FORMS: dict[str, Callable[[str], xr.Dataset]] = {
    "open_cube": open_cube,
    "open_cube, chunked": lambda url: open_cube(url).chunk(patch=4),
    "open_cube, chosen": lambda url: open_cube(url, where="scene>0").chunk(patch=4),
    "engine, chunks={}": lambda url: xr.open_dataset(url, engine="cube", chunks={}),
    "engine, auto": lambda url: xr.open_dataset(url, engine="cube", chunks="auto"),
    "open_zarr, its line": lambda url: (
        xr.open_zarr(url, chunks=None).set_xindex("season").set_xindex("scene").drop_encoding().chunk(patch=4)
    ),
}
LAZY = [name for name in FORMS if name != "open_cube"]


@pytest.fixture(params=list(FORMS))
def cube(request: pytest.FixtureRequest, tiny_cube: Built) -> xr.Dataset:
    return FORMS[request.param](tiny_cube.url)


def rows_of(made: Made, season: str) -> list[int]:
    return [row for row, name in enumerate(made.ids) if made.scenes[name].season == season]


@pytest.mark.parametrize("label", ["season", "scene"])
def test_grouping_by_a_label(cube: xr.Dataset, made: Made, label: str) -> None:
    means = cube["s2"].groupby(label).mean()
    values = np.array([getattr(made.scenes[name], {"season": "season", "scene": "number"}[label]) for name in made.ids])
    for value in np.unique(values):
        expected = made.array("s2")[values == value].mean(axis=0)
        np.testing.assert_allclose(means.sel({label: value}).values, expected, rtol=1e-6)


def test_indexing_by_a_condition_on_a_label(cube: xr.Dataset, made: Made) -> None:
    season = made.scenes[made.ids[0]].season
    expected = made.array("s2")[rows_of(made, season)]
    np.testing.assert_array_equal(cube["s2"][cube["season"].values == season].values, expected)
    np.testing.assert_array_equal(cube["s2"].isel(patch=cube["season"] == season).values, expected)
    kept = cube["s2"].where(cube["season"] == season, drop=True)
    np.testing.assert_array_equal(kept.values, expected)


@pytest.mark.parametrize("form", [name for name in FORMS if name.startswith(("open_cube", "engine"))])
def test_labels_are_in_memory_whatever_is_chunked(tiny_cube: Built, form: str) -> None:
    cube = FORMS[form](tiny_cube.url)
    for part in (cube, cube.isel(patch=slice(2, 9)), cube[["s2"]], cube.assign(more=cube["s2"] + 1), cube.chunk(patch=3)):
        chunked = [name for name, label in part.coords.items() if label.chunks]
        assert chunked == []
    assert cube.chunk(patch=3)["s2"].chunks


@pytest.mark.parametrize("form", LAZY)
def test_a_chunked_choice_can_be_written(tiny_cube: Built, made: Made, tmp_path: Path, form: str) -> None:
    part = FORMS[form](tiny_cube.url).isel(patch=slice(3, 12))
    if form.startswith("open_zarr"):
        part = part.reset_index(["season", "scene"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The data type")  # text of a fixed width: Zarr has no name for it yet
        part.chunk(patch=4).to_zarr(tmp_path / "part.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "part.zarr", chunks=None, consolidated=False)
    np.testing.assert_array_equal(again["s2"].values, made.array("s2")[3:12])
    assert again["patch"].values.tolist() == made.ids[3:12]


@pytest.mark.parametrize("keyword", ["mask_and_scale", "decode_cf", "decode_times", "use_cftime", "concat_characters"])
@pytest.mark.parametrize("value", [True, False])
def test_the_keywords_for_decoding_are_taken(tiny_cube: Built, keyword: str, value: bool) -> None:
    plain = xr.open_dataset(tiny_cube.url, engine="cube")
    told = xr.open_dataset(tiny_cube.url, engine="cube", **{keyword: value})  # type: ignore[arg-type]
    xr.testing.assert_identical(told.reset_coords(), plain.reset_coords())


def test_labels_stay_variables_where_coordinates_are_not_decoded(tiny_cube: Built) -> None:
    told = xr.open_dataset(tiny_cube.url, engine="cube", decode_coords=False)
    assert {"season", "scene", "present", "s2"} <= set(told.data_vars)


def test_rio_is_there_at_once(tiny_cube: Built, made: Made) -> None:
    program = (
        "import sys; from cube import open_scene, open_patch; s = open_scene(sys.argv[1], season='spring', scene=1); "
        "print(s['s2'].rio.crs.to_epsg(), s['s2'].rio.nodata, open_patch(sys.argv[1], sys.argv[2])['s2'].rio.crs.to_epsg())"
    )
    command = [sys.executable, "-c", program, tiny_cube.url, made.ids[0]]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    epsg = str(made.scenes[made.ids[0]].epsg)
    assert said == [epsg, "0", epsg]


LINES: dict[str, Callable[[xr.DataArray], xr.DataArray | xr.Dataset]] = {
    "coarsen": lambda part: part.coarsen(x=4, y=4).mean(),
    "rolling": lambda part: part.rolling(x=3).mean(),
    "stack": lambda part: part.stack(pixel=("y", "x")).mean("pixel"),
    "weighted": lambda part: part.weighted(np.cos(np.deg2rad(part["lat"])).fillna(0)).mean("patch"),
    "apply_ufunc": lambda part: xr.apply_ufunc(np.sqrt, part, dask="parallelized", output_dtypes=["f8"]),
    "map_blocks": lambda part: part.drop_vars([name for name in part.coords if name != "patch"]).map_blocks(
        lambda block: block * 2
    ),
    "concat": lambda part: xr.concat([part[:2], part[4:6]], "patch").drop_vars([*part.coords]),
    "label by label": lambda part: part.groupby("scene").max(),
}


@pytest.mark.parametrize("line", LINES)
def test_lines_of_the_user_guide_give_what_they_give_in_memory(cube: xr.Dataset, line: str) -> None:
    part = cube["s2"].isel(s2_band=0, patch=slice(0, 8), drop=True)
    lazy, loaded = LINES[line](part), LINES[line](part.load())
    np.testing.assert_allclose(lazy.compute().values, loaded.values)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as processes, Client(processes) as client:
        yield client


@pytest.mark.parametrize("form", ["open_cube, chunked", "engine, chunks={}", "open_zarr, its line"])
def test_the_same_lines_on_a_cluster(cluster: Client, tiny_cube: Built, made: Made, form: str) -> None:
    cube = FORMS[form](tiny_cube.url)
    for line in LINES.values():
        part = cube["s2"].isel(s2_band=0, patch=slice(0, 8), drop=True)
        loaded = line(part.compute(scheduler="synchronous"))
        np.testing.assert_allclose(cluster.compute(line(part)).result().values, loaded.values)
    means = cluster.compute(cube["s2"].groupby("season").mean()).result()
    for season in means["season"].values.tolist():
        np.testing.assert_allclose(means.sel(season=season), made.array("s2")[rows_of(made, season)].mean(axis=0), rtol=1e-6)
