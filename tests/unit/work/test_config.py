"""Config files: strict, and as silent about what they hold as about a password."""

from __future__ import annotations

from pathlib import Path

import pytest

from cube.errors import ConfigError
from cube.work.config import Adapt, ClusterProfile, Config, read_config

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
    assert read_config(write(tmp_path, "# nothing\n")) == Config()


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


def test_a_cluster(tmp_path: Path) -> None:
    text = (
        "cluster:\n  class: dask_gateway.GatewayCluster\n  options: {address: http://x}\n  adapt: {maximum: 16}\n  wait: 7200\n"
    )
    profile = read_config(write(tmp_path, text)).cluster
    assert profile is not None
    assert profile.class_path == "dask_gateway.GatewayCluster"
    assert profile.options == {"address": "http://x"}
    assert profile.adapt == Adapt(minimum=1, maximum=16)
    assert profile.workers is None
    assert profile.wait == 7200


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{workers: 4}", "cluster.class: Field required"),
        ("{class: LocalCluster}", "cluster.class: String should match pattern"),
        ("{class: 'os.system(1)'}", "cluster.class: String should match pattern"),
        ("{class: a.B, worker: 4}", "cluster.worker: Extra inputs are not permitted; expected class and options and workers"),
        ("{class: a.B, class_path: a.B}", "cluster.class_path: Extra inputs are not permitted"),
        ("{class: a.B, workers: '4'}", "cluster.workers: Input should be a valid integer"),
        ("{class: a.B, workers: 0}", "cluster.workers: Input should be greater than or equal to 1"),
        ("{class: a.B, adapt: {minimum: 0, maximum: 2}}", "cluster.adapt.minimum: Input should be greater than or equal to 1"),
        ("{class: a.B, adapt: {minimum: 3, maximum: 2}}", "cluster: adapt: the minimum 3 is more than the maximum 2"),
        ("{class: a.B, adapt: {most: 2}}", "cluster.adapt."),
        ("{class: a.B, workers: 1, adapt: {maximum: 2}}", "cluster: workers and adapt exclude each other"),
    ],
)
def test_what_is_wrong_with_a_cluster_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, f"cluster: {text}\n"))
    assert told in str(caught.value)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [id]", "!!python/name:os.system", "!!python/module:os"])
def test_a_config_runs_nothing(tmp_path: Path, tag: str) -> None:
    with pytest.raises(ConfigError, match="not YAML"):
        read_config(write(tmp_path, f"cluster: {tag}\n"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it is no UTF-8 text"):
        read_config(tmp_path / "binary.yaml")


def test_a_config_does_not_show_what_it_holds() -> None:
    cluster = ClusterProfile.model_validate({"class": "coiled.Cluster", "options": {"token": SECRET}})
    config = Config(storage={"s3://b": {"secret": SECRET}}, cluster=cluster)
    assert SECRET not in f"{config!r} {config}"


def test_levels_within_each_other(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("[" * 50_000)
    with pytest.raises(
        ConfigError, match=r"deep\.yaml: (too many levels within each other|not YAML)|deep\.yaml, line 1: not YAML"
    ):
        read_config(tmp_path / "deep.yaml")
