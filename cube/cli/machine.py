"""Where the work of a command runs, and how much of it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from distributed import Client

    from cube.work.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a build runs, how it reaches its stores, and how much it measures beforehand."""

    scheduler: str | None
    workers: int | None
    sample: int
    replace: bool = False
    flush: bool = True
    max_rejected: tuple[float, int] | None = None
    """Share and number of bad files that are borne with; the default where None."""
    config: Settings
    dashboard: bool = False
    performance_report: str | None = None

    @property
    def watched(self) -> bool:
        """Tell whether the Dask cluster is to be seen at work."""
        return self.dashboard or self.performance_report is not None


@contextmanager
def watched_cluster(machine: Machine, workers: int) -> Iterator[Client | None]:
    """Give a client of the cluster a command asks for, or None, and show of its work what was asked for."""
    from cube.work.clusters import open_cluster
    from cube.work.dashboard import observed

    profile = machine.config.cluster
    with (
        open_cluster(scheduler=machine.scheduler, workers=workers, profile=profile, dashboard=machine.watched) as client,
        observed(client, link=machine.dashboard, report=machine.performance_report, say=tell),
    ):
        yield client


def tell(line: str) -> None:
    """Print a line on stderr, where everything goes that is no result."""
    click.echo(line, err=True)
