"""Where the work runs: a local cluster of one-thread processes, any other Dask cluster, or this very process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from cube.errors import CubeError, RequestError, StorageError, without_secrets
from cube.work.config import ClusterProfile

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

_RETRIES = 2
_WINDOW = 2
"""Tasks in flight per worker thread."""
_LEAST_WINDOW = 16
"""Tasks in flight at least: a cluster that adapts grows by what waits."""
_CONNECT_SECONDS = 20
_CLUSTER_METHODS = ("adapt", "close", "get_client", "scale")
"""What every Dask cluster class has."""
_HTTP_CLIENTS = ("aiohttp", "httpx")
"""Packages whose errors come through a cluster class that asks a server for a cluster."""
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(1 << 26), "MALLOC_MMAP_THRESHOLD_": str(1 << 25)}
"""Dask tells glibc to give every larger buffer back at once; for buffers of one file each that is a third of all CPU time."""

Task = tuple[str, tuple[Any, ...]]
"""A unique key and the arguments."""


@contextmanager
def open_cluster(
    *, scheduler: str | None, workers: int, profile: ClusterProfile | None = None, dashboard: bool = False
) -> Iterator[Client | None]:
    """Give a client of a Dask cluster until the block ends; None for no process but this one.

    The cluster is the running one at ``scheduler``, else one started by ``profile``, else a local one of ``workers`` processes,
    which serves a dashboard only if ``dashboard`` says so.
    Raises ``RequestError`` if no scheduler answers, or if the cluster does not start.
    """
    if scheduler is not None:
        with _connected(scheduler) as client:
            _require_worker(client, f"the scheduler at {scheduler!r}", _CONNECT_SECONDS)
            yield client
    elif profile is not None:
        with _started(profile) as client:
            yield client
    elif workers < 1:
        yield None
    else:
        with _local_cluster(workers, dashboard) as cluster, cluster.get_client() as client:
            try:
                yield client
            finally:  # also where the work has failed: what failed is to be read, not a traceback of what was closed
                _end_heartbeats(client)


def is_client(value: Any) -> bool:
    """Tell whether a value is a client of a Dask cluster."""
    from distributed import Client

    return isinstance(value, Client)


def lanes(client: Client | None) -> int:
    """Return how many tasks run at a time on the cluster as it is now."""
    return max(1, int(sum(client.nthreads().values()))) if client is not None else 1


@contextmanager
def _started(profile: ClusterProfile) -> Iterator[Client]:
    kind = _cluster_class(profile.class_path)
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(closing(kind(**profile.options)))
            if profile.adapt is not None:
                cluster.adapt(minimum=profile.adapt.minimum, maximum=profile.adapt.maximum)
            elif profile.workers is not None:
                cluster.scale(profile.workers)
            client = stack.enter_context(cluster.get_client())
        except _errors_of(kind) as error:
            raise RequestError(f"{profile.class_path} does not start: {type(error).__name__}: {error}") from error
        _require_worker(client, profile.class_path, profile.wait)
        yield client


def _cluster_class(path: str) -> type[Any]:
    """Import a Dask cluster class. That runs code of its package: the path comes from the user's own config file only."""
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0].replace("_", "-")
        raise RequestError(f"{path}: {error}; try `pip install {package}`") from None
    if not isinstance(kind, type):
        raise RequestError(f"{path}: {module} has no class {name!r}")
    if missing := [method for method in _CLUSTER_METHODS if not callable(getattr(kind, method, None))]:
        raise RequestError(f"{path} is no Dask cluster class: it lacks {', '.join(missing)}")
    return kind


def _errors_of(kind: type[Any]) -> tuple[type[Exception], ...]:
    """Return the errors by which a cluster class says that it cannot start: the usual ones, its package's and HTTP client's."""
    packages = [sys.modules[name] for name in (kind.__module__.partition(".")[0], *_HTTP_CLIENTS) if name in sys.modules]
    exported = [item for package in packages for item in vars(package).values() if isinstance(item, type)]
    return OSError, ValueError, TypeError, RuntimeError, *(item for item in exported if issubclass(item, Exception))


