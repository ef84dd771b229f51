"""Where the work runs: a local cluster of one-thread processes, a running Dask cluster, or this very process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any
from uuid import uuid4

import dask.config
from distributed import Client, LocalCluster, as_completed

from cube.errors import CubeError, RequestError, StorageError

_RETRIES = 2
_WINDOW = 2
"""Tasks in flight per worker thread."""
_CONNECT_SECONDS = 20
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(1 << 26), "MALLOC_MMAP_THRESHOLD_": str(1 << 25)}
"""Dask tells glibc to give every larger buffer back at once; for buffers of one file each that is a third of all CPU time."""

Task = tuple[str, tuple[Any, ...]]
"""A unique key and the arguments."""


@contextmanager
def open_cluster(*, scheduler: str | None, workers: int) -> Iterator[Client | None]:
    """Give a client of the cluster at ``scheduler``, or of a local one with so many processes; None for no process.

    Raises ``RequestError`` if no scheduler answers there.
    """
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=_CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise RequestError(f"no Dask scheduler answers at {scheduler!r}: {error}") from None
        with client:
            _require_worker(client, scheduler)
            yield client
    elif workers < 1:
        yield None
    else:
        with _local_cluster(workers) as cluster, Client(cluster) as client:
            yield client


def _require_worker(client: Client, scheduler: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
    except TimeoutError:
        raise RequestError(f"the scheduler at {scheduler!r} has no worker: start one, then run again") from None


def _local_cluster(workers: int) -> LocalCluster:
    environment = "distributed.nanny.pre-spawn-environ"
    settings = {environment: {**dask.config.get(environment), **_MALLOC}, "distributed.worker.profile.enabled": False}
    with dask.config.set(settings):
        return LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=0
        )


def _window(client: Client) -> int:
    """Return how many tasks to keep on the cluster as it is now."""
    return _WINDOW * max(1, int(sum(client.nthreads().values())))


def run(client: Client | None, function: Callable[..., Any], tasks: Iterable[Task]) -> Iterator[Any]:
    """Run tasks, a bounded number at a time, and yield their results as they come; the first error stops all.

    A result that is a ``CubeError`` is raised. A task that fails otherwise is tried again; if it keeps failing,
    ``StorageError`` says with what.
    """
    with closing(_here(function, tasks) if client is None else _remote(client, function, tasks)) as results:
        for result in results:
            if isinstance(result, CubeError):
                raise result
            yield result


def _here(function: Callable[..., Any], tasks: Iterable[Task]) -> Generator[Any, None, None]:
    for key, arguments in tasks:
        try:
            result = function(*arguments)
        except OSError as error:
            raise StorageError(f"{key} failed: {type(error).__name__}: {error}") from error
        yield result


def _remote(client: Client, function: Callable[..., Any], tasks: Iterable[Task]) -> Generator[Any, None, None]:
    waiting, run_id = iter(tasks), uuid4().hex  # another driver's equal task is not ours

    def submit(task: Task) -> Any:
        return client.submit(function, *task[1], key=f"{task[0]}-{run_id}", retries=_RETRIES, pure=False)

    running = as_completed([submit(task) for task in islice(waiting, _window(client))])
    pending = set(running.futures)
    try:
        for future in running:
            pending.discard(future)
            if future.status != "finished":
                error = future.exception()
                if isinstance(error, CubeError):
                    raise error
                times = f"{_RETRIES + 1} times"
                raise StorageError(f"{future.key} failed {times}: {type(error).__name__}: {error}") from error
            result = future.result()
            future.release()
            for task in islice(waiting, max(0, _window(client) - len(pending))):
                pending.add(more := submit(task))
                running.add(more)
            yield result
    finally:
        client.cancel(list(pending))
