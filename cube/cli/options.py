"""Options that several commands take, and how they print."""

from __future__ import annotations

import json
from typing import Any

import click

from cube.work.settings import Defaults, Settings


def _config(_context: click.Context, _option: click.Parameter, path: str | None) -> Settings:
    if path is None:
        return Defaults()
    from cube.work.config import read_config

    return read_config(path)


def processes(asked: int | None) -> int:
    """Return how many local processes to use: as many as asked for, or one for each core as Dask counts them."""
    if asked is not None:
        return asked
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)


CONFIG = click.option(
    "--config",
    metavar="FILE",
    callback=_config,
    help="YAML file that names storage options and a Dask cluster.",
)
FLUSH = click.option(
    "--flush/--no-flush",
    default=True,
    help="Whether to wait for the disk, so that a loss of power takes nothing away.  [default: wait]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
DASHBOARD = click.option("--dashboard", is_flag=True, help="Print the link to Dask's dashboard.")
PERFORMANCE = click.option(
    "--performance-report", type=click.Path(dir_okay=False), metavar="FILE", help="Keep Dask's performance report (HTML)."
)
SCHEDULER = click.option("--scheduler", metavar="ADDRESS", help="Use the Dask cluster at this address (tcp://…).")
WORKERS = click.option("--workers", type=click.IntRange(0), show_default="cores", help="Local processes.")


def print_value(value: Any, as_json: bool) -> None:
    """Print a text, or a value as one JSON document."""
    click.echo(json.dumps(value, indent=1) if as_json else value)


def rejected_limit(context: click.Context, parameter: click.Parameter, text: str) -> tuple[float, int]:
    """Return the share and the number of bad files that a text such as ``1%`` or ``500`` allows."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= (100 if text.endswith("%") else 1e9):
        raise click.BadParameter(f"{text!r} is neither a share such as 1% nor a number such as 500")
    return (value / 100, 20) if text.endswith("%") else (0.0, int(value))
