"""The command ``demo``: a small data set, all the way."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from cube.cli.build import run_build
from cube.cli.machine import Machine
from cube.cli.options import JSON, WORKERS, print_value
from cube.cli.words import built_text, report_text
from cube.jobs import SAMPLE
from cube.work.settings import Defaults


@click.command()
@click.argument("directory", metavar="[DIR]", required=False, default="cube-demo")
@WORKERS
@JSON
def demo(directory: str, workers: int | None, as_json: bool) -> None:
    """Make a small data set and take it all the way.

    Scenes in the shape of SEN12MS are made, built, verified and opened with xarray.
    """
    from cube.format.target import target_of
    from cube.jobs.planning import Chosen
    from cube.recipes.recipe import read_recipe
    from cube.source.demo import make_demo
    from cube.verify.verification import verify_cube

    started, recipe = time.monotonic(), read_recipe("demo")
    files, to = Path(directory) / "files", str(Path(directory) / "demo.zarr")
    say = (lambda text: None) if as_json else click.echo
    say(f"1. {recipe.title}, in {files}\n   {make_demo(files)}")
    say(f"2. cube build demo --source {files} --to {to}")
    machine = Machine(scheduler=None, workers=workers, sample=SAMPLE, config=Defaults())
    built = run_build(recipe, str(files), to, Chosen(), machine, quiet=as_json)
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
