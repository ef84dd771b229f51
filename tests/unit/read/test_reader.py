from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from making import MODALITIES, Built, Made

import cube


def test_a_cube_opens_lazily_with_every_label(tiny_cube: Built, made: Made) -> None:
    opened = cube.open_cube(tiny_cube.url)
    assert list(opened.data_vars) == list(MODALITIES)
    assert opened.patch.values.tolist() == made.ids
    assert all(not opened[name]._in_memory for name in MODALITIES)
    assert all(opened[name].chunks is None for name in MODALITIES)
    assert {"season", "scene", "split", "epsg", "transform", "digest", "present"} <= set(opened.coords)


def test_it_is_what_plain_xarray_reads(tiny_cube: Built) -> None:
    xr.testing.assert_identical(cube.open_cube(tiny_cube.url).load(), xr.open_zarr(tiny_cube.url).load())


def test_a_selection_reads_the_right_pixels(tiny_cube: Built, made: Made) -> None:
    name = made.ids[5]
    patch = cube.open_cube(tiny_cube.url).sel(patch=name)
    assert np.array_equal(patch.s2.values, made.pixels[name, "s2"])


def test_nothing_there_is_said(tmp_path: object) -> None:
    with pytest.raises(FileNotFoundError):
        cube.open_cube(f"{tmp_path}/none.zarr")
