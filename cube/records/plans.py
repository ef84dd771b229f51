"""What plan a target is written by: that of a finished cube, of an unfinished build, and of a growth that is not finished.

The plan of a growth lies beside that of the cube it adds to until its root stands, so that it can be undone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from cube.format.certificate import sealed
from cube.format.documents import parse_object
from cube.format.target import ROOT, Target
from cube.records.receipts import receipt_key
from cube.store.protocol import Readable, Store

PLAN = "plan.json"
GROWTH = "growth.json"


def plan_of_cube(target: Target) -> str | None:
    """Return the plan a finished cube was built by: its root says so, or where that is damaged, the records beside it."""
    root = target.cube.read(ROOT)
    try:
        told = root if sealed(root) else target.build.read(PLAN)
        document = parse_object(told)
        return str(document["attributes"]["cube"]["plan"] if told is root else document["digest"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def begun(target: Target, name: str = PLAN) -> tuple[str, str]:
    """Return recipe and digest of the plan of an unfinished build, or growth; empty texts where it is damaged or gone."""
    try:
        before = parse_object(target.build.read(name))
        return str(before["recipe"]["name"]), str(before["digest"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return "", ""


def batches(build: Readable, name: str = PLAN) -> list[str]:
    """Return the digests of the batches of a plan; none where it is damaged or gone."""
    try:
        listed = parse_object(build.read(name))["batches"]
    except (FileNotFoundError, ValueError, LookupError):
        return []
    return [str(digest) for digest in listed] if isinstance(listed, list) else []


def unfinished_growth(target: Target) -> str:
    """Return the digest of the plan of a growth that has not ended; an empty text where there is none."""
    digest = begun(target, GROWTH)[1]
    return "" if digest == plan_of_cube(target) else digest


def unwanted(digests: Iterable[str], receipts: list[str]) -> list[str]:
    """Return the keys of receipts that are of none of these batches."""
    wanted = {receipt_key(digest) for digest in digests}
    return [key for key in receipts if key not in wanted]


def remove_all(store: Store, keys: Iterable[str]) -> None:
    """Remove objects; another run of the same plan may do the same."""
    for key in keys:
        with suppress(FileNotFoundError):
            store.remove(key)


def keep_plan(target: Target, document: Mapping[str, Any], name: str = PLAN) -> None:
    """Keep a plan with the build records."""
    target.build.keep(name, json.dumps(document, indent=1).encode())
