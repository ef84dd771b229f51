"""The flow: scan → plan → write → verify → describe, each stage a value."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cube.catalog.describe import describe
from cube.catalog.publish import publish, retract
from cube.convert.estimates import Estimate, estimate, measure, sample_tasks
from cube.convert.growing import end_growth
from cube.convert.plan import Plan
from cube.convert.preparation import claimed
from cube.convert.tolerance import TOLERANT, Tolerance
from cube.convert.writer import REPORT, Written, forget_batches, replace_root, write_claimed
from cube.errors import RequestError
from cube.format.target import COLLECTION, Target, target_of
from cube.jobs.diff import INVENTORY
from cube.jobs.grown import (
    Rejections,
    counted_before,
    inventory_after,
    is_described,
    joined_statements,
    keep_counted,
    keep_json,
    rejected_before,
    statements_before,
    united,
)
from cube.jobs.planning import Chosen, plan_build
from cube.recipes.recipe import Recipe, read_recipe, with_modalities, with_profile
from cube.recipes.sections import Incomplete
from cube.store.urls import is_local
from cube.survey.surveyor import Surveyor
from cube.verify.report import Report
from cube.verify.verification import verify_cube, verify_unrooted
from cube.work.clusters import is_client, lanes, run
from cube.work.watch import SILENT, Watcher

if TYPE_CHECKING:
    from distributed import Client

SURVEY = "survey.json"


@dataclass(frozen=True, kw_only=True)
class Built:
    """A finished build."""

    plan: Plan
    estimate: Estimate
    written: Written
    report: Report
    catalog: str
    """URL of the STAC collection; empty where the report did not pass."""
    seconds: float

    @property
    def rejected(self) -> list[tuple[str, str, str]]:
        """Every file and patch that was not used: path, reason, detail."""
        return _rejected(self.plan, self.written)

    def comparison(self) -> list[tuple[str, float | None, float]]:
        """Return what was predicted beside what came: name, predicted (None where it was not), actual."""
        written = self.written
        return [
            ("objects", self.estimate.objects, self.report.objects),
            ("tasks", self.estimate.tasks, len(written.receipts)),
            ("rejected", self.estimate.rejected, len(self.rejected)),
            ("stored bytes", self.estimate.stored_bytes, written.new_bytes),
            ("peak bytes of a worker", self.estimate.peak_bytes, written.peak_bytes),
            ("seconds", self.estimate.seconds, self.seconds),
        ]

    def document(self) -> dict[str, Any]:
        """Return the build as plain data."""
        figures = {name: {"predicted": predicted, "actual": actual} for name, predicted, actual in self.comparison()}
        return {
            "plan": self.plan.digest,
            "patches": self.plan.patches,
            "raw_bytes": self.plan.raw_bytes,
            "resumed": self.written.resumed,
            "tiles": self.written.tiles(),
            "statements": self.written.statements(),
            "rejected": [list(item) for item in self.rejected],
            "figures": figures,
            "report": self.report.document(),
            "catalog": self.catalog,
        }


def estimate_build(plan: Plan, client: Client | None, *, sample: int, workers: int, to: str = "") -> Estimate:
    """Predict a build, from a sample of the files where ``sample`` is more than 0."""
    samples = list(run(client, measure, sample_tasks(plan, sample))) if sample else []
    return estimate(plan, samples, workers=workers, local=is_local(to), measured_base=client is not None)


def build(  # noqa: PLR0913  what the command takes, each by its name
    recipe: str | Path | Recipe,
    source: str | Path,
    to: str | Path,
    *,
    where: str = "",
    limit: int | None = None,
    modalities: str | Sequence[str] | None = None,
    incomplete: Incomplete | None = None,
    profile: str | None = None,
    tolerance: Tolerance = TOLERANT,
    grow: bool = False,
    replace_patches: bool = False,
    replace: bool = False,
    flush: bool = True,
    client: Client | None = None,
    source_options: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    watcher: Watcher = SILENT,
) -> Built:
    """Convert, verify and catalog patch files, as the command ``cube build`` does; what an earlier run finished stays.

    Parameters
    ----------
    recipe
        Name of a bundled recipe, a YAML file, or a recipe that was read.
    source
        Folder, or ``s3://`` prefix, of the patch files.
    to
        Path or URL of the cube, ending in ``.zarr``; records and catalog lie beside it.
    where, limit
        Only the patches that a filter chooses, such as ``season=spring``; only the first so many.
    modalities
        Only some kinds of image, as a list or as ``"s1,lc"``; all by default.
    incomplete
        What becomes of patches that lack a file: ``fail``, ``reject`` or ``keep``; as the recipe says by default.
    profile
        Codec profile of the recipe.
    tolerance
        How many bad files are borne with.
    grow
        Add the patches that the cube lacks to it; it keeps its chunks and codecs. Where there is none yet, it is begun.
    replace_patches
        While it grows, also take patches that the cube has with other pixels: new rows, which readers see in place of the old.
    replace
        Throw away what an unfinished build, or growth, with other options has written.
    flush
        Wait until the disk has what must outlast a loss of power; object stores need none of it.
    client
        Client of a Dask cluster that does the work; without one, this process does.
    source_options, storage_options
        fsspec options by which the source and the target are reached.
    watcher
        Is told how the work goes on.

    Returns
    -------
    Built
        What was written, and what the verification says: look at ``report.passed`` and ``rejected``.

    Raises
    ------
    RequestError
        Recipe, choice or target are wrong; nothing has been done.
    WorkError
        No file can be used, too many are bad, or reading or writing failed for good. What is written stays.
    """
    known = recipe if isinstance(recipe, Recipe) else read_recipe(str(recipe))
    if modalities is not None:
        names = modalities.split(",") if isinstance(modalities, str) else modalities
        known = with_modalities(known, [name.strip() for name in names])
    known = with_profile(known, profile) if profile else known
    _require_options(limit, incomplete, tolerance, client)
    target = target_of(str(to), options=storage_options, flush=flush)
    choice = Chosen(
        where=where, limit=limit, incomplete=incomplete, grow=grow or replace_patches, replace_patches=replace_patches
    )
    plan = plan_build(known, str(source), choice, source_options, target=target)
    terms = Terms(replace=replace, tolerance=tolerance, watcher=watcher)
    return convert(plan, target, partial(nullcontext, client), terms)


def _require_options(limit: Any, incomplete: Any, tolerance: Any, client: Any) -> None:
    """Raise ``RequestError`` for what the command line would have refused."""
    if limit is not None and (type(limit) is not int or limit < 1):
        raise RequestError(f"limit is {limit!r}: expected a whole number, 1 or more")
    if incomplete is not None and incomplete not in (allowed := get_args(Incomplete)):
        raise RequestError(f"incomplete is {incomplete!r}: expected {', '.join(allowed)}")
    if not isinstance(tolerance, Tolerance):
        raise RequestError(f"tolerance is {tolerance!r}: expected a cube.Tolerance, such as cube.Tolerance(share=0.01)")
    if client is not None and not is_client(client):
        raise RequestError(f"client is {client!r}: expected a distributed.Client, such as Client({client!r})")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a build goes about it."""

    sample: int = 0
    """Patches read beforehand to predict what it will take."""
    tolerance: Tolerance = TOLERANT
    """How many bad files are borne with."""
    replace: bool = False
    """Whether to throw away what an unfinished build with other options has written."""
    watcher: Watcher = SILENT
    """Is told how the work goes on."""


