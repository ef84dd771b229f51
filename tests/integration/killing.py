"""Consumers in processes of their own (``consumer.py``), killed at random moments and started again until they are done."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from consumer import whole_lines

SCRIPT = str(Path(__file__).with_name("consumer.py"))
_SECONDS = 200
"""After so long a consumer that does nothing has failed."""


class Running(NamedTuple):
    """A consumer that was started; its process id is that of its group."""

    pid: int
    wait: Callable[[], int]
    """Returns the exit code."""


Starter = Callable[[dict[str, Any]], Running]


def fresh(wish: dict[str, Any]) -> Running:
    """Start an interpreter of its own."""
    with open(wish["log"], "ab") as log:
        command = [sys.executable, SCRIPT, json.dumps(wish)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    return Running(process.pid, process.wait)


@contextmanager
def forking() -> Iterator[Starter]:
    """Give a starter that forks each consumer off one process."""
    command = [sys.executable, SCRIPT, "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        told, answers = server.stdin, server.stdout

        def start(wish: dict[str, Any]) -> Running:
            print(json.dumps(wish), file=told, flush=True)
            return Running(int(answers.readline()), lambda: int(answers.readline()))

        try:
            yield start
        finally:
            told.close()


@dataclass
class Seen:
    """What one rank consumed."""

    batches: list[tuple[int, tuple[str, ...], int]] = field(default_factory=list)
    """Epoch, ids and check sum of the pixels of every batch, in order."""
    kills: list[int] = field(default_factory=list)
    """Batches that were recorded when each kill fired."""

    def ids(self, epoch: int) -> list[str]:
        return [name for at, names, _ in self.batches if at == epoch for name in names]


def consumed(start: Starter, wish: dict[str, Any], rng: random.Random, kills: int = 0, stride: int = 0) -> Seen:
    """Run a consumer to its end; until then kill it, with its workers, so many times.

    A kill comes at any time from the start of a process to some moments after it has recorded ``stride`` batches more.
    """
    record, seen = Path(wish["record"]), Seen()
    record.touch()
    while True:
        already = len(whole_lines(record))
        dying = len(seen.kills) < kills
        running = start(wish if dying else {**wish, "pause": 0})
        try:
            if dying:
                _wait_for(record, already + rng.randint(0, stride), running.pid)
                time.sleep(rng.uniform(0, 2 * wish["pause"]))
                _kill(running.pid)
            code = running.wait()
            _wait_gone(running.pid)
        finally:
            _kill(running.pid)
        if code == 0:
            break
        assert code == -signal.SIGKILL, Path(wish["log"]).read_text()
        seen.kills.append(len(whole_lines(record)))
    seen.batches = [(_epoch(line), tuple(line["ids"]), line["crc"]) for line in whole_lines(record)]
    return seen


def _epoch(line: dict[str, Any]) -> int:
    """Return the epoch of a batch; with the last one begins the next."""
    return int(line["state"]["epoch"]) - (line["state"]["batch"] == 0)


def _wait_for(record: Path, lines: int, pid: int) -> None:
    until = time.monotonic() + _SECONDS
    while record.read_bytes().count(b"\n") < lines and psutil.pid_exists(pid) and not _ended(pid):
        assert time.monotonic() < until, f"{record}: nothing is consumed"
        time.sleep(0.002)


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended: the exit code tells


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait_gone(group: int) -> None:
    """Wait until no process of a group is left: its workers have ended too."""
    until = time.monotonic() + 10
    while left := [process.pid for process in psutil.process_iter() if _belongs(process.pid, group)]:
        assert time.monotonic() < until, f"{left} live on"
        time.sleep(0.01)


def _belongs(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group and not _ended(pid)
    except ProcessLookupError:
        return False
