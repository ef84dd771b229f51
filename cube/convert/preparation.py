"""Before a cube is written: is the target free, ours, or somebody else's? Two builds may ask at the same moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import numpy as np

from cube.convert.growing import prepare_growth
from cube.convert.plan import Plan
from cube.errors import TargetError
from cube.format.layout import constant_arrays
from cube.format.small import write_array
from cube.format.target import Target
from cube.records.claims import COPY, Claim, stake, standing_claim
from cube.records.plans import PLAN, begun, keep_plan, plan_of_cube, remove_all, unwanted
from cube.records.presence import living_build, present

_TRIES = 8
"""Times a claim may be lost to others before giving up."""


@contextmanager
def claimed(plan: Plan, target: Target, *, replace: bool = False) -> Iterator[None]:
    """Hold a target for a plan until the block ends; other builds of the same plan may hold it too.

    Raises ``TargetError`` as ``prepare`` does.
    """
    grows = plan.base is not None
    with target.storing():
        if target.complete() and not grows:
            _require_own(plan, target)
    with present(target, plan.digest):
        with target.storing():
            (prepare_growth if grows else prepare)(plan, target, replace=replace)
        yield


def prepare(plan: Plan, target: Target, *, replace: bool = False) -> None:
    """Refuse a target that holds something else; claim it and keep the plan beside the cube.

    An unfinished build of another plan is taken over only where it does not run any more and nothing it wrote is lost by
    that, or where ``replace`` says so. Raises ``TargetError`` otherwise.
    """
    for _ in range(_TRIES):
        claim = _claim_of(target)
        if claim is None:
            _refuse_strangers(target)
        elif claim.plan != plan.digest:
            _refuse_others(plan, target, claim, replace=replace)
        # Only now: a build that runs no more has written its root before, or never will.
        if target.complete():
            _require_own(plan, target)
            return
        if claim is None or claim.plan != plan.digest:
            with target.writable():
                claim = stake(target.build, claim, plan.digest)
        if claim.plan == plan.digest:
            _settle(plan, target)
            return
    raise TargetError(f"{target.url}: other builds claim it again and again; choose another --to")


def _claim_of(target: Target) -> Claim | None:
    """Return the claim that holds; builds of earlier versions left a plan and no claim."""
    claim = standing_claim(target.build)
    if claim is None and target.build.exists(PLAN):
        return Claim(0, begun(target)[1])
    if claim is not None and not claim.plan:
        return replace(claim, plan=begun(target)[1])
    return claim


def _require_own(plan: Plan, target: Target) -> None:
    holds = plan_of_cube(target)
    if holds != plan.digest:
        raise TargetError(
            f"{target.url} holds another cube (plan {holds or 'unknown'}, this is plan {plan.digest}): "
            "give --grow to add patches to it, choose another --to, or remove that cube first"
        )
    if begun(target)[1] == plan.digest:
        return
    if not any(True for _ in target.build.list("receipts")):
        raise TargetError(f"{target.url} is complete, but its build records are gone: `cube verify` tells if it is sound")
    with target.writable():
        keep_plan(target, plan.document())


def _refuse_strangers(target: Target) -> None:
    strangers = [entry.key for entry in islice(target.cube.list(), 3)]
    if strangers and _claim_of(target) is None:
        raise TargetError(f"{target.url} is no cube and not empty ({', '.join(strangers)}, …): choose another --to")


def _refuse_others(plan: Plan, target: Target, claim: Claim, *, replace: bool) -> None:
    """Refuse to take over what another build still works on, or what would be lost."""
    if who := living_build(target.build):
        raise TargetError(
            f"{target.url} is being built by another run ({who}, plan {claim.plan}; this is plan {plan.digest}): "
            "choose another --to, or stop that run first"
        )
    if target.complete():
        return
    if claim.plan.startswith(COPY):
        raise TargetError(f"{target.url} holds an unfinished copy: choose another --to, or remove it with `cube clean`")
    recipe, _ = begun(target)
    there = [entry.key for entry in target.build.list("receipts")]
    if recipe not in (plan.recipe.name, "") and there:
        raise TargetError(f"{target.url} holds an unfinished build of recipe {recipe!r}: choose another --to")
    lost = unwanted(plan.batch_digests, there)
    if lost and not replace:
        raise TargetError(
            f"{target.url} holds an unfinished build of another plan: {len(lost):,} of its {len(there):,} finished batches "
            "would be thrown away. Give the options it was begun with, choose another --to, or give --replace"
        )


def _settle(plan: Plan, target: Target) -> None:
    """Remove what this plan does not want of an earlier one, show that the cube can be written, and keep the plan."""
    if begun(target)[1] == plan.digest:
        return
    with target.writable():
        expected = {key for spec in plan.arrays for key in spec.object_keys()}
        for store, keys in (
            (target.cube, [entry.key for entry in target.cube.list() if entry.key not in expected]),
            (target.build, unwanted(plan.batch_digests, [entry.key for entry in target.build.list("receipts")])),
        ):
            remove_all(store, keys)
        spec, values = next(iter(constant_arrays(plan.recipe)))
        write_array(target.cube, spec, np.asarray(values))  # a part of the cube, so that nothing needs to be taken away
        keep_plan(target, plan.document())
