"""Options that several commands take, and how they print."""

from __future__ import annotations

import json
from typing import Any

import click
from dask.system import CPU_COUNT

from cube.work.config import read_config

CONFIG = click.option(
    "--config",
    metavar="FILE",
    callback=lambda _context, _option, path: read_config(path),
    help="YAML file that names storage options and a Dask cluster.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
SCHEDULER = click.option("--scheduler", metavar="ADDRESS", help="Use the Dask cluster at this address (tcp://…).")
WORKERS = click.option("--workers", type=click.IntRange(0), default=CPU_COUNT, show_default="cores", help="Local processes.")


def print_value(value: Any, as_json: bool) -> None:
    """Print a text, or a value as one JSON document."""
    click.echo(json.dumps(value, indent=1) if as_json else value)
