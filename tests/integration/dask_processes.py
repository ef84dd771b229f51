"""A Dask cluster as people start one by hand: a scheduler and workers, each a process of its own, ended by its id."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from servers import free_ports


@contextmanager
def dask_scheduler(
    *, python: str | Path = sys.executable, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Iterator[str]:
    """Run ``dask scheduler`` and give its address."""
    (port,) = free_ports(1)
    words = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    with _process(python, *words, environment=environment, folder=folder):
        yield f"tcp://127.0.0.1:{port}"


@contextmanager
def dask_worker(
    scheduler: str, *, python: str | Path = sys.executable, environment: Mapping[str, str] | None = None, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``dask worker`` with one thread and no nanny; ``folder`` is where it works."""
    words = ["worker", scheduler, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    with _process(python, *words, "--local-directory", str(folder), environment=environment, folder=folder) as process:
        yield process


@contextmanager
def _process(
    python: str | Path, *words: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [str(python), "-m", "dask", *words],
        env=dict(os.environ if environment is None else environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Refusing:
    """Has what a Dask cluster class has, and does not start."""

    def __init__(self) -> None:
        raise RuntimeError("no room")

    adapt = close = get_client = scale = __init__
