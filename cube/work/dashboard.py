"""Watching a Dask cluster at work: the link to its dashboard, and its performance report in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from cube.errors import RequestError

if TYPE_CHECKING:
    from distributed import Client

_BOKEH = "bokeh"


@contextmanager
def observed(client: Client | None, *, link: bool, report: str | None, say: Callable[[str], None]) -> Iterator[None]:
    """Say where the dashboard is, and write the performance report (HTML) when the block ends.

    Raises ``RequestError`` before the work begins if there is no cluster, no Bokeh at its scheduler, or no folder to write to.
    """
    if not link and report is None:
        yield
        return
    if client is None:
        raise RequestError("--dashboard and --performance-report show a Dask cluster: give --workers 1 or more")
    _require_bokeh(client)
    if link:
        say(f"Dashboard: {_link(client)}")
    if report is not None and not Path(report).absolute().parent.is_dir():
        raise RequestError(f"--performance-report {report}: no such folder")
    from distributed import performance_report

    with performance_report(report, mode="inline") if report is not None else nullcontext():
        yield


def _require_bokeh(client: Client) -> None:
    try:
        client.run_on_scheduler(version, _BOKEH)
    except PackageNotFoundError:
        raise RequestError(
            "--dashboard and --performance-report need Bokeh where the scheduler runs: "
            '`pip install "patchcube[dashboard]"` there, then run again'
        ) from None


def _link(client: Client) -> str:
    try:
        address = client.dashboard_link
    except KeyError:
        address = None
    if not address:
        raise RequestError("--dashboard: this scheduler serves none; start it with a dashboard address")
    return str(address)
