"""The command ``cube``: its group, and what becomes of errors. Results on stdout, progress on stderr."""

from __future__ import annotations

import errno
from typing import Any

import click

from cube.cli.build import build_command, plan
from cube.cli.catalog import info, search_command
from cube.cli.demo import demo
from cube.cli.diff import diff
from cube.cli.export import export
from cube.cli.machine import tell
from cube.cli.recipes import recipes
from cube.cli.split import split
from cube.cli.storage import clean, copy
from cube.cli.verify import verify
from cube.cli.words import visible
from cube.errors import CubeError, RequestError, without_secrets


class _Commands(click.Group):
    """Turns the package's errors into one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(visible(without_secrets(error.format_message())), ctx=error.ctx) from None
        except CubeError as error:
            tell(f"cube: {_lines(error)}")
            ctx.exit(2 if isinstance(error, RequestError) else 1)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            tell(f"cube: {_lines(error)}")
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


for command in (recipes, plan, build_command, verify, info, search_command, split, diff, export, copy, clean, demo):
    main.add_command(command)
