"""A proxy that answers as late as a far server does, and counts requests and bytes. Loopback only."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Line:
    """One proxy."""

    url: str = ""
    requests: int = 0
    bytes: int = 0
    """Bytes sent to clients."""
    methods: Counter[str] = field(default_factory=Counter)
    """Requests by HTTP method."""


@contextmanager
def far_away(port: int, seconds: float) -> Iterator[Line]:
    """Put a server on a port of this machine behind a line that delays every request by some seconds."""
    line, loop = Line(), asyncio.new_event_loop()
    ready = threading.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asks: bool) -> None:
        try:
            while data := await reader.read(1 << 18):
                if asks and data.startswith((b"GET ", b"HEAD ", b"PUT ", b"POST ")):
                    line.requests += 1
                    line.methods[data[: data.index(b" ")].decode()] += 1
                    await asyncio.sleep(seconds)
                elif not asks:
                    line.bytes += len(data)
                writer.write(data)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back, True), pump(there, writer, False))

    async def start() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        line.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()

    thread = threading.Thread(target=lambda: (loop.create_task(start()), loop.run_forever()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield line
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
