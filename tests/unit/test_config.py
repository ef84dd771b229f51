"""Config files: strict, and as silent about what they hold as about a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from cube.config import Config, read_config
from cube.errors import ConfigError

SECRET = "hunter2-planted"


def write(folder: Path, text: str) -> Path:
    (folder / "cube.yaml").write_text(text)
    return folder / "cube.yaml"


def test_the_longest_prefix_that_fits_holds(tmp_path: Path) -> None:
    config = read_config(
        write(
            tmp_path,
            "storage:\n  s3://data: {anon: true}\n  s3://data/mine/: {requester_pays: true}\n  https://x.org: {timeout: 5}\n",
        )
    )
    assert config.options("s3://data") == config.options("s3://data/a.zarr") == {"anon": True}
    assert config.options("s3://data/mine") == config.options("s3://data/mine/a/b.zarr") == {"requester_pays": True}
    assert config.options("s3://database/a.zarr") == config.options("/data") == config.options("s3://other") == {}
    assert config.options("https://x.org/a.zarr") == {"timeout": 5}


def test_no_file_and_an_empty_one_say_nothing(tmp_path: Path) -> None:
    assert read_config(None) == read_config(write(tmp_path, "# nothing\n")) == Config()
    assert read_config(write(tmp_path, "cluster: {workers: 4}\n")).cluster == {"workers": 4}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("storage:\n  s3://b: {secret: hunter2-planted\n", "line 3: not YAML"),
        ("storage:\n  s3://b: hunter2-planted\n", "storage: Input should be a valid dictionary"),
        ("storage: hunter2-planted\n", "storage: Input should be a valid dictionary"),
        ("hunter2-planted\n", "Input should be a valid dictionary"),
        ("store: {s3://b: {secret: hunter2-planted}}\n", "store: Extra inputs are not permitted; expected storage and cluster"),
        (
            "storage:\n  bucket: {secret: hunter2-planted}\n",
            "storage: a key is no URL prefix; expected one such as s3://bucket",
        ),
        ("storage:\n  s3://me:hunter2-planted@b: {}\n", "storage: a key is no URL prefix; expected one such as s3://bucket"),
    ],
)
def test_what_is_wrong_is_told_without_a_value(tmp_path: Path, text: str, told: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)
    assert SECRET not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it is no UTF-8 text"):
        read_config(tmp_path / "binary.yaml")


def test_a_config_does_not_show_what_it_holds() -> None:
    config = Config(storage={"s3://b": {"secret": SECRET}}, cluster={"token": SECRET})
    assert SECRET not in f"{config!r} {config}"
