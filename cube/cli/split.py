"""The command that divides a cube into parts without leaks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cube.cli.options import CONFIG, JSON, print_value
from cube.errors import RequestError

if TYPE_CHECKING:
    from cube.work.settings import Settings


@click.command()
@click.argument("target")
@click.option("--parts", default="train=0.8,val=0.1,test=0.1", show_default=True, metavar="NAME=SHARE,…", help="Parts to make.")
@click.option("--to", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="CSV to write.")
@click.option("--by", default="season,scene", show_default=True, metavar="LABELS", help="What must not be divided.")
@click.option("--balance", default="", metavar="LEGEND", help="Classes to balance, or none; the catalog's first by default.")
@click.option("--block", type=click.IntRange(1), default=None, metavar="PIXELS", help="Divide scenes into squares, with a gap.")
@click.option("--where", default=None, metavar="FILTER", help='Only some patches, such as "scene<=40".')
@click.option("--seed", type=int, default=0, show_default=True, help="Decides between equals.")
@CONFIG
@JSON
def split(target: str, to: Path, config: Settings, as_json: bool, **options: Any) -> None:
    """Divide the patches of the cube T into parts that share no ground.

    Scenes stay whole, and every part has the same mixture of classes. A share may be `official`: that part is as the data set
    says. Writes a patch and its part in each line.
    """
    if to.exists():
        raise RequestError(f"{to} is there already: choose another --to")
    from cube.read.open import open_cube
    from cube.read.splits import split_leaks
    from cube.train.samples import Samples
    from cube.train.splitting import leak_labels, make_split

    stored = config.options(target)
    samples = Samples(target, storage_options=stored, where=options["where"], incomplete="keep")
    balance = None if options["balance"] == "none" else options["balance"]
    how = {name: options[name] for name in ("block", "seed")}
    made = make_split(samples, _parts(options["parts"]), by=options["by"].split(","), balance=balance, **how)
    opened = open_cube(target, storage_options=stored)
    opened = opened.isel(patch=opened["patch"].isin(made.patches).values)
    leaks = split_leaks(opened.assign_coords(made=("patch", leak_labels(made, opened["patch"].values))), "made")
    made.write(to)
    worst = None if made.worst != made.worst else round(made.worst, 6)
    facts = {"parts": made.sizes, "largest_difference_of_a_class": worst, "scenes_that_share_ground": len(leaks), "to": str(to)}
    gap = len(samples) - len(made.patches)
    facts |= {"patches_in_the_gap": gap} if options["block"] else {}
    lines = [f"{name:10} {count:>9,} patches, {count / len(samples):.1%}" for name, count in made.sizes.items()]
    lines += [f"{'gap':10} {gap:>9,} patches, {gap / len(samples):.1%}, in no part"] if gap else []
    lines += [f"classes differ by {made.worst:.1%} at most"] if worst is not None else []
    lines += [
        f"{len(leaks)} scenes share ground between parts" if leaks else "no ground is shared between parts",
        f"Wrote {to}",
    ]
    print_value(facts if as_json else "\n".join(lines), as_json)


def _parts(text: str) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for item in text.split(","):
        name, _, share = (part.strip() for part in item.partition("="))
        try:
            found[name] = share if share.isalpha() else float(share)
        except ValueError:
            raise RequestError(f"--parts {text}: {item.strip()!r} is no name=share, such as val=0.1 or test=official") from None
        if not name:
            raise RequestError(f"--parts {text}: {item.strip()!r} is no name=share, such as val=0.1 or test=official")
    return found
