"""The true names at their true number: scan, plan and coordinates of data sets as large as those that were published."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.judges
@pytest.mark.timeout(1200)
def test_full_size_stays_within_its_limits(shared: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks/fullsize.py"
    done = subprocess.run([sys.executable, script, "--folder", tmp_path / "full"], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "180,662 patches" in done.stdout
    assert "282,384 patches" in done.stdout
