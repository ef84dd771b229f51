"""The command ``cube``: parse, one call, print, exit code. Results on stdout, progress on stderr."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cube.cli.catalog import info, search_command
from cube.cli.options import CONFIG, JSON, SCHEDULER, WORKERS, print_value, processes, rejected_limit
from cube.cli.progress import Meter
from cube.cli.storage import clean, copy
from cube.cli.words import built_text, estimate_document, plan_text, report_text, visible
from cube.errors import CorruptError, CubeError, RequestError, TargetError, without_secrets
from cube.jobs import SAMPLE
from cube.work.settings import Defaults

if TYPE_CHECKING:
    from distributed import Client

    from cube.convert.tolerance import Tolerance
    from cube.format.target import Target
    from cube.jobs.build import Built, Choice
    from cube.recipes.recipe import Recipe
    from cube.work.settings import Settings

_SOURCE = click.option("--source", required=True, metavar="S", help="Folder or s3:// prefix of the patch files.")
_DASHBOARD = click.option("--dashboard", is_flag=True, help="Print the link to Dask's dashboard.")
_PERFORMANCE = click.option(
    "--performance-report", type=click.Path(dir_okay=False), metavar="FILE", help="Keep Dask's performance report (HTML)."
)
_WITH_REJECTIONS = 3
"""Exit code of a sound cube without some of the files."""
_FOLDER = click.Path(file_okay=False, path_type=Path)
_PROFILE = click.option("--profile", metavar="NAME", help="Codec profile of the recipe, such as fast.")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a build runs, how it reaches its stores, and how much it measures beforehand."""

    scheduler: str | None
    workers: int | None
    sample: int
    replace: bool = False
    max_rejected: tuple[float, int] | None = None
    """Share and number of bad files that are borne with; the default where None."""
    config: Settings
    dashboard: bool = False
    performance_report: str | None = None

    @property
    def watched(self) -> bool:
        """Tell whether the Dask cluster is to be seen at work."""
        return self.dashboard or self.performance_report is not None


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


