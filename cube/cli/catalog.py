"""The commands that tell what a cube holds: ``info`` and ``search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cube.catalog import FORMATS
from cube.cli.options import CONFIG, JSON, print_value
from cube.cli.progress import counted, size
from cube.errors import RequestError

if TYPE_CHECKING:
    from cube.work.settings import Settings


@click.command()
@click.argument("target", metavar="T")
@click.option("--patch", metavar="ID", help="Of this patch alone; with --json its STAC item.")
@CONFIG
@JSON
def info(target: str, patch: str | None, config: Settings, as_json: bool) -> None:
    """Say in words what a cube holds."""
    from cube.format.target import target_of

    where = target_of(target, options=config.options(target))
    if patch is not None:
        from cube.catalog.patch_items import item_to_read, patch_text
        from cube.query.search import find_patch

        item = item_to_read(find_patch(where, patch).table, where)
        print_value(item if as_json else patch_text(item), as_json)
        return
    from cube.cli.info import describe_cube, info_text

    facts = describe_cube(where)
    print_value(facts if as_json else info_text(facts), as_json)


@click.command(name="search")
@click.argument("target", metavar="T")
@click.option("--where", metavar="FILTER", help='Such as "scene<=40 and class:Urban>0.3 and split=train".')
@click.option("--bbox", metavar="W,S,E,N", help="Only patches that meet this box, in degrees; W > E crosses 180°.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="ids", show_default=True, help="What to give back.")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write there instead of printing.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N patches.")
@CONFIG
@JSON
def search_command(target: str, where: str | None, bbox: str | None, form: str, as_json: bool, **rest: Any) -> None:
    """Find patches by labels, classes and place.

    Reads the table in the catalog, and only what it needs of it. T is a cube, its catalog's folder or its collection.
    """
    from cube.catalog.patch_items import rendered, rows_of
    from cube.format.target import target_of
    from cube.query.search import SUMMARY, box_of, cube_url, search

    url, out = cube_url(target), rest["out"]
    cube = target_of(url, options=rest["config"].options(url))
    if form == "parquet" and out is None:
        raise RequestError("--format parquet needs --out FILE")
    columns = {"ids": ("id",), "table": SUMMARY}.get(form)
    found = search(cube, where, box_of(bbox) if bbox is not None else None, columns=columns, limit=rest["limit"])
    if out is not None:
        Path(out).write_bytes(rendered(found.table, cube, form))
    if as_json:
        facts = {"patches": found.patches, "requests": found.requests, "bytes_read": found.bytes_read}
        print_value(facts | ({"out": out} if out is not None else {"found": rows_of(found.table, cube, form)}), as_json)
        return
    read = f"{size(found.bytes_read)} read in {counted(found.requests, 'request')}"
    click.echo(f"{counted(found.patches, 'patch')} chosen; {read}", err=True)
    if out is None:
        click.echo(rendered(found.table, cube, form), nl=False)
