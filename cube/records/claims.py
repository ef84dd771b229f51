"""Whose target it is: a row of numbered claims beside the cube, each written only where nobody else wrote it.

The claim with the highest number holds. Whoever wants the target, or is about to publish its root, writes the next number;
the store lets one writer do that, and the other finds out that it was not first. No clock and no lock is needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cube.errors import TargetError
from cube.format.documents import parse_object
from cube.format.target import Target
from cube.store.protocol import Store

CLAIMS = "claims"
COPY = "copy-"
"""How the name of a copy begins, which stands in a claim where else the digest of a plan does."""


@dataclass(frozen=True)
class Claim:
    """One entry of the row."""

    number: int
    plan: str
    """Digest of the plan that holds the target."""
    publishing: bool = False
    """Whether the root is about to be written: from here on no other plan can come in between."""


def standing_claim(build: Store) -> Claim | None:
    """Return the claim that holds; None where nobody has claimed anything."""
    keys = [entry.key for entry in build.list(CLAIMS) if entry.key.endswith(".json")]
    return _read(build, max(keys), build.read(max(keys))) if keys else None


def stake(build: Store, after: Claim | None, plan: str, *, publishing: bool = False) -> Claim:
    """Write the claim that follows ``after``, unless somebody was faster; return the one that stands then."""
    key = f"{CLAIMS}/{after.number + 1 if after else 1:06d}.json"
    data = json.dumps({"plan": plan, "publishing": publishing}).encode()
    return _read(build, key, build.write_new(key, data))


def require_claim(target: Target, plan: str) -> None:
    """Raise ``TargetError`` if the target has been claimed for another plan than this one."""
    claim = standing_claim(target.build)
    if claim is not None and claim.plan != plan:
        raise _taken(target, claim, plan)


def stake_publication(target: Target, plan: str) -> None:
    """Claim the right to write the root. Raises ``TargetError`` if another plan holds the target."""
    claim = standing_claim(target.build)
    if claim is None or (claim.plan == plan and not claim.publishing):
        claim = stake(target.build, claim, plan, publishing=True)
    if claim.plan != plan:
        raise _taken(target, claim, plan)


def _taken(target: Target, claim: Claim, plan: str) -> TargetError:
    return TargetError(
        f"{target.url} was taken over by a build of plan {claim.plan} while this one, of plan {plan}, ran: choose another --to"
    )


def _read(build: Store, key: str, data: bytes) -> Claim:
    try:
        document = parse_object(data)
        number = int(key.rpartition("/")[2].removesuffix(".json"))
        return Claim(number, str(document["plan"]), bool(document["publishing"]))
    except (ValueError, LookupError, TypeError):
        raise TargetError(
            f"{build.url}/{key} is damaged: choose another --to, or remove what is there with `cube clean`"
        ) from None
