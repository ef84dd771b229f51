"""What builds and copies that were given up have left: found, told, removed when asked to. A finished cube is never touched."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from cube.convert.undoing import undo_growth
from cube.errors import TargetError
from cube.format.documents import parse_object
from cube.format.target import Target, target_of
from cube.records.claims import CLAIMS, COPY, stake, standing_claim
from cube.records.plans import GROWTH, PLAN, batches, unfinished_growth
from cube.records.presence import RUNNING, clear_unfinished, living_build, other_signs, present
from cube.records.receipts import receipt_key
from cube.store.protocol import Store
from cube.store.urls import open_store


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """What one target holds that is no cube."""

    url: str
    kind: str
    """``build`` or ``copy``: unfinished, all of it can go. ``growth``: of a finished cube what was added can go. ``cube``:
    finished, only what was left beside it can go."""
    title: str
    """Recipe of a build."""
    done: int
    """Finished batches."""
    batches: int | None
    """Of so many; None where that is not known."""
    objects: int
    bytes: int
    uploads: int
    """Uploads in parts that were left unfinished; object stores keep them, and charge for them."""
    age: float | None
    """Seconds since the last object was written, by this machine's clock."""
    running: bool
    """Whether a sign of life says that it may still be worked on."""

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def find_leftovers(url: str, options: Mapping[str, Any] | None = None) -> list[Leftover]:
    """Return what was left at a target, or at every target right below a folder or prefix. Removes nothing."""
    return [left for target in targets_at(url, options) if (left := _leftover(target)) is not None]


def targets_at(url: str, options: Mapping[str, Any] | None = None) -> Iterator[Target]:
    """Yield the target named by a ``.zarr`` URL, or every one that has build records right below a folder or prefix."""
    if url.rstrip("/").endswith(".zarr"):
        yield target_of(url, options=options)
        return
    for name in open_store(url, options=options).folders():
        if name.endswith(".build") and name != ".build":
            yield target_of(posixpath.join(url, f"{name.removesuffix('.build')}.zarr"), options=options)


def remove_leftovers(target: Target) -> None:
    """Remove an unfinished build or copy, undo an unfinished growth, or remove what was left unfinished beside a cube.

    Raises ``TargetError`` if another run works on it.
    """
    if who := living_build(target.build):
        raise TargetError(f"{target.url} is being written by another run ({who}): stop that first")
    with target.storing():
        if target.complete():
            if unfinished_growth(target):
                with _claimed(target):
                    undo_growth(target)
            clear_unfinished(target)
            _give_up_uploads(target, remove=True)
            return
        with _claimed(target):
            if target.complete():
                raise TargetError(f"{target.url} was finished by another run at this very moment: it stays")
            _give_up_uploads(target, remove=True)
            _remove_all(target.cube)
            _remove_all(target.build)


@contextmanager
def _claimed(target: Target) -> Iterator[None]:
    """Hold a target until the block ends. Raises ``TargetError`` if another run claims it at the same moment."""
    claim = f"clean-{uuid4().hex}"
    with present(target, claim):
        if stake(target.build, standing_claim(target.build), claim).plan != claim:
            raise TargetError(f"{target.url} was claimed by another run at this very moment: look again")
        yield


def _leftover(target: Target) -> Leftover | None:
    cube, build = list(target.cube.list()), list(target.build.list())
    uploads = _give_up_uploads(target, remove=False)
    if target.complete():
        grows = bool(unfinished_growth(target))
        kept = {receipt_key(digest) for digest in batches(target.build)}
        mine = ("unfinished/", "receipts/") if grows else ("unfinished/",)
        build = [entry for entry in build if entry.key.startswith(mine) and entry.key not in kept]
        cube, kind = [], "growth" if grows else "cube"
        if not build and not uploads and not grows:
            return None
    elif build:
        claim = standing_claim(target.build)
        kind = "copy" if claim is not None and claim.plan.startswith(COPY) else "build"
    else:
        return None
    title, planned = _planned(target, GROWTH if kind == "growth" else PLAN) if kind in ("build", "growth") else ("", None)
    written = max((entry.modified for entry in (*cube, *build)), default=0.0)
    return Leftover(
        url=target.url,
        kind=kind,
        title=title,
        done=sum(entry.key.startswith("receipts/") for entry in build),
        batches=planned,
        objects=len(cube) + len(build),
        bytes=sum(max(0, entry.size) for entry in (*cube, *build)),
        uploads=uploads,
        age=time.time() - written if written else None,
        running=bool(other_signs(target.build)),
    )


def _planned(target: Target, name: str) -> tuple[str, int | None]:
    """Return the recipe of an unfinished build or growth and its number of batches, as far as that is known."""
    try:
        plan = parse_object(target.build.read(name))
        return str(plan["recipe"]["name"]), int(plan["tasks"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return "", None


def _give_up_uploads(target: Target, *, remove: bool) -> int:
    return sum(store.give_up_uploads(remove=remove) for store in (target.cube, target.build))


def _remove_all(store: Store) -> None:
    """Remove every object but signs of life; claims last, so that nobody takes for free what is not yet empty."""
    there = (entry.key for entry in store.list() if not entry.key.startswith(f"{RUNNING}/"))
    keys = sorted(there, key=lambda key: key.startswith(f"{CLAIMS}/"))
    for key in keys:
        with suppress(FileNotFoundError):
            store.remove(key)
