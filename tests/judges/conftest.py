"""What judges share: a browser, and plain web servers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from making import leave_out
from playwright.sync_api import Browser, sync_playwright
from web import Ranged, serving

QUIET = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
"""Chromium asks nobody for anything by itself."""


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


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], str]]:
    """Return a function that serves a folder on the loopback interface until the session ends, and gives its URL."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(serving(folder, Ranged))
