"""The command that tells what differs between two cubes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cube.cli.options import CONFIG, JSON, print_value
from cube.cli.progress import counted
from cube.errors import CubeError, RequestError

if TYPE_CHECKING:
    from cube.jobs.diff import Difference
    from cube.read.opened import OpenedCube
    from cube.work.settings import Settings

_SHOWN = 5
"""Ids of each kind that are printed."""


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--recipe", metavar="RECIPE", help="Of the files in B; recognised by their names where it is not given.")
@CONFIG
@JSON
def diff(first: str, second: str, recipe: str | None, config: Settings, as_json: bool) -> None:
    """Tell which patches of the cube or source B are not those of the cube A.

    Cubes are compared by the hashes that certify them, files by their names and sizes: no pixel is read. Exit code 0 if nothing
    differs, 1 if something does, 2 if they could not be compared.
    """
    from cube.jobs.diff import difference, source_difference
    from cube.read.opened import open_certified

    try:
        one = open_certified(first, config.options(first))
        two = None if recipe else _cube(second, config)
        found = source_difference(one, second, recipe, config.options(second)) if two is None else difference(one, two)
    except FileNotFoundError as error:
        raise RequestError(f"there is no cube: {error.filename or error}") from None
    except (CubeError, OSError) as error:  # 1 would say that they differ
        raise RequestError(str(error)) from error
    print_value(found.document() if as_json else _text(found), as_json)
    sys.exit(1 if found.any else 0)


def _cube(url: str, config: Settings) -> OpenedCube | None:
    """Return the cube at a URL; None where something else is."""
    from cube.read.opened import open_certified

    try:
        return open_certified(url, config.options(url))
    except FileNotFoundError:
        if url.endswith(".zarr"):
            raise
        return None


def _text(found: Difference) -> str:
    kinds = {"only in A": found.removed, "only in B": found.added}
    kinds |= {f"{name} differs": ids for name, ids in found.changed.items()}
    kinds |= {f"label {name} differs": ids for name, ids in found.labels.items()}
    lines = [f"{kind}: {counted(len(ids), 'patch')} ({_named(ids)})" for kind, ids in kinds.items() if ids]
    lines += [f"only in {cube}: {', '.join(names)}" for cube, names in zip("AB", found.modalities, strict=True) if names]
    return "\n".join(lines) or "nothing differs"


def _named(ids: tuple[str, ...]) -> str:
    return ", ".join(ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
