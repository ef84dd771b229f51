"""A build whose objects were damaged after they were written mends itself when it is run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from making import make_patches, write_recipe

from cube import writer
from cube.cli import main


def run_build(folder: Path) -> Result:
    arguments = ["build", str(folder / "tiny.yaml"), "--source", str(folder / "patches"), "--workers", "0"]
    return CliRunner().invoke(main, [*arguments, "--to", str(folder / "x.zarr")], catch_exceptions=False)


def test_a_shard_lost_between_receipt_and_root_is_named_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_patches(tmp_path / "patches")
    write_recipe(tmp_path / "tiny.yaml")
    shard = tmp_path / "x.zarr/s2/c/1/0/0/0"

    def damage(*arguments: Any) -> None:
        shard.write_bytes(bytes(shard.stat().st_size))  # what a power cut leaves: the size is right, the content is gone
        publish(*arguments)

    publish = writer.publish_root
    with monkeypatch.context() as patch:
        patch.setattr(writer, "publish_root", damage)
        first = run_build(tmp_path)
    assert first.exit_code == 1
    assert "s2/c/1/0/0/0" in first.output
    assert not (tmp_path / "x.stac").exists()
    second = run_build(tmp_path)
    assert second.exit_code == 0, second.output
    assert "1 of 2 batches stood" in second.output
    assert (tmp_path / "x.stac/collection.json").exists()
