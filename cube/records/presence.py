"""Signs of life: a build that runs writes a small object beside its cube again and again, and takes it away at its end.

Whether another one lives is seen by watching that object change, so no two clocks are compared. A process of this machine
that is gone needs no watching.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from uuid import uuid4

import psutil

from cube.format.documents import parse_object
from cube.format.target import UNFINISHED, Target
from cube.store.protocol import Readable, Store
from cube.store.urls import is_local

RUNNING = "running"
BEAT_SECONDS = 5.0
"""Between two signs of life."""
PATIENCE_SECONDS = 30.0
"""A sign that has not changed for so long is of a build that was killed."""
_LOOK_SECONDS = 0.5


@contextmanager
def present(target: Target, plan: str = "") -> Iterator[None]:
    """Give signs of life until the block ends; they name the plan that is worked on.

    Raises ``TargetError`` if the first cannot be written. Later ones may fail: what else is written then says so.
    """
    build = target.beside
    key, ended = f"{RUNNING}/{uuid4().hex}.json", Event()
    with target.writable():
        build.write(key, _sign(0, plan))
        _forget(build, [key for key, data in _signs(build) if _is_gone(data)])
    beating = Thread(target=_beat, args=(build, key, plan, ended), name="cube-presence", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        with suppress(OSError):  # a sign that stays is taken for that of a killed build
            build.remove(key)


def _beat(build: Store, key: str, plan: str, ended: Event) -> None:
    number = 0
    while not ended.wait(BEAT_SECONDS):
        number += 1
        with suppress(OSError):
            build.write(key, _sign(number, plan))


def _signs(build: Readable) -> Iterator[tuple[str, bytes]]:
    keys = [entry.key for entry in build.list(RUNNING) if entry.key.endswith(".json")]
    read = zip(keys, build.read_many(keys), strict=True)
    return ((key, data) for key, data in read if isinstance(data, bytes))


def other_signs(build: Readable) -> dict[str, bytes]:
    """Return the signs of builds that may be running in other processes; those of this machine that are gone are left out."""
    return {key: data for key, data in _signs(build) if not (_is_own(data) or _is_gone(data))}


def living_build(build: Store, plan: str | None = None) -> str:
    """Return which other build is running, of a plan if one is named, as ``HOST:PROCESS``; an empty text where none is.

    May wait to see.
    """
    watched, until = _signs_of(build, plan), time.monotonic() + PATIENCE_SECONDS
    while watched and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        now = _signs_of(build, plan)
        for key, data in now.items():
            if watched.get(key) != data:
                return _who(data)
        watched = now
    _forget(build, watched)
    return ""


def _signs_of(build: Store, plan: str | None) -> dict[str, bytes]:
    """Return the signs of other processes that work on a plan, or on any; earlier versions named none."""
    signs = other_signs(build)
    return {key: data for key, data in signs.items() if plan is None or parse_object(data).get("plan", plan) == plan}


def _forget(build: Store, keys: Iterable[str]) -> None:
    for key in keys:
        with suppress(FileNotFoundError):
            build.remove(key)


def clear_unfinished(target: Target) -> None:
    """Remove what killed runs were writing when they died, unless another build may be writing; local targets only.

    An object store keeps no such thing. What appears after the listing is of a run whose sign is seen, or is left alone.
    """
    if is_local(target.url):
        left = list(target.build.list(UNFINISHED))
        if left and not other_signs(target.build):
            for entry in left:
                with suppress(FileNotFoundError):
                    target.build.remove(entry.key)


def _sign(number: int, plan: str) -> bytes:
    return json.dumps({**_self(), "beat": number, "plan": plan}).encode()


def _self() -> dict[str, str | int]:
    """Return what tells this process from all others: numbers are reused in containers that share a name."""
    namespace = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
    return {"host": socket.gethostname(), "namespace": namespace, "process": os.getpid()}


def _is_own(data: bytes) -> bool:
    return _process(data) == os.getpid()


def _is_gone(data: bytes) -> bool:
    """Tell whether a sign is of a process of this machine that has ended, or of none: one of a living build is always whole."""
    try:
        parse_object(data)
    except ValueError:
        return True
    process = _process(data)
    return process is not None and not psutil.pid_exists(process)


def _process(data: bytes) -> int | None:
    """Return the number of the process that a sign is of; None if it is one of another machine, or damaged."""
    try:
        sign, here = parse_object(data), _self()
        near = (sign["host"], sign["namespace"]) == (here["host"], here["namespace"])
        return int(sign["process"]) if near else None
    except (ValueError, LookupError, TypeError):
        return None


def _who(data: bytes) -> str:
    try:
        sign = parse_object(data)
        return f"{sign['host']}:{sign['process']}"
    except (ValueError, LookupError, TypeError):
        return "unknown"
