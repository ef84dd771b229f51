"""A server that answers as late as a far one does, with its requests and bytes counted. Loopback only."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from faults import Proxy, fault_proxy


@dataclass
class Line:
    """The way to the server."""

    proxy: Proxy

    @property
    def url(self) -> str:
        return self.proxy.url

    @property
    def requests(self) -> int:
        return len(self.proxy.log)

    @property
    def bytes(self) -> int:
        """Bytes sent to clients, without their headers."""
        return sum(item.sent for item in self.proxy.log)

    @property
    def methods(self) -> Counter[str]:
        """Requests by HTTP method."""
        return Counter(item.method for item in self.proxy.log)


@contextmanager
def far_away(port: int, seconds: float) -> Iterator[Line]:
    """Put a server on a port of this machine behind a line that delays every request by some seconds."""
    with fault_proxy(port) as proxy:
        if seconds:
            proxy.inject("latency", times=None, seconds=seconds)
        yield Line(proxy)
