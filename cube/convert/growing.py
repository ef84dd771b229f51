"""Before a cube grows: is it the one that was planned for, and does nobody else write there? And what is tidied up after."""

from __future__ import annotations

from cube.convert.growth import require_documents
from cube.convert.plan import Plan
from cube.convert.standing import Standing, read_standing
from cube.errors import TargetError
from cube.format.documents import parse_object
from cube.format.target import Target
from cube.records.claims import Claim, stake, standing_claim
from cube.records.plans import GROWTH, PLAN, batches, begun, keep_plan, plan_of_cube, remove_all, unfinished_growth, unwanted
from cube.records.presence import living_build

_TRIES = 8
"""Times a claim may be lost to others before giving up."""


def prepare_growth(plan: Plan, target: Target, *, replace: bool = False) -> None:
    """Claim a finished cube for a plan that adds to it, and keep the plan beside that of the cube.

    An unfinished growth by another plan is taken over only where it does not run any more and nothing it wrote is lost by
    that, or where ``replace`` says so. Raises ``TargetError`` otherwise, and where the cube is another than was planned for.
    """
    for _ in range(_TRIES):
        claim = standing_claim(target.build)
        standing = require_base(plan, target)
        if claim is None or claim.plan != plan.digest:
            _refuse_others(plan, target, claim, replace=replace)
            with target.writable():
                claim = stake(target.build, claim, plan.digest)
        if claim.plan == plan.digest:
            require_documents(standing)
            _settle(plan, target, standing)
            return
    raise TargetError(f"{target.url}: other runs claim it again and again; run again later")


def require_base(plan: Plan, target: Target) -> Standing:
    """Return the cube that a plan adds to. Raises ``TargetError`` if it is not the one that was planned for any more."""
    standing = read_standing(target)
    if plan.base is None or standing.digest != plan.base.root:
        raise TargetError(f"{target.url} was changed by another run since this growth was planned: run again")
    return standing


def _refuse_others(plan: Plan, target: Target, claim: Claim | None, *, replace: bool) -> None:
    if claim is not None and (who := living_build(target.build, claim.plan)):
        raise TargetError(f"{target.url} is being written by another run ({who}): wait until it ends, and run again")
    other = unfinished_growth(target)
    if other in ("", plan.digest) or replace or claim is None or claim.plan not in (other, ""):
        return  # what another run has begun since this claim was read is told by its own, which comes before this one's
    there = [entry.key for entry in target.build.list("receipts")]
    if lost := unwanted([*plan.batch_digests, *batches(target.build)], there):
        raise TargetError(
            f"{target.url} holds an unfinished growth by other files: {len(lost):,} finished batches would be thrown away. "
            "Give the options it was begun with, undo it with `cube clean`, or give --replace"
        )


def _settle(plan: Plan, target: Target, standing: Standing) -> None:
    """Remove what neither the cube nor this plan wants of an earlier growth, and keep the plan."""
    if begun(target, GROWTH)[1] == plan.digest:
        return
    with target.writable():
        expected = {key for spec in (*plan.arrays, *standing.specs.values()) for key in spec.object_keys()}
        expected |= {f"{path}/zarr.json" for path in standing.document["consolidated_metadata"]["metadata"]} | {"zarr.json"}
        remove_all(target.cube, [entry.key for entry in target.cube.list() if entry.key not in expected])
        there = [entry.key for entry in target.build.list("receipts")]
        remove_all(target.build, unwanted([*plan.batch_digests, *batches(target.build)], there))
        keep_plan(target, plan.document(), GROWTH)


def end_growth(target: Target) -> None:
    """Have the plan of a growth whose root stands take the place of that of the cube before."""
    try:
        document = parse_object(target.build.read(GROWTH))
    except (FileNotFoundError, ValueError):
        return  # there is none, or another run of the same plan was faster
    if document.get("digest") == plan_of_cube(target):
        keep_plan(target, document, PLAN)
        there = [entry.key for entry in target.build.list("receipts")]
        remove_all(target.build, unwanted(batches(target.build), there))
        remove_all(target.build, [GROWTH])
