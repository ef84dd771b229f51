"""A far store: a folder's files as objects of S3, read only; answers come late, and all of them share one line.

It speaks as much of S3 as reading a cube takes (GET with a range, HEAD), and costs so little that the reader is what is
measured. ``python line.py FOLDER SECONDS BYTES`` prints its port and serves on the loopback interface until its input ends; a
line of input is answered by the requests and bytes so far.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PIECE = 1 << 18
_RANGE = re.compile(rb"\r\nrange: bytes=(\d*)-(\d*)", re.IGNORECASE)


@dataclass
class Served:
    """The files, the line, and what went over it."""

    folder: Path
    late: float
    """Seconds until an answer begins."""
    rate: float
    """Bytes a second, of all answers together."""
    free: float = 0.0
    requests: int = 0
    sent: int = 0

    async def turn(self, size: int) -> None:
        """Wait until so many bytes more have room on the line."""
        now = asyncio.get_running_loop().time()
        self.free = max(self.free, now) + size / self.rate
        self.sent += size
        if self.free - now > 0.002:
            await asyncio.sleep(self.free - now)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                await self.answer(asked, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    async def answer(self, asked: bytes, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        method, path, *_ = asked.split(b" ", 2)
        self.requests += 1
        await asyncio.sleep(self.late)
        name = path.decode().partition("?")[0].split("/", 2)[-1]
        try:
            with open(self.folder / name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                start, stop, status = 0, size, "200 OK"
                if wanted := _RANGE.search(asked):
                    first, last = wanted.groups()
                    start = int(first) if first else max(0, size - int(last))
                    stop = min(size, int(last) + 1) if first and last else size
                    status = f"206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{size}"
                head = f'HTTP/1.1 {status}\r\nContent-Length: {stop - start}\r\nETag: "{size}"\r\nAccept-Ranges: bytes\r\n'
                writer.write((head + "Last-Modified: Mon, 05 Jan 2026 00:00:00 GMT\r\n\r\n").encode())
                while start < stop and method == b"GET":
                    piece = min(_PIECE, stop - start)
                    await self.turn(piece)
                    await writer.drain()
                    await asyncio.get_running_loop().sendfile(writer.transport, file, start, piece)
                    start += piece
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            body = b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>'
            writer.write(
                b"HTTP/1.1 404 Not Found\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            await writer.drain()


async def _run(served: Served) -> None:
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps({"requests": served.requests, "bytes": served.sent}), flush=True)
        served.requests = served.sent = 0


@dataclass
class Line:
    """The way to the store."""

    url: str
    process: subprocess.Popen[str]

    def seen(self) -> dict[str, int]:
        """Return the requests and bytes since the last time."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, int] = json.loads(self.process.stdout.readline())
        return found


@contextmanager
def far_store(folder: Path, late: float, rate: float) -> Iterator[Line]:
    """Serve a folder as bucket ``far`` at the end of a line, in a process of its own."""
    command = [sys.executable, __file__, str(folder), str(late), str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield Line(f"http://127.0.0.1:{int(process.stdout.readline())}", process)
        finally:
            process.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("late", type=float)
    parser.add_argument("rate", type=float)
    given = parser.parse_args()
    asyncio.run(_run(Served(given.folder, given.late, given.rate)))
