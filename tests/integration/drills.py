"""What fault tests have in common: a data set on S3 behind a proxy that fails, and builds of it in this process."""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from faults import Proxy, fault_proxy
from making import MODALITIES, Made, make_patches, write_recipe
from making import Scene as MadeScene
from servers import S3Server, close_connections, seaweedfs

from cube.cli.main import main

SCENE = MadeScene("fall", 3, rows=2, columns=3, first=0)
SECRET = "cubeadmin-secret"
RUNS = 4
"""Runs after which a build must be done."""


@dataclass
class Ground:
    """A data set on S3, and what a build of it leaves that nothing disturbed."""

    server: S3Server
    proxy: Proxy
    made: Made
    recipe: Path
    folder: Path
    reference: dict[str, str] = field(default_factory=dict)
    """Key → SHA-256 of every object of the cube."""
    count: int = 0

    source = "s3://private/files"

    @property
    def shards(self) -> list[str]:
        """Keys of the shards of a cube."""
        return [key for key in self.reference if key.partition("/")[0] in MODALITIES and "/c/" in key]

    def target(self) -> str:
        """Return a new place for a cube."""
        self.count += 1
        return f"s3://private/cube-{self.count}.zarr"

    def arguments(self, to: str) -> list[str]:
        """Return the command of a build."""
        return ["build", str(self.recipe), "--source", self.source, "--to", to, "--sample", "0", "--json"]

    def run(self, *arguments: str) -> Result:
        """Run the command in this process; what it prints holds no secret."""
        result = CliRunner().invoke(main, list(arguments))
        assert SECRET not in result.output
        return result

    def build(self, to: str) -> Result:
        """Build in this process."""
        return self.run(*self.arguments(to), "--workers", "0")

    def objects(self, to: str) -> dict[str, str]:
        """Return the SHA-256 of every object of a cube, read past the proxy."""
        prefix = to.removeprefix("s3://private/")
        objects = self.server.objects("private", f"{prefix}/")
        return {key: hashlib.sha256(data).hexdigest() for key, data in objects.items()}

    def wait_for(self, method: str, path: str, count: int = 1) -> None:
        """Wait until the proxy has seen such requests."""
        until = time.monotonic() + 120
        while self.proxy.count(method, path) < count:
            assert time.monotonic() < until, f"no {method} of {path}"
            time.sleep(0.002)

    def finish(self, to: str) -> int:
        """Run until the build is done, compare its bytes, and return how many runs it took."""
        for run in range(RUNS):
            result = self.build(to)
            if result.exit_code == 0:
                assert self.objects(to) == self.reference
                return run + 1
            assert isinstance(result.exception, SystemExit), result.exception
            assert "cube: " in result.stderr or "NOT sound" in result.output
        raise AssertionError(f"{to} is not done after {RUNS} runs: {result.output}")


@contextmanager
def ground(folder: Path, *, shard: int = 4) -> Iterator[Ground]:
    """Give a ground; every S3 client of this process goes through the proxy until the block ends."""
    made = make_patches(folder / "files", [SCENE])
    recipe = write_recipe(folder / "tiny.yaml", shard=shard)
    close_connections()
    with seaweedfs(folder / "seaweed") as server, fault_proxy(server.port) as proxy, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in (server.environment | {"AWS_ENDPOINT_URL": proxy.url}).items():
            patch.setenv(name, value)
        patch.setattr("cube.store.failures._READ_SECONDS", 2)
        client = server.client()
        for path in made.files.values():
            key = f"files/{path.relative_to(made.folder).as_posix()}"
            client.put_object(Bucket="private", Key=key, Body=path.read_bytes())
        client.close()
        given = Ground(server, proxy, made, recipe, folder)
        to = given.target()
        result = given.build(to)
        assert result.exit_code == 0, result.output
        given.reference = given.objects(to)
        yield given
        close_connections()


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``limit`` bytes, as on a disk that is full, and have every object be a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cube.store.objects.SPOOL_LIMIT", 1024)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def facts(proxy: Proxy) -> list[tuple[Any, ...]]:
    """Return the log of a proxy in short."""
    return [(item.method, item.path, item.range, item.status, item.fault) for item in proxy.log]
