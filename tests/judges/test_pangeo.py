"""The notebook of the documents, run where this package is not installed: xarray, zarr, Dask and s3fs read the cube from S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from environments import ROOT, Environment, new_environment
from servers import S3Server, seaweedfs

pytestmark = [pytest.mark.judges, pytest.mark.timeout(1800)]

NOTEBOOK = ROOT / "docs/pangeo.ipynb"
URL = "s3://public/pangeo/demo.zarr"
BROKEN = "ROIs1970_fall_139_p92"
PROOF = """
import importlib.util, json
def installed():
    return [name for name in ("cube", "patchcube") if importlib.util.find_spec(name) is not None]
print(json.dumps({
    "here": installed(), "workers": list(client.run(installed).values()), "tasks": tasks, "chunks": chunks,
    "ran_on": len({task["worker"] for task in ran.data}), "means": means.to_dict(), "classes": histogram.tolist(),
    "codes": codes.tolist(),
}))
"""
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
notebook.cells.insert(-1, nbformat.v4.new_code_cell(sys.stdin.read()))
NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
print("".join(output.text for output in notebook.cells[-2].outputs))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("weed")) as running:
        yield running


@pytest.fixture(scope="module")
def files(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the demo; their cube is on S3, where anybody may read it."""
    folder = tmp_path_factory.mktemp("demo")
    build = ["build", "demo", "--source", str(folder / "files"), "--to", URL]
    for code, words in ((0, ["demo", str(folder)]), (3, build)):  # one of its files is broken
        command = [sys.executable, "-m", "cube", *words]
        variables = {**os.environ, **server.environment}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=variables)
        assert done.returncode == code, done.stderr
    return folder / "files"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What a Pangeo image has, and nothing of this project."""
    environment = new_environment(tmp_path_factory.mktemp("foreign"), with_dependencies=False)
    environment.install("xarray", "zarr", "dask", "distributed", "s3fs", "numpy", "nbclient", "ipykernel")
    return environment


@pytest.fixture(scope="module")
def told(foreign: Environment, files: Path, server: S3Server) -> dict[str, object]:
    """What the notebook found."""
    folder = foreign.empty
    places = {name: str(folder / name) for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    variables = {
        **{name: value for name, value in foreign.variables(**places).items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CUBE_URL": URL,
    }
    command = [str(foreign.python), "-c", EXECUTE, str(NOTEBOOK)]
    done = subprocess.run(
        command, cwd=folder, env=variables, input=PROOF, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def pixels(files: Path, season: str, modality: str) -> np.ndarray:
    """Return (patch, band, y, x) of every whole patch of a season, read with GDAL."""
    paths = [path for path in files.rglob("*.tif") if f"_{season}_{modality}_" in path.name]
    kept = [path for path in paths if path.stem.replace(f"_{modality}", "") != BROKEN]
    images = []
    for path in kept:
        with rasterio.open(path) as image:
            images.append(image.read())
    return np.stack(images)


def test_it_opens_with_the_line_that_the_store_states(server: S3Server, files: Path) -> None:
    root = json.loads(server.objects("public", "pangeo/demo.zarr/zarr.json")[""])
    cells = ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]]
    opening = next(cell for cell in cells if "open_zarr" in cell)
    assert opening.splitlines()[0] == f"cube = {root['attributes']['open_with']}"


def test_nobody_has_the_package(told: dict[str, object]) -> None:
    assert told["here"] == []
    assert told["workers"] == [[], []]


def test_it_finds_what_numpy_finds_in_the_files(told: dict[str, object], files: Path) -> None:
    means, counts = told["means"], np.zeros(256, np.int64)
    assert isinstance(means, dict)
    for season in ("spring", "summer", "fall", "winter"):
        expected = pixels(files, season, "s2").mean(axis=(0, 2, 3), dtype=np.float64)
        np.testing.assert_allclose(list(means[season].values()), expected, rtol=1e-12)
        counts += np.bincount(pixels(files, season, "lc")[:, 0].ravel(), minlength=256)
    assert told["classes"] == counts[told["codes"]].tolist()
    assert sum(counts) == sum(counts[told["codes"]])


def test_it_took_few_tasks(told: dict[str, object]) -> None:
    tasks, chunks = told["tasks"], told["chunks"]
    assert isinstance(tasks, int)
    assert isinstance(chunks, int)
    assert chunks == 8
    assert chunks <= tasks <= 10 * chunks
    assert told["ran_on"] == 2
