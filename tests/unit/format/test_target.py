"""Targets: what a disk answers comes with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from cube.errors import StorageError
from cube.format.target import Target, target_of


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return target_of(str(tmp_path / "a.zarr"))


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(28, r"free some space \(there and in the temporary folder\) and run again"), (5, "mend that and run again")],
)
def test_what_a_disk_answers_comes_with_what_to_do(target: Target, code: int, remedy: str) -> None:
    with pytest.raises(StorageError, match=remedy), target.storing():
        raise OSError(code, "it says no")
