"""TorchGeo's own class, over the files that a cube gives back, has the tensors of the class that reads the cube."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from making import require_torch
from packages import python_packages

import cube

pytestmark = pytest.mark.judges

HERE = Path(__file__).parent / "torchgeo"


def file_name(patch: str) -> str:
    """Return the name of the file of Sentinel-2, without its end, of an id such as ``ROIs1158_spring_1_p30``."""
    season, token, scene, number = patch.split("_")
    return f"{season}_{token}_s2_{scene}_{number}"


def test_tensors_are_those_of_torchgeo(demo: Path, tmp_path: Path) -> None:
    require_torch()
    from cube.torchgeo import SEN12MS

    url = str(demo / "demo.zarr")
    known = cube.Samples(url)
    chosen = {part: known.ids[known.label("split") == part][::20].tolist() for part in ("train", "test")}
    for part, ids in chosen.items():
        cube.export(url, tmp_path / "files", where=f"patch in ({','.join(ids)})")
        names = [file_name(one) for one in ids]
        (tmp_path / "files" / f"{part}_list.txt").write_text("".join(f"{name}.tif\n" for name in names))
    for season in ("ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter"):
        (tmp_path / "files" / season).mkdir(exist_ok=True)
    packages = python_packages(HERE / "requirements.txt")
    command = [sys.executable, str(HERE / "read.py"), str(tmp_path / "files"), str(tmp_path / "theirs.npz"), str(packages)]
    got = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert got.returncode == 0, got.stderr
    sets = {name: tuple(bands.split(",")) for name, _, bands in (line.partition(":") for line in got.stdout.splitlines())}
    compared = 0
    with np.load(tmp_path / "theirs.npz") as theirs:
        for name in ("all", "s1", "s2-all"):
            assert SEN12MS.BAND_SETS[name] == sets[name]
            for part, ids in chosen.items():
                ours = SEN12MS(url, split=part, bands=SEN12MS.BAND_SETS[name])
                for one in ids:
                    sample = ours[ours.ids.index(one)]
                    for key, values in sample.items():
                        their = theirs[f"{name} {file_name(one)} {key}"]
                        np.testing.assert_array_equal(values.numpy(), their)
                        assert values.numpy().dtype == their.dtype
                        compared += 1
    assert compared == 3 * 2 * sum(map(len, chosen.values()))
    assert set(sets["s2-reduced"]) ^ set(SEN12MS.BAND_SETS["s2-reduced"]) == {"B10", "B12"}
