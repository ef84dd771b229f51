"""A proxy in front of an HTTP server of this machine that fails as networks and object stores do, and keeps a log of requests.

It passes the Host header on, so that signed S3 requests stay valid. Loopback only.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

ANSWERS = {
    "slowdown": (503, "SlowDown", "Please reduce your request rate."),
    "error500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "no_bucket": (404, "NoSuchBucket", "The specified bucket does not exist"),
}
"""Faults that are answers; the server never hears of the request."""
BEFORE = ("reset", "stall", "corrupt_upload")
"""Reset; no answer for some seconds, then reset; the server is given another byte than was sent."""
AFTER = ("reset_after", "truncate", "truncate_fin", "stall_body", "corrupt", "corrupt_unnoticed")
"""The server has done what was asked: no answer (a lost acknowledgement); half a body, then a reset; half a body that claims to
be whole; half a body, then nothing; a flipped bit; a flipped bit, and no checksum of the server beside it."""
KINDS = (*ANSWERS, *BEFORE, *AFTER, "latency")
_BUFFER = 1 << 20


@dataclass
class Rule:
    """What is to go wrong, with which requests, how often."""

    kind: str
    method: str = ""
    """Regular expression of the methods; all where empty."""
    path: str = ""
    """Regular expression found in path and query."""
    times: int | None = 1
    """How often; None for always."""
    skip: int = 0
    """Matching requests that are let through before."""
    chance: float = 1.0
    """Probability that a matching request fails."""
    seconds: float = 1.0
    """How long a stall or the latency is."""
    at: float = 0.5
    """Where in the body the flipped bit is, from 0 to 1."""
    fired: int = 0

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind

    def takes(self, method: str, path: str, rng: random.Random) -> bool:
        """Tell whether this request is to fail, and count it."""
        if not (re.fullmatch(self.method or ".*", method) and re.search(self.path, path)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if (self.times is not None and self.fired >= self.times) or rng.random() >= self.chance:
            return False
        self.fired += 1
        return True


@dataclass
class Request:
    """One request as the proxy saw it."""

    method: str
    path: str
    query: str
    range: str
    status: int = 0
    """0 where the client was given no answer."""
    received: int = 0
    """Bytes of the request's body."""
    sent: int = 0
    """Bytes of the answer's body."""
    fault: str = ""


@dataclass
class Message:
    """A request or an answer, whole."""

    first: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def without(self, pattern: str) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self.headers if not re.fullmatch(pattern, key.lower())]

    def encoded(self) -> bytes:
        lines = [self.first, *(f"{key}: {value}" for key, value in self.headers)]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body


@dataclass
class Proxy:
    """A running proxy. Rules are tried in order; the first that takes a request decides."""

    port: int
    """The server's."""
    seed: int = 0
    url: str = ""
    rules: list[Rule] = field(default_factory=list)
    log: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def inject(self, kind: str, **how: object) -> Rule:
        """Add a rule and return it; its ``fired`` counts."""
        rule = Rule(kind, **how)  # type: ignore[arg-type]
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forget rules and log."""
        self.rules.clear()
        self.log.clear()

    def count(self, method: str, path: str = "") -> int:
        """Return how many requests of a method had such a path or query."""
        return sum(item.method == method and bool(re.search(path, f"{item.path}?{item.query}")) for item in self.log)

    def counts(self) -> Counter[tuple[str, str]]:
        """Return the requests by method and path."""
        return Counter((item.method, item.path) for item in self.log)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one client's requests on, one after another."""
        server: _Server | None = None
        try:
            server = _Server(self.port)
            while await self._one(reader, writer, server):
                pass
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the client has gone, or the proxy ends
        finally:
            writer.close()
            if server is not None:
                server.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: _Server) -> bool:
        request = await _read_head(reader)
        if "100-continue" in request.header("expect").lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.headers = request.without("expect")
        request.body = await _read_body(reader, request)
        method, target, _ = request.first.split(" ", 2)
        path, _, query = target.partition("?")
        entry = Request(method, path, query, request.header("range"), received=len(request.body))
        self.log.append(entry)
        rule = next((rule for rule in list(self.rules) if rule.takes(method, target, self._rng)), None)
        if rule is not None:
            entry.fault = rule.kind
        if rule is not None and not await _before(rule, request, entry, writer):
            return False
        answer = await server.ask(request, method)
        return await _give(rule, answer, entry, writer, bodiless=method == "HEAD")


