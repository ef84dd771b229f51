"""The command ``verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cube.cli.machine import Machine, watched_cluster
from cube.cli.options import CONFIG, DASHBOARD, JSON, PERFORMANCE, SCHEDULER, WORKERS, print_value, processes
from cube.cli.progress import Meter
from cube.cli.words import report_text
from cube.errors import CorruptError, RequestError

if TYPE_CHECKING:
    from cube.format.target import Target

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("target", metavar="T")
@click.option("--where", default="", metavar="FILTER", help='Compare only some patches with files, such as "scene<=40".')
@click.option("--source", metavar="S", help="Compare with the source files too.")
@click.option("--expect", metavar="DIGEST", help="The digest that was noted of this cube: any other cube fails.")
@click.option("--catalog", is_flag=True, help="Check the STAC catalog too: links, core schema, agreement with the cube.")
@click.option("--schemas", type=_FOLDER, metavar="DIR", help="Check extensions by these schemas, laid out as host/path.")
@SCHEDULER
@CONFIG
@WORKERS
@DASHBOARD
@PERFORMANCE
@JSON
def verify(target: str, source: str | None, as_json: bool, **options: Any) -> None:
    """Check every object and every pixel of a cube.

    From the store alone, or against its source files too. Nothing is fetched from the web.
    """
    from cube.catalog.check import check_catalog, recipe_of
    from cube.format.target import target_of
    from cube.survey.surveyor import Surveyor
    from cube.verify.verification import verify_cube

    schemas, catalog, expect, chosen = (options.pop(name) for name in ("schemas", "catalog", "expect", "where"))
    if schemas is not None and not catalog:
        raise RequestError("--schemas goes with --catalog")
    if chosen and source is None:
        raise RequestError("--where goes with --source: it chooses the patches that are compared with files")
    machine = Machine(**options, sample=0)
    where = target_of(target, options=machine.config.options(target))
    recipe = recipe_of(where) if catalog else None
    surveyor = Surveyor(recipe) if recipe else None
    with watched_cluster(machine, _verify_workers(where, machine)) as client:
        reached = machine.config.options(source or "")
        report = verify_cube(
            where,
            client,
            source=source,
            source_options=reached,
            where=chosen,
            watcher=Meter(),
            surveyor=surveyor,
            expect=expect,
        )
    if recipe and surveyor:
        report = check_catalog(where, recipe, report, surveyor.survey() if report.passed else None, schemas)
    print_value(report.document() if as_json else report_text(report), as_json)
    sys.exit(0 if report.passed else 1)


def _verify_workers(target: Target, machine: Machine) -> int:
    """One batch needs no cluster unless one is to be seen, a damaged root none either; no more workers than batches."""
    from cube.format.root import batch_count, read_root

    try:
        _, document = read_root(target)
    except CorruptError:
        return 0
    batches = batch_count(document)
    return 0 if batches == 1 and not machine.watched else min(processes(machine.workers), batches)
