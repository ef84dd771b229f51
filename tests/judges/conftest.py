"""What judges share: the demo as the command makes it, a browser, and a plain web server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from making import leave_out
from playwright.sync_api import Browser, sync_playwright

QUIET = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
"""Chromium asks nobody for anything by itself."""


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``cube demo`` makes, by the real command, once. Read only."""
    folder = tmp_path_factory.mktemp("demo")
    got = subprocess.run([sys.executable, "-m", "cube", "demo"], cwd=folder, capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stderr
    return folder / "cube-demo"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium, as Debian packages it."""
    found = shutil.which("chromium")
    if found is None:
        leave_out("judges in a browser: no `chromium` (apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu", *QUIET])
        yield chromium
        chromium.close()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], str]]:
    """Return a function that serves a folder on the loopback interface until the session ends, and gives its URL."""
    with ExitStack() as stack:

        def start(folder: Path) -> str:
            server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
            thread = Thread(target=server.serve_forever)
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start
