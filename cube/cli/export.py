"""The command that gives the files of a cube back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cube.cli.options import CONFIG, JSON, SCHEDULER, WORKERS, print_value, processes
from cube.cli.progress import Meter, counted, duration, size
from cube.errors import RequestError

if TYPE_CHECKING:
    from cube.jobs.export import Exported
    from cube.work.settings import Settings


@click.command()
@click.argument("target")
@click.option("--to", metavar="DIR", help="Folder or s3:// prefix to write the files in.")
@click.option("--tar", "archive", metavar="FILE", help="Write one tar archive instead; - is the standard output.")
@click.option("--where", default="", metavar="FILTER", help='Only some patches, such as "scene<=40".')
@click.option("--modalities", default="", metavar="NAMES", help='Only some kinds of image, such as "s1,lc".')
@click.option(
    "--format",
    "form",
    type=click.Choice(["original", "gtiff", "cog", "png"]),
    default="original",
    show_default=True,
    help="The files as they were, or plain images for other tools.",
)
@click.option("--manifest", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write SHA-256 sums there.")
@SCHEDULER
@WORKERS
@CONFIG
@JSON
def export(target: str, to: str | None, archive: str | None, config: Settings, as_json: bool, **options: Any) -> None:
    """Give the files of the cube T back, under the names and folders they had.

    Files whose bytes were kept come back byte for byte, others with equal pixels and place; how many of each is told. The
    same command goes on after an interruption.
    """
    if (to is None) == (archive is None):
        raise RequestError("say where to: --to DIR or --tar FILE, one of them")
    if options["manifest"] is not None and not options["manifest"].absolute().parent.is_dir():
        raise RequestError(f"{options['manifest']}: no such folder for the manifest")
    from cube.format.target import target_of
    from cube.jobs.export import Wanted, export_cube, stream_cube
    from cube.store.urls import open_store
    from cube.work.clusters import open_cluster

    source = target_of(target, options=config.options(target))
    names = [word.strip() for word in options["modalities"].split(",") if word.strip()]
    wanted = Wanted(where=options["where"], modalities=names, form=options["form"], sums=options["manifest"] is not None)
    if to is not None:
        workers, place = processes(options["workers"]), open_store(to, options=config.options(to), flush=False)
        with open_cluster(scheduler=options["scheduler"], workers=workers if workers > 1 else 0) as client:
            done = export_cube(source, place, client, wanted=wanted, watcher=Meter())
    elif archive == "-":
        done = stream_cube(source, sys.stdout.buffer, wanted=wanted, watcher=Meter())
    else:
        with open(archive or "", "xb") as out:
            done = stream_cube(source, out, wanted=wanted, watcher=Meter())
    if options["manifest"] is not None:
        options["manifest"].write_text(done.manifest(), encoding="utf-8")
    if archive != "-":
        original = options["form"] == "original"
        print_value(done.document() if as_json else _text(done, to or archive or "", original=original), as_json)


def _text(done: Exported, to: str, *, original: bool) -> str:
    lines = [f"{counted(done.patches, 'patch')}: {size(done.bytes)} to {to} in {duration(done.seconds)}"]
    lines += [f"  {counted(done.exact, 'file')} as the originals, byte for byte"] if original else []
    lines += [f"  {counted(done.equal, 'file')} with equal pixels and place, other bytes"] if done.equal and original else []
    lines += [f"  {counted(done.equal, 'image')}"] if not original else []
    lines += [f"  {counted(done.standing, 'file')} stood from an earlier run"] if done.standing else []
    return "\n".join(lines)
