"""Secrets of storage options and of the environment stand in no object, no message and no log."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from distributed import Client, LocalCluster
from making import Made, write_recipe
from servers import S3Server, seaweedfs

from cube.cli.main import main
from cube.errors import RequestError, StorageError
from cube.jobs.portions import copy_objects
from cube.store.urls import open_store
from cube.work.clusters import open_cluster, run

WRONG = "planted-wrong-secret"
TOKEN = "planted-session-token"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


def config(path: Path, server: S3Server, **more: Any) -> str:
    """Write a config file with the credentials, which are nowhere else."""
    keys = {"key": server.environment["AWS_ACCESS_KEY_ID"], "secret": server.environment["AWS_SECRET_ACCESS_KEY"]}
    options = {**keys, "endpoint_url": server.endpoint, "client_kwargs": {"region_name": "us-east-1"}, **more}
    path.write_text(yaml.safe_dump({"storage": {"s3://private": options, "s3://public": options}}))
    return str(path)


def cube(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [sys.executable, "-m", "cube", *map(str, words)]
    plain |= {"AWS_EC2_METADATA_DISABLED": "true", **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=plain)


@pytest.mark.judges
def test_they_are_nowhere(server: S3Server, made: Made, tmp_path: Path) -> None:
    recipe, to = write_recipe(tmp_path / "tiny.yaml"), "s3://private/cubes/a.zarr"
    client = server.client()
    for path in made.files.values():
        client.put_object(Bucket="private", Key=f"files/{path.relative_to(made.folder).as_posix()}", Body=path.read_bytes())
    right = config(tmp_path / "right.yaml", server)
    wrong = config(tmp_path / "wrong.yaml", server, secret=WRONG)
    source = ["--source", "s3://private/files"]
    done = [
        cube("plan", recipe, *source, "--config", right, "--json"),
        cube("build", recipe, *source, "--to", to, "--config", right, "--workers", 2),
        cube("verify", to, *source, "--config", right, "--workers", 0, "--json"),
        cube("info", to, "--config", right),
        cube("copy", to, "s3://public/part.zarr", "--where", "season=spring", "--config", right, "--workers", 0),
        cube("clean", "s3://private/cubes", "--config", right),
    ]
    assert [(ran.returncode, ran.stderr[-500:]) for ran in done if ran.returncode] == []
    keys = {"AWS_ACCESS_KEY_ID": "AKIAPLANTED", "AWS_SECRET_ACCESS_KEY": WRONG, "AWS_SESSION_TOKEN": TOKEN}
    failed = [
        cube("build", recipe, *source, "--to", "s3://private/b.zarr", "--config", wrong, "--workers", 0),
        cube("build", recipe, "--source", made.folder, "--to", "s3://private/c.zarr", "--workers", 0, **keys,
             AWS_ENDPOINT_URL=server.endpoint),
        cube("copy", to, tmp_path / "x.zarr", "--config", wrong, "--workers", 0),
        cube("info", f"s3://me:{WRONG}@private/cubes/a.zarr"),
    ]  # fmt: skip
    assert [ran.returncode for ran in failed if ran.returncode not in (1, 2)] == []
    assert all(ran.stderr.startswith("cube: ") or "\ncube: " in ran.stderr for ran in failed)
    secrets = [server.environment["AWS_SECRET_ACCESS_KEY"], WRONG, TOKEN]
    told = [text for ran in (*done, *failed) for text in (ran.stdout, ran.stderr)]
    assert [(secret, text) for secret in secrets for text in told if secret in text] == []
    objects = {**server.objects("private", "cubes/"), **server.objects("public", ""), **server.objects("private", "b.")}
    assert {key.partition("/")[0] for key in objects} >= {"a.zarr", "a.build", "a.stac", "part.zarr"}
    found = [(secret, key) for secret in secrets for key, data in objects.items() if secret.encode() in data]
    assert found == []


@pytest.mark.judges
def test_a_task_that_fails_on_a_worker_does_not_log_them(tmp_path: Path) -> None:
    options = {
        "key": "AKIAPLANTED",
        "secret": WRONG,
        "token": TOKEN,
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    source, to = open_store("s3://private/a.zarr", options=options), open_store(str(tmp_path))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        with pytest.raises(StorageError) as caught:
            list(run(client, copy_objects, [("task", (0, source, to, {"a": 1}))]))
        logs = [*client.get_worker_logs().values(), client.get_scheduler_logs()]
    told = f"{caught.value} {logs}"
    assert "copy_objects" in told  # Dask does log the failing call with what it was given
    assert [secret for secret in (WRONG, TOKEN, "AKIAPLANTED") if secret in told] == []


SECRET = "pl4nted/s3cr3t"
URLS = (
    f"simplecache::s3://k:{SECRET}@b/x.zarr",
    f"s3://k:{SECRET}@b/x.zarr",
    f"https://h.invalid/x.zarr?token={SECRET}",
    f"https://h.invalid/x.zarr;{SECRET}",
    f"https://h.invalid/x.zarr#{SECRET}",
    f"https:user:{SECRET}@h.invalid/x.zarr",
    f"https://user:{SECRET}@h.invalid/x.zarr",
)
PLACES = (
    ("info", "URL"),
    ("verify", "URL", "--workers", "0"),
    ("verify", "HERE/x.zarr", "--source", "URL", "--workers", "0"),
    ("search", "URL", "--where", "scene=1"),
    ("copy", "URL", "HERE/y.zarr", "--workers", "0"),
    ("copy", "HERE/x.zarr", "URL", "--workers", "0"),
    ("clean", "URL"),
    ("plan", "URL", "--source", "HERE"),
    ("plan", "HERE/tiny.yaml", "--source", "URL"),
    ("build", "HERE/tiny.yaml", "--source", "HERE", "--to", "URL", "--workers", "0"),
    ("info", "HERE/x.zarr", "--config", "URL"),
    ("URL",),
    ("info", "HERE/x.zarr", "URL"),
    ("info", "--URL"),
)


@pytest.mark.parametrize("url", URLS)
def test_no_url_that_holds_one_is_echoed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr("cube.store.failures._READ_SECONDS", 1)
    write_recipe(tmp_path / "tiny.yaml")
    for words in PLACES:
        given = [word.replace("HERE", str(tmp_path)).replace("URL", url) for word in words]
        result = CliRunner().invoke(main, given)
        assert result.exit_code in (1, 2), (words, result.output)
        assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit), words
        assert SECRET not in result.output, words
        assert "s3cr3t" not in result.output, words
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
    assert kept == []


def test_a_scheduler_that_is_not_there_is_named_without_them(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught, open_cluster(scheduler=f"tcp://u:{SECRET}@127.0.0.1:9", workers=1):
        pass
    assert "127.0.0.1:9" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("s3://k:S@b/x is gone", "s3://…@b/x is gone"),
        ("simplecache::s3://k:S@b/x", "simplecache::s3://…@b/x"),
        ("'https://h/x?token=S' and https://h/y#S;", "'https://h/x?…' and https://h/y#…"),
        ("https:u:S@h/x", "https:…@h/x"),
        ("writing to s3://b/x.zarr; mend that", "writing to s3://b/x.zarr; mend that"),
        ("/data/a;b#c?d@e and class:Urban>0; scene=1", "/data/a;b#c?d@e and class:Urban>0; scene=1"),
    ],
)
def test_a_url_says_no_more_than_where_something_lies(said: str, told: str) -> None:
    assert str(RequestError(said)) == told
    assert str(pickle.loads(pickle.dumps(StorageError(said)))) == told
