"""The command ``recipes`` and those below it: list, print, check against files, draft from files, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cube.cli.machine import tell
from cube.cli.options import CONFIG, JSON, print_value
from cube.cli.words import visible
from cube.errors import RequestError

if TYPE_CHECKING:
    from cube.source.inspection import Inspection
    from cube.work.settings import Settings

_SOURCE = click.option("--source", required=True, metavar="S", help="Folder, archive or s3:// prefix of the patch files.")


class _Named(click.Group):
    """Takes what is no command below it for the name of a recipe to print."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            return "show", self.commands["show"], args
        return super().resolve_command(ctx, args)


@click.group(cls=_Named, invoke_without_command=True, subcommand_metavar="[NAME | COMMAND …]")
@JSON
@click.pass_context
def recipes(ctx: click.Context, as_json: bool) -> None:
    """List the bundled recipes, or print the one called NAME."""
    from cube.recipes.bundled import recipe_titles

    if ctx.invoked_subcommand is None:
        titles = recipe_titles()
        width = max(map(len, titles))
        print_value(titles if as_json else "\n".join(f"{item:{width}} {title}" for item, title in titles.items()), as_json)
    ctx.obj = as_json


@recipes.command(hidden=True)
@click.argument("name")
@JSON
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Print the recipe called NAME."""
    from cube.recipes.bundled import folder
    from cube.recipes.recipe import read_recipe

    as_json = as_json or bool(ctx.obj)
    recipe = read_recipe(name)
    path = Path(name) if Path(name).is_file() else folder("recipes") / f"{name}.yaml"
    print_value(recipe.model_dump(mode="json") if as_json else path.read_text(encoding="utf-8").rstrip(), as_json)


@recipes.command()
@click.argument("recipe")
@_SOURCE
@click.option("--count", type=click.IntRange(1), default=10, show_default=True, help="Files to show.")
@CONFIG
@JSON
def check(recipe: str, source: str, count: int, config: Settings, as_json: bool) -> None:
    """Say what RECIPE makes of some files, group by group.

    They are read, too: type, size and bands are held against the recipe. Exit code 1 if no file fits, or one shown would be
    rejected.
    """
    from cube.recipes.recipe import read_recipe
    from cube.source.inspection import inspect

    found = inspect(read_recipe(recipe), source, config.options(source), count=count)
    print_value(found.document() if as_json else _checked_text(found), as_json)
    if not found.examples or any(example.trouble for example in found.examples):
        click.get_current_context().exit(1)


@recipes.command()
@_SOURCE
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it there, not to stdout.")
@CONFIG
def new(source: str, to: Path | None, config: Settings) -> None:
    """Draft a recipe from the files of a source.

    Names tell its pattern, one file of each kind its type, size and bands. What files cannot tell is marked with `edit`.
    """
    from cube.source.drafted import recipe_text
    from cube.source.drafting import draft

    found = draft(source, config.options(source))
    stem = "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in Path(source.rstrip("/")).name.split(".")[0])
    text = recipe_text(found, (to.stem if to else stem).lower().strip("-") or "mine")
    for path in found.others:
        tell(f"named otherwise, not read by it: {visible(path)}")
    if to is None:
        click.echo(text, nl=False)
        return
    if to.exists():
        raise RequestError(f"{to} is there already: choose another --to")
    to.write_text(text, encoding="utf-8")
    tell(f"{to}: edit what is marked, then `cube recipes check {to} --source {visible(source)}`")


@recipes.command()
def schema() -> None:
    """Print the JSON Schema of recipes, by which editors check and complete them."""
    from cube.recipes.recipe import Recipe

    document: dict[str, Any] = Recipe.model_json_schema()
    document["properties"]["extends"] = {"type": "string", "description": "Name of a recipe to start from."}
    for part in (document, *document["$defs"].values()):
        part.pop("required", None)  # what is extended may say the rest
    document["required"] = ["format"]
    click.echo(json.dumps(document, indent=1))


def _checked_text(found: Inspection) -> str:
    lines = [f"{found.recipe} on {visible(found.source)}"]
    lines += [f"  {name:10} {number:>9,} files" for name, number in found.files.items()]
    lines.append(f"  {found.ignored:,} files ignored, {found.strange:,} fit nothing")
    lines += [f"  fits nothing: {visible(path)}" for path in found.unknown]
    for example in found.examples:
        lines.append(visible(example.path))
        lines.append(f"    {example.modality} of patch {visible(example.patch)}, season {example.season}")
        said = [("groups", example.groups), ("labels", example.labels)]
        lines += [f"    {what}: {_pairs(values)}" for what, values in said if values]
        lines.append(f"    {'rejected: ' + visible(example.trouble) if example.trouble else 'is read'}")
    return "\n".join(lines)


def _pairs(values: Any) -> str:
    return ", ".join(f"{name} {visible(str(value))}" for name, value in values.items())
