"""Whose target it is: a row of numbered claims beside the cube, each written only where nobody else wrote it.

The whole claim with the highest number holds; one that a failing disk left empty or cut is passed over, and so is its number.
Whoever wants the target, or is about to publish its root, writes the next number; the store lets one writer do that, and the
other finds out that it was not first. No clock and no lock is needed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from cube.errors import TargetError
from cube.format.documents import parse_object
from cube.format.target import Target
from cube.store.protocol import Store

CLAIMS = "claims"
COPY = "copy-"
"""How the name of a copy begins, which stands in a claim where else the digest of a plan does."""
_KEY = re.compile(rf"{CLAIMS}/(\d{{6}})\.json")


@dataclass(frozen=True)
class Claim:
    """One entry of the row."""

    number: int
    plan: str
    """Digest of the plan that holds the target; empty where every claim is damaged."""
    publishing: bool = False
    """Whether the root is about to be written: from here on no other plan can come in between."""


def standing_claim(build: Store) -> Claim | None:
    """Return the claim that holds, with the highest number that was ever given; None where nobody has claimed anything."""
    numbers = [int(found[1]) for entry in build.list(CLAIMS) if (found := _KEY.fullmatch(entry.key))]
    for number in sorted(numbers, reverse=True):
        if (claim := _parse(number, build.read(_key(number)))) is not None:
            return replace(claim, number=max(numbers))
    return Claim(max(numbers), "") if numbers else None


def stake(build: Store, after: Claim | None, plan: str, *, publishing: bool = False) -> Claim:
    """Write the claim that follows ``after``, unless somebody was faster; return the one that stands then."""
    number = after.number + 1 if after else 1
    data = json.dumps({"plan": plan, "publishing": publishing}).encode()
    return _parse(number, build.write_new(_key(number), data)) or Claim(number, "")


def require_claim(target: Target, plan: str) -> None:
    """Raise ``TargetError`` if the target has been claimed for another plan than this one."""
    claim = standing_claim(target.build)
    if claim is not None and claim.plan not in (plan, ""):
        raise _taken(target, claim, plan)


def stake_publication(target: Target, plan: str) -> None:
    """Claim the right to write the root. Raises ``TargetError`` if another plan holds the target."""
    claim = standing_claim(target.build)
    if claim is None or (claim.plan in (plan, "") and not claim.publishing):
        claim = stake(target.build, claim, plan, publishing=True)
    if claim.plan != plan:
        raise _taken(target, claim, plan)


def _taken(target: Target, claim: Claim, plan: str) -> TargetError:
    return TargetError(
        f"{target.url} was taken over by a build of plan {claim.plan} while this one, of plan {plan}, ran: choose another --to"
    )


def _key(number: int) -> str:
    return f"{CLAIMS}/{number:06d}.json"


def _parse(number: int, data: bytes) -> Claim | None:
    """Return a stored claim; None for one that is damaged."""
    try:
        document = parse_object(data)
        return Claim(number, str(document["plan"]), bool(document["publishing"]))
    except (ValueError, LookupError):
        return None
