"""The commands that lead to a cube: ``plan`` and ``build``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import click

from cube.cli.machine import Machine, tell, watched_cluster
from cube.cli.options import (
    CONFIG,
    DASHBOARD,
    FLUSH,
    JSON,
    PERFORMANCE,
    SCHEDULER,
    WORKERS,
    print_value,
    processes,
    rejected_limit,
)
from cube.cli.progress import Meter, counted
from cube.cli.words import built_text, estimate_document, plan_text
from cube.jobs import SAMPLE

if TYPE_CHECKING:
    from distributed import Client

    from cube.jobs.build import Built
    from cube.jobs.planning import Chosen
    from cube.recipes.recipe import Recipe
    from cube.work.settings import Settings

_SOURCE = click.option("--source", required=True, metavar="S", help="Folder or s3:// prefix of the patch files.")
_WITH_REJECTIONS = 3
"""Exit code of a sound cube without some of the files."""
_SUMS = click.option("--sums", metavar="FILE", help="Hold the files or archives against these checksums first.")
_PROFILE = click.option("--profile", metavar="NAME", help="Codec profile of the recipe, such as fast.")


def _chosen(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose patches."""
    for option in (
        click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N patches."),
        click.option("--modalities", metavar="NAMES", help='Only some kinds of image, such as "s1,lc".'),
        click.option("--where", default="", metavar="FILTER", help='Only some patches, such as "scene<=40".'),
        click.option(
            "--incomplete",
            type=click.Choice(["fail", "reject", "keep"]),
            help="Patches that lack a file: stop, leave them out, or keep them with the gap marked.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("recipe", required=False)
@_SOURCE
@_chosen
@_PROFILE
@_SUMS
@click.option("--sample", type=click.IntRange(0), default=0, metavar="N", help="Read N patches and measure on them.")
@WORKERS
@CONFIG
@JSON
def plan(recipe: str | None, source: str, profile: str | None, as_json: bool, **options: Any) -> None:
    """Say what a build would do and take.

    Writes nothing; with --sample, it measures on so many of the files.
    """
    _require_sums(source, options.pop("sums"), options["config"])
    chosen = _recipe(recipe or _recognised(source, options["config"]), profile, options.pop("modalities"))
    from cube.jobs.build import estimate_build
    from cube.jobs.planning import Chosen, plan_build

    sample, workers, config = (options.pop(name) for name in ("sample", "workers", "config"))
    planned = plan_build(chosen, source, Chosen(**options), config.options(source), say=tell)
    expected = estimate_build(planned, None, sample=sample, workers=processes(workers))
    print_value(estimate_document(planned, expected) if as_json else plan_text(planned, expected), as_json)


@click.command(name="build")
@click.argument("recipe", required=False)
@_SOURCE
@click.option("--to", required=True, metavar="T", help="Path or s3:// URL of the cube, ending in .zarr.")
@_chosen
@_PROFILE
@_SUMS
@SCHEDULER
@CONFIG
@WORKERS
@DASHBOARD
@PERFORMANCE
@click.option("--sample", type=click.IntRange(0), default=SAMPLE, show_default=True, help="Patches to predict from.")
@click.option(
    "--max-rejected",
    default="1%",
    show_default=True,
    metavar="N|P%",
    callback=rejected_limit,
    help="Stop where more files are bad than this share of those read (20 are always borne with), or this number.",
)
@FLUSH
@click.option("--grow", is_flag=True, help="Add the patches that the cube lacks to it; begin it where there is none.")
@click.option("--replace-patches", is_flag=True, help="Grow, and take patches whose pixels have changed in place of the old.")
@click.option("--replace", is_flag=True, help="Throw away what an unfinished build with other options has written.")
@JSON
def build_command(recipe: str | None, source: str, to: str, profile: str | None, as_json: bool, **options: Any) -> None:
    """Convert, verify and catalog patch files.

    Killed or interrupted, the same command goes on from there.
    """
    _require_sums(source, options.pop("sums"), options["config"])
    chosen = _recipe(recipe or _recognised(source, options["config"], to), profile, options.pop("modalities"))
    from cube.jobs.planning import Chosen

    machine = Machine(**{item.name: options.pop(item.name) for item in fields(Machine)})
    options["grow"] |= options["replace_patches"]
    built = run_build(chosen, source, to, Chosen(**options), machine, quiet=as_json)
    print_value(built.document() if as_json else built_text(built, to), as_json)
    sys.exit(_built_code(built))


def _built_code(built: Built) -> int:
    """Return the exit code of a build: files that were left out have one of their own."""
    return 1 if not built.report.passed else _WITH_REJECTIONS if built.rejected else 0


def run_build(recipe: Recipe, source: str, to: str, choice: Chosen, machine: Machine, *, quiet: bool = False) -> Built:
    """Plan and build; unless quiet, show the plan before."""
    from cube.convert.tolerance import Tolerance
    from cube.format.target import target_of
    from cube.jobs.build import Terms, convert
    from cube.jobs.planning import plan_build

    target = target_of(to, options=machine.config.options(to), flush=machine.flush)
    workers = processes(machine.workers)
    planned = plan_build(recipe, source, choice, machine.config.options(source), target=target, say=tell)
    if not quiet:
        click.echo(plan_text(planned, None), err=True)

    def cluster() -> AbstractContextManager[Client | None]:
        return watched_cluster(machine, min(workers, planned.tasks))

    terms = Terms(sample=machine.sample, replace=machine.replace, watcher=Meter())
    if machine.max_rejected is not None:
        share, least = machine.max_rejected
        terms = replace(terms, tolerance=Tolerance(share=share, least=least))
    return convert(planned, target, cluster, terms)


def _require_sums(source: str, listed: str | None, settings: Settings) -> None:
    if listed is None:
        return
    from cube.source.sums import read_sums, require_sums

    count = require_sums(source, read_sums(listed), settings.options(source), say=tell)
    tell(f"{source}: {counted(count, 'file')} as published")


def _recognised(source: str, settings: Settings, to: str = "") -> str:
    """Return the recipe that the names of the files tell, and say so; what is learnt of archives is kept beside a target."""
    from cube.format.target import target_of
    from cube.source.files import INDEXES
    from cube.source.scan import recognise

    indexes = target_of(to, options=settings.options(to)).beside.child(INDEXES) if to else None
    name = recognise(source, settings.options(source), indexes=indexes)
    tell(f"{source}: its files are named as recipe {name!r} says")
    return name


def _recipe(name: str, profile: str | None, modalities: str | None) -> Recipe:
    from cube.recipes.bundled import locate

    locate(name)  # a misspelt name is told before anything else is loaded
    from cube.recipes.recipe import read_recipe, with_modalities, with_profile

    recipe = read_recipe(name)
    if modalities is not None:
        recipe = with_modalities(recipe, [word.strip() for word in modalities.split(",") if word.strip()])
    return with_profile(recipe, profile) if profile else recipe