class _Commands(click.Group):
    """Turns the package's errors into one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(visible(without_secrets(error.format_message())), ctx=error.ctx) from None
        except CubeError as error:
            _tell(f"cube: {_lines(error)}")
            ctx.exit(2 if isinstance(error, RequestError) else 1)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            _tell(f"cube: {_lines(error)}")
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("cube: interrupted; the same command goes on from here", err=True)
            ctx.exit(130)


def _lines(error: Exception) -> str:
    """Return what an error says; names of files in it may be anything."""
    return "\n".join(visible(without_secrets(line)) for line in str(error).split("\n"))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="patchcube", prog_name="cube")
def main() -> None:
    """Turn folders of satellite patch files into one verified Zarr data cube.

    RECIPE is the name of a bundled recipe (see `cube recipes`) or a YAML file. T is a path or s3:// URL ending in .zarr.
    """


main.add_command(copy)
main.add_command(clean)
main.add_command(info)
main.add_command(search_command)


@main.command()
@click.argument("name", required=False)
@JSON
def recipes(name: str | None, as_json: bool) -> None:
    """List the bundled recipes, or print the one called NAME."""
    from cube.recipes.bundled import folder, recipe_titles

    if name is not None:
        from cube.recipes.recipe import read_recipe

        recipe = read_recipe(name)
        path = Path(name) if Path(name).is_file() else folder("recipes") / f"{name}.yaml"
        print_value(recipe.model_dump(mode="json") if as_json else path.read_text(encoding="utf-8").rstrip(), as_json)
        return
    titles = recipe_titles()
    print_value(titles if as_json else "\n".join(f"{item:12} {title}" for item, title in titles.items()), as_json)


@main.command()
@click.argument("recipe", required=False)
@_SOURCE
@_chosen
@_PROFILE
@click.option("--sample", type=click.IntRange(0), default=0, metavar="N", help="Read N patches and measure on them.")
@WORKERS
@CONFIG
@JSON
def plan(recipe: str | None, source: str, profile: str | None, as_json: bool, **options: Any) -> None:
    """Say what a build would do and take.

    Writes nothing; with --sample, it measures on so many of the files.
    """
    chosen = _recipe(recipe or _recognised(source, options["config"]), profile, options.pop("modalities"))
    from cube.jobs.build import Choice, estimate_build, plan_build

    sample, workers, config = (options.pop(name) for name in ("sample", "workers", "config"))
    planned = plan_build(chosen, source, Choice(**options), config.options(source))
    expected = estimate_build(planned, None, sample=sample, workers=processes(workers))
    print_value(estimate_document(planned, expected) if as_json else plan_text(planned, expected), as_json)


@main.command(name="build")
@click.argument("recipe", required=False)
@_SOURCE
@click.option("--to", required=True, metavar="T", help="Path or s3:// URL of the cube, ending in .zarr.")
@_chosen
@_PROFILE
@SCHEDULER
@CONFIG
@WORKERS
@_DASHBOARD
@_PERFORMANCE
@click.option("--sample", type=click.IntRange(0), default=SAMPLE, show_default=True, help="Patches to predict from.")
@click.option(
    "--max-rejected",
    default="1%",
    show_default=True,
    metavar="N|P%",
    callback=rejected_limit,
    help="Stop where more files are bad than this share of those read (20 are always borne with), or this number.",
)
@click.option("--replace", is_flag=True, help="Throw away what an unfinished build with other options has written.")
@JSON
def build_command(recipe: str | None, source: str, to: str, profile: str | None, as_json: bool, **options: Any) -> None:
    """Convert, verify and catalog patch files.

    Killed or interrupted, the same command goes on from there.
    """
    chosen = _recipe(recipe or _recognised(source, options["config"]), profile, options.pop("modalities"))
    from cube.jobs.build import Choice

    machine = Machine(**{item.name: options.pop(item.name) for item in fields(Machine)})
    built = run_build(chosen, source, to, Choice(**options), machine, quiet=as_json)
    print_value(built.document() if as_json else built_text(built, to), as_json)
    sys.exit(_built_code(built))


def _built_code(built: Built) -> int:
    """Return the exit code of a build: files that were left out have one of their own."""
    return 1 if not built.report.passed else _WITH_REJECTIONS if built.rejected else 0


def run_build(recipe: Recipe, source: str, to: str, choice: Choice, machine: Machine, *, quiet: bool = False) -> Built:
    """Plan and build; unless quiet, show the plan before."""
    from cube.convert.preparation import claimed
    from cube.format.target import target_of
    from cube.jobs.build import build, estimate_build, plan_build
    from cube.work.clusters import lanes

    target, workers = target_of(to, options=machine.config.options(to)), processes(machine.workers)
    planned = plan_build(recipe, source, choice, machine.config.options(source))
    _refuse_inside(source, to)
    if not quiet:
        click.echo(plan_text(planned, None), err=True)
    with (
        claimed(planned, target, replace=machine.replace),
        _watched_cluster(machine, min(workers, planned.tasks)) as client,
    ):
        expected = estimate_build(planned, client, sample=machine.sample, workers=lanes(client), to=to)
        return build(planned, target, client, estimated=expected, watcher=Meter(), tolerance=_tolerance(machine))


def _tolerance(machine: Machine) -> Tolerance:
    from cube.convert.tolerance import TOLERANT, Tolerance

    if machine.max_rejected is None:
        return TOLERANT
    share, least = machine.max_rejected
    return Tolerance(share=share, least=least)


@contextmanager
def _watched_cluster(machine: Machine, workers: int) -> Iterator[Client | None]:
    """Give a client of the cluster a command asks for, or None, and show of its work what was asked for."""
    from cube.work.clusters import open_cluster
    from cube.work.dashboard import observed

    profile = machine.config.cluster
    with (
        open_cluster(scheduler=machine.scheduler, workers=workers, profile=profile, dashboard=machine.watched) as client,
        observed(client, link=machine.dashboard, report=machine.performance_report, say=_tell),
    ):
        yield client


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _refuse_inside(source: str, to: str) -> None:
    from cube.store.urls import is_local

    if is_local(source) and is_local(to) and Path(source).resolve() in Path(to).resolve().parents:
        raise TargetError(f"{to} lies inside the source {source}: its own objects would be scanned; choose another --to")


@main.command()
@click.argument("target", metavar="T")
@click.option("--source", metavar="S", help="Compare with the source files too.")
@click.option("--expect", metavar="DIGEST", help="The digest that was noted of this cube: any other cube fails.")
@click.option("--catalog", is_flag=True, help="Check the STAC catalog too: links, core schema, agreement with the cube.")
@click.option("--schemas", type=_FOLDER, metavar="DIR", help="Check extensions by these schemas, laid out as host/path.")
@SCHEDULER
@CONFIG
@WORKERS
@_DASHBOARD
@_PERFORMANCE
@JSON
def verify(target: str, source: str | None, as_json: bool, **options: Any) -> None:
    """Check every object and every pixel of a cube.

    From the store alone, or against its source files too. Nothing is fetched from the web.
    """
    from cube.catalog.check import check_catalog, recipe_of
    from cube.format.target import target_of
    from cube.survey.surveyor import Surveyor
    from cube.verify.verification import verify_cube

    schemas, catalog, expect = (options.pop(name) for name in ("schemas", "catalog", "expect"))
    if schemas is not None and not catalog:
        raise RequestError("--schemas goes with --catalog")
    machine = Machine(**options, sample=0)
    where = target_of(target, options=machine.config.options(target))
    recipe = recipe_of(where) if catalog else None
    surveyor = Surveyor(recipe) if recipe else None
    with _watched_cluster(machine, _verify_workers(where, machine)) as client:
        reached = machine.config.options(source or "")
        report = verify_cube(
            where, client, source=source, source_options=reached, watcher=Meter(), surveyor=surveyor, expect=expect
        )
    if recipe and surveyor:
        report = check_catalog(where, recipe, report, surveyor.survey() if report.passed else None, schemas)
    print_value(report.document() if as_json else report_text(report), as_json)
    sys.exit(0 if report.passed else 1)


@main.command()
@click.argument("directory", metavar="[DIR]", required=False, default="cube-demo")
@WORKERS
@JSON
def demo(directory: str, workers: int | None, as_json: bool) -> None:
    """Make a small data set and take it all the way.

    Scenes in the shape of SEN12MS are made, built, verified and opened with xarray.
    """
    from cube.format.target import target_of
    from cube.jobs.build import Choice
    from cube.recipes.recipe import read_recipe
    from cube.source.demo import make_demo
    from cube.verify.verification import verify_cube

    started, recipe = time.monotonic(), read_recipe("demo")
    files, to = Path(directory) / "files", str(Path(directory) / "demo.zarr")
    say = (lambda text: None) if as_json else click.echo
    say(f"1. {recipe.title}, in {files}\n   {make_demo(files)}")
    say(f"2. cube build demo --source {files} --to {to}")
    machine = Machine(scheduler=None, workers=workers, sample=SAMPLE, config=Defaults())
    built = run_build(recipe, str(files), to, Choice(), machine, quiet=as_json)
    say(f"{built_text(built, to)}\n3. cube verify {to} --source {files}")
    report = verify_cube(target_of(to), source=str(files))
    say(f"{report_text(report)}\n4. Opening it with nothing but xarray\n{_open_with_xarray(to)}")
    say(f"Done in {time.monotonic() - started:.0f} s. What to try next:")
    say(f"   cube info {to}\n   cube search {to} --where split=test")
    say("   cube recipes\n   cube plan RECIPE --source YOUR_FOLDER --sample 200")
    if as_json:
        print_value({"files": str(files), "build": built.document(), "verify": report.document()}, as_json)
    sys.exit(0 if built.report.passed and report.passed else 1)


def _open_with_xarray(url: str) -> str:
    import xarray as xr

    from cube.recipes.recipe import read_recipe
    from cube.source.demo import true_color

    selection = true_color(read_recipe("demo"))
    chosen = xr.open_zarr(url).sel(selection)
    words = ", ".join(f"{name}={value!r}" for name, value in selection.items())
    return f"   xr.open_zarr({url!r}).sel({words})\n" + "\n".join(f"   {row}" for row in repr(chosen).splitlines())


def _recognised(source: str, settings: Settings) -> str:
    """Return the recipe that the names of the files tell, and say so."""
    from cube.source.scan import recognise

    name = recognise(source, settings.options(source))
    _tell(f"{source}: its files are named as recipe {name!r} says")
    return name


def _recipe(name: str, profile: str | None, modalities: str | None) -> Recipe:
    from cube.recipes.bundled import locate

    locate(name)  # a misspelt name is told before anything else is loaded
    from cube.recipes.recipe import read_recipe, with_modalities, with_profile

    recipe = read_recipe(name)
    if modalities is not None:
        recipe = with_modalities(recipe, [word.strip() for word in modalities.split(",") if word.strip()])
    return with_profile(recipe, profile) if profile else recipe


def _verify_workers(target: Target, machine: Machine) -> int:
    """One batch needs no cluster unless one is to be seen, a damaged root none either; no more workers than batches."""
    from cube.format.root import batch_count, read_root

    try:
        _, document = read_root(target)
    except CorruptError:
        return 0
    batches = batch_count(document)
    return 0 if batches == 1 and not machine.watched else min(processes(machine.workers), batches)
