"""The examples run, in a short form: what they write can be looked at, and what they return are scores."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner
from making import require_torch
from PIL import Image

from cube.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_runs_and_draws(name: str, tmp_path: Path) -> None:
    require_torch()
    assert CliRunner().invoke(main, ["demo", str(tmp_path)]).exit_code == 0
    picture = tmp_path / f"{name}.png"
    scores = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](
        str(tmp_path / "demo.zarr"), "--epochs", "1", "--to", str(picture)
    )
    assert len(scores) == 2
    assert all(0 <= score <= 1 for score in scores.values())
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 300


def test_examples_are_short() -> None:
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 120 for path in EXAMPLES.glob("*.py"))
