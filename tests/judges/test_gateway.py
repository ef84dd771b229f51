"""A Dask Gateway server, as Pangeo runs one: it starts the scheduler and the workers, the command asks it for them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from environments import Environment, make_wheel, new_environment
from making import Made, build, write_recipe
from servers import free_ports

pytestmark = [pytest.mark.judges, pytest.mark.timeout(1800)]

SERVER = """
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.address = "127.0.0.1:{api}"
c.Proxy.address = "127.0.0.1:{web}"
c.Proxy.tcp_address = "127.0.0.1:{scheduler}"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.SimpleAuthenticator.password = "gateway-secret"
c.UnsafeLocalBackend.clusters_directory = "{folder}/clusters"
c.ClusterConfig.worker_cores = 1
c.ClusterConfig.worker_memory = "1 G"
c.ClusterConfig.cluster_max_workers = 2
c.ClusterConfig.scheduler_cmd = ["{python}", "-m", "dask", "scheduler"]
c.ClusterConfig.worker_cmd = ["{python}", "-m", "dask", "worker"]
"""
PROFILE = """
cluster:
  class: dask_gateway.GatewayCluster
  options:
    address: http://127.0.0.1:{web}
    proxy_address: gateway://127.0.0.1:{scheduler}
    auth: basic
  {size}
"""
SECRET = {"DASK_GATEWAY__AUTH__KWARGS__PASSWORD": "gateway-secret"}
"""By this variable Dask's configuration learns the password: no file holds it."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel, the server and its client; all else is that of the running environment."""
    made = new_environment(tmp_path_factory.mktemp("environment"), with_dependencies=True)
    wheel = make_wheel(tmp_path_factory.mktemp("wheel"))
    made.install("dask-gateway-server[local]==2026.3.0", "dask-gateway==2026.3.0", "sqlalchemy", "colorlog")
    made.run("python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps", str(wheel))
    return made


@dataclass(frozen=True)
class GatewayServer:
    """A running server."""

    environment: Environment
    web: int
    scheduler: int

    def profile(self, path: Path, size: str) -> Path:
        """Write a config file that asks this server for a cluster."""
        path.write_text(PROFILE.format(web=self.web, scheduler=self.scheduler, size=size), encoding="utf-8")
        return path

    def clusters(self) -> list[str]:
        """Return the clusters that run."""
        place = f"'http://127.0.0.1:{self.web}', proxy_address='gateway://127.0.0.1:{self.scheduler}', auth='basic'"
        asked = "    print(*(report.name for report in gateway.list_clusters()))"
        program = f"from dask_gateway import Gateway\nwith Gateway({place}) as gateway:\n{asked}"
        return self.environment.run("python", "-W", "ignore", "-c", program, **SECRET).split()


@pytest.fixture(scope="module")
def gateway(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "clusters").mkdir()
    api, web, scheduler = free_ports(3)
    settings = {"api": api, "web": web, "scheduler": scheduler, "folder": folder, "python": environment.python}
    (folder / "config.py").write_text(SERVER.format(**settings), encoding="utf-8")
    command = [environment.programs / "dask-gateway-server", "--config", str(folder / "config.py")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment.variables(), stdout=log, stderr=log)
    try:
        for port in (api, web, scheduler):
            wait_for(port, process, folder / "log")
        yield GatewayServer(environment, web, scheduler)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        assert time.monotonic() < until, log.read_text(errors="replace")[-2000:]
        time.sleep(0.1)


def objects(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", ["workers: 2", "adapt: {minimum: 1, maximum: 2}"])
def test_a_gateway_makes_the_same_cube(gateway: GatewayServer, made: Made, tmp_path: Path, size: str) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", shard=2)
    build(recipe, made.folder, tmp_path / "alone.zarr")
    config = gateway.profile(tmp_path / "cube.yaml", size)
    words = ["build", str(recipe), "--source", str(made.folder), "--to", str(tmp_path / "a.zarr"), "--config", str(config)]
    said = json.loads(gateway.environment.run("cube", *words, "--json", **SECRET))
    assert said["report"]["passed"]
    assert objects(tmp_path / "a.zarr") == objects(tmp_path / "alone.zarr")
    assert gateway.clusters() == []


def test_a_wrong_password_is_told(gateway: GatewayServer, made: Made, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml")
    config = gateway.profile(tmp_path / "cube.yaml", "workers: 1")
    command = [str(gateway.environment.programs / "cube"), "build", str(recipe), "--source", str(made.folder)]
    command += ["--to", str(tmp_path / "a.zarr"), "--config", str(config)]
    variables = gateway.environment.variables(DASK_GATEWAY__AUTH__KWARGS__PASSWORD="wrong")
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "cube: dask_gateway.GatewayCluster does not start: " in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_client_the_package_to_install_is_named(tmp_path: Path, made: Made) -> None:
    config = tmp_path / "cube.yaml"
    config.write_text("cluster: {class: dask_gateway.GatewayCluster}\n")
    words = ["build", str(write_recipe(tmp_path / "tiny.yaml")), "--source", str(made.folder), "--config", str(config)]
    command = [sys.executable, "-m", "cube", *words, "--to", str(tmp_path / "a.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "No module named 'dask_gateway'; try `pip install dask-gateway`" in done.stderr
