"""A training process that tests kill: consumes epochs, and records every batch before it asks for the next one.

Given a wish (JSON) as its argument, it runs once. Given ``serve``, it reads wishes from standard input and forks a process for
each, in a session of its own, so that PyTorch is imported once; it answers with the process id, then with the exit code.

A batch counts as consumed when its line stands in the record. After a kill the record ends with a whole line, or with part
of one, which is cut off; the state in the last whole line is where the next process goes on.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from cube import Batches, Samples


def consume(wish: dict[str, Any]) -> None:
    """Go on where the record ends; return when all epochs are recorded."""
    record = Path(wish["record"])
    lines = whole_lines(record)
    consumer = _consumer(wish)
    if lines:
        consumer.go_on(lines[-1]["state"])
    with record.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        while consumer.state()["epoch"] < wish["epochs"]:
            for batch in consumer.batches:
                line = {"ids": list(map(str, batch["patch"])), "crc": _crc(batch["lc"]), "state": consumer.state()}
                file.write(json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
                time.sleep(wish["pause"])


def whole_lines(record: Path) -> list[dict[str, Any]]:
    """Return what was recorded; a line that was not finished is removed."""
    with record.open("a+b") as file:
        file.seek(0)
        whole, _, part = file.read().rpartition(b"\n")
        file.truncate(file.tell() - len(part))
    return [json.loads(line) for line in whole.splitlines()]


class _Plain:
    def __init__(self, samples: Samples, options: dict[str, Any]) -> None:
        self.batches = Batches(samples, **options)
        self.state, self.go_on = self.batches.state, self.batches.resume


class _Loader:
    def __init__(self, samples: Samples, options: dict[str, Any]) -> None:
        from cube.train.torch import BatchLoader

        self.batches = BatchLoader(samples, **options)
        self.state, self.go_on = self.batches.state_dict, self.batches.load_state_dict


def _consumer(wish: dict[str, Any]) -> _Plain | _Loader:
    samples = Samples(wish["url"], modalities=["s2", "lc"])
    samples.read([0])  # it has decoded before it starts workers
    options = {"batch_size": wish["batch_size"], "seed": wish["seed"], "stream": tuple(wish["stream"])}
    if wish["workers"] is None:
        return _Plain(samples, options)
    return _Loader(samples, {**options, "workers": wish["workers"], "context": wish["context"]})


def _crc(values: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(values).tobytes())


def serve() -> None:
    """Fork a process for each wish."""
    if importlib.util.find_spec("torch") is not None:
        importlib.import_module("cube.train.torch")  # once, for all
    for line in sys.stdin:
        wish = json.loads(line)
        child = os.fork()
        if not child:
            os.setsid()
            log = os.open(wish["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = 1
            try:
                consume(wish)
                code = 0
            finally:
                os._exit(code)  # PyTorch takes a second to leave
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else consume(json.loads(sys.argv[1]))
