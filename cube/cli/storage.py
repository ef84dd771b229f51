"""The commands that move and remove whole cubes: ``copy`` and ``clean``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cube.cli.options import CONFIG, FLUSH, JSON, SCHEDULER, WORKERS, print_value, processes
from cube.cli.progress import Meter, counted, duration, size
from cube.cli.words import report_text
from cube.errors import CorruptError
from cube.format.defects import SOUND

if TYPE_CHECKING:
    from cube.format.target import Target
    from cube.jobs.clean import Leftover
    from cube.jobs.copy import Copied
    from cube.work.settings import Settings


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("to", metavar="DST")
@click.option("--where", default="", metavar="FILTER", help='Only some patches, as a cube of their own: "scene<=40".')
@click.option(
    "--drop-defects", is_flag=True, help="Leave out patches with NaN, with constant or empty images, and known bad ones."
)
@SCHEDULER
@WORKERS
@FLUSH
@CONFIG
@JSON
def copy(  # noqa: PLR0913, PLR0917 (an option each)
    source: str, to: str, where: str, drop_defects: bool, config: Settings, flush: bool, as_json: bool, **machine: Any
) -> None:
    """Copy a cube, or some of its patches, and verify the copy.

    SRC and DST are paths or s3:// URLs ending in .zarr. Tiles stay shared and the root comes last. Killed or interrupted,
    the same command goes on from there.
    """
    from cube.format.target import target_of
    from cube.jobs.copy import copy_cube
    from cube.work.clusters import open_cluster

    if drop_defects:
        where = f"({where}) and {SOUND}" if where else SOUND
    origin, target = (target_of(url, options=config.options(url), flush=flush) for url in (source, to))
    workers = min(processes(machine["workers"]), _batches(origin))
    with open_cluster(scheduler=machine["scheduler"], workers=workers if workers > 1 else 0) as client:
        copied = copy_cube(origin, target, client, where=where, watcher=Meter())
    print_value(copied.document() if as_json else copied_text(copied, where), as_json)
    sys.exit(0 if copied.report.passed else 1)


@click.command()
@click.argument("place", metavar="[WHERE]", required=False, default=".")
@click.option("--yes", is_flag=True, help="Remove what is listed.")
@CONFIG
@JSON
def clean(place: str, yes: bool, config: Settings, as_json: bool) -> None:
    """List builds, growths and copies that were given up, or remove them.

    WHERE is a target ending in .zarr, or the folder or prefix that holds targets; the current folder where it is left out.
    Nothing is removed without --yes, and a finished cube stays what it is.
    """
    from cube.format.target import target_of
    from cube.jobs.clean import find_leftovers, remove_leftovers

    options = config.options(place)
    found = find_leftovers(place, options)
    if yes:
        for leftover in found:
            remove_leftovers(target_of(leftover.url, options=options))
    if as_json:
        print_value({"removed": yes, "found": [leftover.document() for leftover in found]}, as_json)
        return
    last = "" if not found else "Removed." if yes else "Nothing was removed; the same command with --yes does that."
    lines = [leftover_text(leftover) for leftover in found] or [f"{place}: nothing was left unfinished"]
    click.echo("\n".join([*lines, *([last] if last else [])]))


def copied_text(copied: Copied, where: str) -> str:
    """Return in words what a copy did."""
    moved = f"{counted(copied.objects, 'object')}, {size(copied.bytes)}"
    lines = [f"Copied {counted(copied.patches, 'patch')} to {copied.url}: {moved} in {duration(copied.seconds)}"]
    if copied.standing:
        lines.append(f"  {counted(copied.standing, 'object')} stood from an earlier run")
    for name, (used, stored) in copied.tiles.items():
        lines.append(f"  {name:10} {used:,} tiles, {stored:,} stored: each used {used / max(1, stored):.2f} times")
    lines.append(report_text(copied.report))
    if not copied.report.passed:
        return "\n".join([*lines, "The root was not written: `cube verify` tells whether the source itself is sound."])
    missing = "the recipe of the source is not known any more" if where else "the source has none"
    return "\n".join([*lines, f"Catalog: {copied.catalog or f'none, {missing}'}"])


def leftover_text(leftover: Leftover) -> str:
    """Return in words what was left at one target."""
    batches = f"{leftover.done:,} of {leftover.batches:,} batches" if leftover.batches else ""
    parts = {
        "build": f"unfinished build{f' of {leftover.title}' if leftover.title else ''}",
        "copy": "unfinished copy",
        "growth": "finished cube, and an unfinished growth",
        "cube": "finished cube, which stays; left beside it",
    }
    facts = [parts[leftover.kind], batches, f"{counted(leftover.objects, 'object')} with {size(leftover.bytes)}"]
    facts.append(f"{counted(leftover.uploads, 'unfinished upload')}" if leftover.uploads else "")
    facts.append(f"last written {duration(leftover.age)} ago" if leftover.age is not None else "")
    facts.append("may still be running" if leftover.running else "")
    return f"{leftover.url}: {', '.join(fact for fact in facts if fact)}"


def _batches(source: Target) -> int:
    """Return how many batches a cube has; one where its root is damaged, which is told in time."""
    from cube.format.root import batch_count, read_root

    try:
        _, document = read_root(source)
    except CorruptError:
        return 1
    return batch_count(document)
