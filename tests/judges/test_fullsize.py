"""The true names at their true number: scan, plan and coordinates of data sets as large as those that were published."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.judges
@pytest.mark.timeout(1200)
def test_full_size_stays_within_its_limits(shared: Path, tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "fullsize.py", "--folder", tmp_path / "full"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "180,662 patches" in done.stdout
    assert "282,384 patches" in done.stdout


@pytest.mark.judges
@pytest.mark.timeout(600)
def test_some_scenes_with_tiny_pixels_go_end_to_end_through_a_kill(shared: Path, tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "endtoend.py", "--shares", "64", "--folder", tmp_path / "tiny"]
    command += ["--out", tmp_path / "figures.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming wrote only what was missing: yes" in done.stdout
    assert "a resumed cube is the same as one never killed: yes" in done.stdout


@pytest.mark.judges
@pytest.mark.timeout(600)
def test_the_catalog_of_all_patches_is_written_and_searched_within_its_limits(shared: Path, tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "catalog.py", "--folder", tmp_path / "catalog"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "180,662 patches, 252 items" in done.stdout
    assert "from S3, box, season and class: 109 patches" in done.stdout
