"""Files that claim much: each is one rejection, soon and in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_files import corpus

from cube.errors import RejectedFile
from cube.source.expectations import Expectation
from cube.source.rasters import read_raster
from cube.store.local import LocalStore
from cube.store.protocol import Entry

PROGRAM = """
import json, resource, sys, time
from hostile_files import corpus
from cube.errors import RejectedFile
from cube.source.expectations import Expectation
from cube.source.rasters import RasterReader, read_raster
import numpy as np
expected = Expectation(dtype="uint16", size=16, bands=4, georeferenced=False)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
files = list(corpus())
first = read_raster  # GDAL itself is loaded before memory is counted
import rasterio
before, slowest, outcomes, growth = peak(), 0.0, {}, {}
for name, data in files:
    began, held = time.process_time(), peak()
    try:
        RasterReader().read(data, expected)
        outcome = "read"
    except RejectedFile as error:
        outcome = error.reason
    slowest = max(slowest, time.process_time() - began)
    growth[name] = peak() - held
    outcomes[name] = outcome
worst = max(growth, key=growth.get)
print(json.dumps({"slowest": slowest, "grown": peak() - before, "outcomes": outcomes, "worst": worst}))
"""


def test_each_of_a_corpus_is_one_rejection_soon_and_in_little_memory() -> None:
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    said = json.loads(done.stdout)
    assert len(said["outcomes"]) == len(dict(corpus())) >= 190
    assert said["slowest"] < 2
    assert said["grown"] < 128 << 20, said["worst"]
    assert said["outcomes"]["tiff of many texts"] == "read"
    bombs = {name for name in said["outcomes"] if name.startswith(("png with a bomb", "png of many", "tiff of many"))}
    assert {said["outcomes"][name] for name in said["outcomes"].keys() - bombs} <= {
        "truncated", "unreadable", "unknown format", "wrong size", "wrong bands", "wrong dtype", "too large"
    }  # fmt: skip


def test_more_bytes_than_any_such_file_needs_are_not_looked_at() -> None:
    expected = Expectation(dtype="uint8", size=16, bands=1, georeferenced=False)
    with pytest.raises(RejectedFile, match="too large: 5,000,000 bytes, more than"):
        read_raster(bytes(5_000_000), expected)


def test_pipes_devices_and_folders_are_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "zero.tif").symlink_to("/dev/zero")
    (tmp_path / "folder.tif").mkdir()
    store = LocalStore(str(tmp_path))

    def read_into(key: str) -> int:
        with store.opened() as files:
            return files.read_into(key, 0, memoryview(bytearray(4)))

    for name in ("pipe.tif", "zero.tif"):
        for read in (
            store.read,
            lambda key: store.read_range(key, 0, 4),
            read_into,
        ):
            with pytest.raises(PermissionError, match="no regular file"):
                read(name)
    with pytest.raises(IsADirectoryError):
        store.read("folder.tif")
    assert {entry.key: entry.size for entry in store.list()} == {"pipe.tif": -1, "zero.tif": -1}


def test_a_file_that_has_grown_since_it_was_listed_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(bytes(100))
    (answer,) = LocalStore(str(tmp_path)).read_listed([Entry("a.tif", 40)])
    assert isinstance(answer, OSError)
    assert "100 bytes, more than the 40" in str(answer)