class _Server:
    """A connection to the server, opened when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Message, method: str) -> Message:
        try:
            return await self._ask(request, method)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()  # it had been open for long
            return await self._ask(request, method)

    async def _ask(self, request: Message, method: str) -> Message:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=_BUFFER)
        reader, writer = self._streams
        writer.write(request.encoded())
        await writer.drain()
        answer = await _read_head(reader)
        while answer.first.split(" ")[1] == "100":
            answer = await _read_head(reader)
        if method != "HEAD" and answer.first.split(" ")[1] not in ("204", "304"):
            answer.body = await _read_body(reader, answer)
        if answer.header("connection").lower() == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read_head(reader: asyncio.StreamReader) -> Message:
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in head[1:])
    return Message(head[0], [(key, value.strip()) for key, value in pairs])


async def _read_body(reader: asyncio.StreamReader, message: Message) -> bytes:
    """Return a body as it is on the wire; one in chunks keeps its framing."""
    if "chunked" not in message.header("transfer-encoding").lower():
        return await reader.readexactly(int(message.header("content-length") or 0))
    parts = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        parts += [line, await reader.readexactly(size + 2)]
        if size == 0:
            return b"".join(parts)


async def _before(rule: Rule, request: Message, entry: Request, writer: asyncio.StreamWriter) -> bool:
    """Do what goes wrong before the server hears of a request; return whether it is to hear of it."""
    if rule.kind in ANSWERS:
        status, code, text = ANSWERS[rule.kind]
        body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{text}</Message></Error>'.encode()
        entry.status = status
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body))), ("Connection", "close")]
        answer = Message(f"HTTP/1.1 {status} {code}", headers, b"" if entry.method == "HEAD" else body)
        writer.write(answer.encoded())
        await writer.drain()
        return False
    if rule.kind in ("latency", "stall"):
        await asyncio.sleep(rule.seconds)
    if rule.kind in ("reset", "stall"):
        _reset(writer)
        return False
    if rule.kind == "corrupt_upload":
        request.body = _flipped(request.body, rule.at)
    return True


async def _give(rule: Rule | None, answer: Message, entry: Request, writer: asyncio.StreamWriter, *, bodiless: bool) -> bool:
    """Give the client its answer, or what a fault leaves of it; return whether the connection goes on."""
    kind, half = rule.kind if rule is not None else "", len(answer.body) // 2
    if kind == "reset_after":
        _reset(writer)
        return False
    entry.status = int(answer.first.split(" ")[1])
    if kind in ("corrupt", "corrupt_unnoticed"):
        answer.body = _flipped(answer.body, rule.at if rule else 0)
    if kind in ("corrupt_unnoticed", "truncate_fin"):
        answer.headers = answer.without("x-amz-checksum.*")
    if kind in ("truncate", "truncate_fin", "stall_body"):
        answer.body = answer.body[:half]
    if kind == "truncate_fin" and not bodiless:
        answer.headers = [*answer.without("content-length"), ("Content-Length", str(half))]
    entry.sent = len(answer.body)
    writer.write(answer.encoded())
    await writer.drain()
    if kind == "stall_body" and rule is not None:
        await asyncio.sleep(rule.seconds)
    if kind in ("truncate", "stall_body"):
        await asyncio.sleep(0.02)  # let what was sent arrive
        _reset(writer)
        return False
    return answer.header("connection").lower() != "close"


def _flipped(body: bytes, at: float) -> bytes:
    if not body:
        return body
    place = min(int(len(body) * at), len(body) - 1)
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    plug = writer.get_extra_info("socket")
    if plug is not None:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def fault_proxy(port: int, *, seed: int = 0) -> Iterator[Proxy]:
    """Run a proxy in front of a port of this machine until the block ends."""
    proxy, loop, ready = Proxy(port, seed), asyncio.new_event_loop(), threading.Event()
    tasks: list[asyncio.Task[None]] = []  # a loop holds its tasks weakly

    async def start() -> None:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=_BUFFER)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()

    async def stop() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def run() -> None:
        tasks.append(loop.create_task(start()))
        loop.run_forever()
        loop.close()

    thread = threading.Thread(target=run, name="fault-proxy", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