def convert(plan: Plan, target: Target, cluster: Callable[[], AbstractContextManager[Client | None]], terms: Terms) -> Built:
    """Hold the target, then predict, write, verify and catalog a planned cube; ``cluster`` opens what does the work.

    There is a catalog only where the verification passed. Raises as ``build`` does.
    """
    nothing = plan.base is not None and not plan.patches
    with nullcontext() if nothing else claimed(plan, target, replace=terms.replace), cluster() as client:
        estimated = estimate_build(plan, client, sample=terms.sample, workers=lanes(client), to=target.url)
        return _convert(plan, target, client, estimated, terms)


def _convert(plan: Plan, target: Target, client: Client | None, estimated: Estimate, terms: Terms) -> Built:
    started = time.monotonic()
    before, said = rejected_before(plan, target), statements_before(plan, target)
    with target.storing():
        inventory = inventory_after(plan, target)
        if plan.base is None:
            target.build.write(INVENTORY, inventory)
        if plan.patches or plan.base is None:
            written = write_claimed(plan, target, client, terms.watcher, terms.tolerance)
        else:
            end_growth(target)  # of one that was killed when all but that was done
            written = Written(receipts=(), resumed=0)
        surveyor = Surveyor(plan.recipe, counted_before(plan, target))
    report, surveyed = _verified(plan, target, client, written, surveyor, terms)
    with target.storing():
        forget_batches(plan, target, report.damaged)
        if report.passed and written.root:
            replace_root(plan, target, written.root)
            target.build.write(INVENTORY, inventory)
        rejected = united(before, _rejected(plan, written))
        if report.passed and surveyed:
            survey = surveyor.survey()
            target.build.write(SURVEY, json.dumps(survey.document(), allow_nan=False).encode())
            reasons = [reason for _, reason, _ in rejected]
            catalog = publish(describe(target, plan.recipe, report, survey, rejected=reasons), target, report)
            keep_counted(plan.recipe, surveyor, target)
        elif report.passed:
            catalog = f"{target.stac.url}/{COLLECTION}"
        else:
            catalog = ""
            if plan.base is None:
                retract(target)
    built = Built(
        plan=plan,
        estimate=estimated,
        written=written,
        report=report,
        catalog=catalog,
        seconds=time.monotonic() - started,
    )
    with target.storing():
        _keep(built, target, rejected, joined_statements(said, written.statements()))
    return built


def _verified(
    plan: Plan, target: Target, client: Client | None, written: Written, surveyor: Surveyor, terms: Terms
) -> tuple[Report, bool]:
    """Verify what was written, and whatever else a survey must see; tell whether one was taken.

    None is where nothing was added to a cube whose catalog is its own.
    """
    settings: dict[str, Any] = {"watcher": terms.watcher, "since": plan.before}
    if written.root:
        return verify_unrooted(target, written.root, client, surveyor=surveyor, **settings), True
    if plan.base is not None and is_described(target, plan.base.root):
        return verify_cube(target, client, **settings), False
    return verify_cube(target, client, surveyor=surveyor, **settings), True


def _rejected(plan: Plan, written: Written) -> list[tuple[str, str, str]]:
    listed = [(item.path, item.reason, item.detail) for item in plan.inventory.rejected]
    return [*listed, *written.rejected]


def _beside(url: str) -> str:
    """Return how the collection is called from where the cube lies, which may be moved with all that is beside it."""
    return "/".join(url.split("/")[-2:])


def _keep(built: Built, target: Target, rejected: Rejections, statements: dict[str, dict[str, int]]) -> None:
    """Keep the report, and predicted beside actual, with the build records."""
    report = {**built.report.document(), "statements": statements, "rejected": [list(item) for item in rejected]}
    keep_json(target, REPORT, report)
    keep_json(target, "estimate.json", built.estimate.document())
    keep_json(target, "build.json", {**built.document(), "catalog": _beside(built.catalog)})