def _end_heartbeats(client: Client) -> None:
    """Stop the heartbeats of workers that are about to be closed: one that is under way then ends in a traceback."""
    with suppress(OSError, TimeoutError):
        client.run(_end_heartbeat, on_error="ignore")


async def _end_heartbeat(dask_worker: Any) -> None:
    """Stop the heartbeats of a worker and wait for one that is under way, which holds a connection."""
    dask_worker.periodic_callbacks["heartbeat"].stop()
    for _ in range(100):
        if not dask_worker.rpc.active:
            return
        await asyncio.sleep(0.01)


def _require_worker(client: Client, name: str, seconds: float) -> None:
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError:
        raise RequestError(f"{name} has no worker after {seconds:g} s: start one, or wait longer, then run again") from None


def _connected(scheduler: str) -> Client:
    from distributed import Client

    if without_secrets(scheduler) != scheduler:  # Dask would print it
        raise RequestError(f"the address of a scheduler is protocol, host and port, such as tcp://127.0.0.1:8786: {scheduler}")
    try:
        return Client(scheduler, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise RequestError(f"no Dask scheduler answers at {scheduler!r}: {error}") from None


def _local_cluster(workers: int, dashboard: bool) -> LocalCluster:
    import dask.config
    from distributed import LocalCluster

    environment = "distributed.nanny.pre-spawn-environ"
    settings = {environment: {**dask.config.get(environment), **_MALLOC}, "distributed.worker.profile.enabled": dashboard}
    with dask.config.set(settings):
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": dashboard},
            memory_limit=0,
        )


def _window(client: Client) -> int:
    """Return how many tasks to keep on the cluster as it is now."""
    return max(_LEAST_WINDOW, _WINDOW * lanes(client))


def run(client: Client | None, function: Callable[..., Any], tasks: Iterable[Task]) -> Iterator[Any]:
    """Run tasks, a bounded number at a time, and yield their results as they come; the first error stops all.

    A result that is a ``CubeError`` is raised. A task that fails otherwise is tried again; if it keeps failing,
    ``StorageError`` says with what.
    """
    given = _here(function, tasks) if client is None else _remote(client, function, tasks)
    with nullcontext() if client is None else _scheduler_answers(), closing(given) as results:
        for result in results:
            if isinstance(result, CubeError):
                raise result
            yield result


@contextmanager
def _scheduler_answers() -> Iterator[None]:
    from distributed.comm import CommClosedError

    try:
        yield
    except CommClosedError as error:
        raise StorageError("the Dask scheduler is gone; start one and run again: what is finished stands") from error


def _here(function: Callable[..., Any], tasks: Iterable[Task]) -> Generator[Any, None, None]:
    for key, arguments in tasks:
        try:
            result = function(*arguments)
        except OSError as error:
            raise StorageError(f"{key} failed: {type(error).__name__}: {error}") from error
        yield result


def _remote(client: Client, function: Callable[..., Any], tasks: Iterable[Task]) -> Generator[Any, None, None]:
    from distributed import as_completed

    waiting, run_id = iter(tasks), uuid4().hex  # another driver's equal task is not ours

    def submit(task: Task) -> Any:
        return client.submit(function, *task[1], key=f"{task[0]}-{run_id}", retries=_RETRIES, pure=False)

    running = as_completed([submit(task) for task in islice(waiting, _window(client))])
    pending = set(running.futures)
    try:
        for future in running:
            pending.discard(future)
            result = _result(future)
            future.release()
            for task in islice(waiting, max(0, _window(client) - len(pending))):
                pending.add(more := submit(task))
                running.add(more)
            yield result
    finally:
        client.cancel(list(pending))


def _result(future: Future) -> Any:
    """Return what a task gave. Where that was lost with its worker, the task runs again and this waits for it."""
    error = future.exception()
    if future.cancelled():
        raise StorageError(f"{future.key} was cancelled: its scheduler is gone or was restarted; run again")
    if isinstance(error, CubeError):
        raise error
    if error is not None:
        raise StorageError(f"{future.key} failed {_RETRIES + 1} times: {type(error).__name__}: {error}") from error
    return future.result()
