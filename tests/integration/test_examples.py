"""The examples run, in a short form: what they write can be looked at, and what they return are scores."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from making import require_torch
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
QUICK = ("classification", "lightning_segmentation")


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")  # Lightning 2.6 beside PyTorch 2.13
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:DeprecationWarning")
@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.judges) for name in NAMES])
def test_an_example_runs_and_draws(name: str, demo: Path, tmp_path: Path) -> None:
    require_torch()
    picture = tmp_path / f"{name}.png"
    scores = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](
        str(demo / "demo.zarr"), "--epochs", "1", "--to", str(picture)
    )
    assert len(scores) == 2
    assert all(0 <= score <= 1 for score in scores.values())
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 300


def test_examples_are_short() -> None:
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 120 for path in EXAMPLES.glob("*.py"))
