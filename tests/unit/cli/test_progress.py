"""What long work tells of itself."""

from __future__ import annotations

import io

import pytest

from cube.cli import progress
from cube.cli.progress import Meter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    meter = Meter(stream)
    meter.start("writing", 12)
    meter.resume(4)
    meter.count(4, 10**6)
    assert stream.getvalue() == ""
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0.0)
    meter.count(2, 10**6, rejected=1)
    meter.count(2, 10**6)
    first, last = stream.getvalue().splitlines()
    assert first.startswith("writing 10 of 12 patches · ")
    assert last.startswith("writing 12 of 12 patches · ")
    assert last.endswith(" left · 1 rejected")


def test_a_terminal_gets_one_line_that_changes_for_each_thing() -> None:
    stream = Terminal()
    meter = Meter(stream)
    for what in ("writing", "verifying"):
        meter.start(what, 2)
        meter.count(1, 10)
        meter.count(1, 10)
    writing, verifying, rest = stream.getvalue().split("\n")
    assert rest == ""
    assert writing.count("\rwriting ") == verifying.count("\rverifying ") == 2
    assert "verifying 2 of 2 patches" in verifying


def test_what_an_earlier_run_did_tells_nothing_of_the_speed() -> None:
    stream = Terminal()
    meter = Meter(stream)
    meter.start("writing", 10**9)
    meter.resume(10**8)
    meter._started -= 10.0
    meter.count(50, 0)
    assert " 5 patches/s" in stream.getvalue()
