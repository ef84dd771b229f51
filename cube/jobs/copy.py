"""A cube, or some of its patches, from one place to another: tiles stay shared, everything is verified, the root comes last."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cube.convert.writer import REPORT
from cube.errors import TargetError
from cube.format.root import read_root
from cube.format.target import ROOT, Target
from cube.jobs.portions import Damaged, Part, Whole
from cube.jobs.subset import (
    plan_subset,
)
from cube.records.claims import stake, stake_publication, standing_claim
from cube.records.presence import clear_unfinished, living_build, present
from cube.survey.summary import Survey
from cube.verify.report import Report
from cube.verify.verification import verify_unrooted
from cube.work.watch import SILENT, Watcher

if TYPE_CHECKING:
    from distributed import Client

_ROUNDS = 3
"""What the verification finds damaged is written once more; damaged labels hide damaged pixels until then."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What a copy did."""

    url: str
    patches: int
    objects: int
    """Objects written by this run; of a subset, those that hold pixels and headers."""
    bytes: int
    standing: int
    """Objects that an earlier run had left."""
    tiles: Mapping[str, tuple[int, int]]
    """Modality → tiles of all patches and how many of them are stored, of the shards this run wrote; of a subset only."""
    report: Report
    catalog: str
    """URL of the STAC collection; empty where there is none."""
    seconds: float

    def document(self) -> dict[str, Any]:
        """Return the copy as plain data."""
        named = ("url", "patches", "objects", "bytes", "standing", "tiles", "catalog", "seconds")
        return {**{name: getattr(self, name) for name in named}, "report": self.report.document()}


def copy_cube(
    source: Target, to: Target, client: Client | None = None, *, where: str = "", watcher: Watcher = SILENT
) -> Copied:
    """Copy a cube object by object, or the patches that ``where`` chooses as a cube of their own, tile by tile.

    What an earlier run has left stays. The copy is verified before its root is written; ``report`` of the result says
    whether it passed. Raises ``TargetError`` if the target holds something else, ``RequestError`` if the source holds no
    cube, ``CorruptError`` if it is found damaged, ``StorageError`` if reading or writing fails for good.
    """
    started = time.monotonic()
    data, document = read_root(source)
    subset = plan_subset(source, data, document, where) if where else None
    work: Whole | Part = Part(source, to, subset) if subset else Whole(source, to, data, document)
    if to.complete() and to.cube.read(ROOT) != work.root:
        raise TargetError(f"{to.url} holds another cube: choose another place, or remove that cube first")
    with present(to), to.storing():
        if not to.complete():  # the very same cube may have been built there
            _claim(to, work.id)
        clear_unfinished(to)
        report, survey = _written(work, client, watcher)
        catalog = ""
        if report.passed:
            if not to.complete():
                stake_publication(to, work.id)
                to.cube.secure(entry.key for entry in to.cube.list())
                to.cube.keep(ROOT, work.root)
            catalog = work.publish(report, survey)
        to.build.keep(REPORT, json.dumps(report.document(), indent=1).encode())
    return Copied(
        url=to.url,
        patches=work.patches,
        objects=len(work.moved),
        bytes=sum(work.moved.values()),
        standing=work.standing,
        tiles=work.tiles,
        report=report,
        catalog=catalog,
        seconds=time.monotonic() - started,
    )


def _claim(to: Target, name: str) -> None:
    claim = standing_claim(to.build)
    if claim is None:
        if to.build.exists("plan.json") or any(True for _ in to.cube.list()):
            raise TargetError(f"{to.url} is not empty and no copy that was begun here: choose another place")
        with to.writable():
            claim = stake(to.build, None, name)
    if claim.plan != name:
        who = living_build(to.build)
        remedy = f"it is being written by {who}" if who else f"`cube clean {to.url}` removes it"
        raise TargetError(f"{to.url} holds an unfinished build, or the copy of something else: choose another place; {remedy}")


def _written(work: Whole | Part, client: Client | None, watcher: Watcher) -> tuple[Report, Survey | None]:
    """Write what is missing, verify, write once more what was found damaged; take a survey where the catalog needs one."""
    damaged: Damaged = set(), set()
    for _ in range(_ROUNDS):
        watcher.start("copying", work.patches)
        work.write(client, damaged, watcher)
        surveyor = work.surveyor()
        report = verify_unrooted(work.to, work.root, client, watcher=watcher, surveyor=surveyor)
        if report.passed:
            break
        named = {finding.where.rpartition(" in ")[2] for finding in report.findings}
        damaged = set(report.damaged), named
    return report, surveyor.survey() if surveyor is not None and report.passed else None
