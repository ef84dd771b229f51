"""The demo, made once for all tests of documents."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``cube demo`` makes, by the real command, once. Read only."""
    folder = tmp_path_factory.mktemp("docs")
    got = subprocess.run([sys.executable, "-m", "cube", "demo"], cwd=folder, capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stderr
    assert got.stdout.count("demo.zarr is sound:") == 2
    return folder / "cube-demo"
