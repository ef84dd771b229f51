"""Targets that are free, ours or somebody else's, asked for by one build or by several."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from making import Built

from cube.convert.plan import Plan
from cube.convert.preparation import PLAN, claimed, prepare
from cube.errors import TargetError
from cube.format.target import Target, target_of
from cube.records import presence
from cube.records.claims import Claim, require_claim, stake, stake_publication, standing_claim
from cube.records.presence import clear_unfinished, living_build, other_signs, present
from cube.store.local import LocalStore


@dataclass(frozen=True)
class ReadOnly(LocalStore):
    """A folder in which nothing can be written."""

    def write(self, key: str, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    keep = write


@pytest.fixture(params=["local", "memory"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    return target_of(f"{'memory://' if request.param == 'memory' else ''}{tmp_path}/a.zarr")


@pytest.fixture
def plan(tiny_cube: Built) -> Plan:
    planned: Plan = tiny_cube.plan
    return planned


@pytest.fixture
def other(plan: Plan) -> Plan:
    return replace(plan, digest="other")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(presence, "_LOOK_SECONDS", 0.1)


def sign(target: Target, **facts: Any) -> None:
    """Leave the sign of life of another process."""
    document = {"host": "elsewhere", "namespace": "", "process": 1, "beat": 0, **facts}
    target.build.write("running/other.json", json.dumps(document).encode())


@pytest.mark.parametrize("name", ["cube", "build"])
def test_the_cube_and_the_build_records_must_both_be_writable(plan: Plan, tmp_path: Path, name: str) -> None:
    half = replace(target_of(str(tmp_path / "a.zarr")), **{name: ReadOnly(str(tmp_path / name))})
    with (
        pytest.raises(TargetError, match=r"a.zarr: cannot be written \(Permission denied\); choose another --to"),
        claimed(plan, half),
    ):
        pytest.fail("it can be written")


def test_claiming_keeps_the_plan_and_leaves_no_sign_behind(target: Target, plan: Plan) -> None:
    with claimed(plan, target):
        assert json.loads(target.build.read(PLAN))["digest"] == plan.digest
        assert len(list(target.build.list("running"))) == 1
    assert list(target.build.list("running")) == []
    assert standing_claim(target.build) == Claim(1, plan.digest)


def test_a_plan_without_a_finished_batch_stands_in_nobodys_way(target: Target, plan: Plan, other: Plan) -> None:
    prepare(plan, target)
    renamed = replace(other, recipe=plan.recipe.model_copy(update={"name": "renamed"}))
    prepare(renamed, target)
    assert json.loads(target.build.read(PLAN))["digest"] == "other"
    assert standing_claim(target.build) == Claim(2, "other")


def test_a_plan_of_an_earlier_version_without_a_claim_counts(target: Target, plan: Plan, other: Plan) -> None:
    prepare(plan, target)
    target.build.remove("claims/000001.json")
    target.build.write("receipts/x.json", b"{}")
    with pytest.raises(TargetError, match="1 of its 1 finished batches would be thrown away"):
        prepare(other, target)
    prepare(other, target, replace=True)
    assert standing_claim(target.build) == Claim(1, "other")
    assert list(target.build.list("receipts")) == []


def test_a_target_that_another_run_builds_is_refused(target: Target, plan: Plan, other: Plan, impatient: None) -> None:
    prepare(plan, target)
    sign(target)
    ended = threading.Event()

    def beat() -> None:
        number = 0
        while not ended.wait(0.05):
            sign(target, beat=(number := number + 1))

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        for options in ({}, {"replace": True}):
            with pytest.raises(TargetError, match=rf"is being built by another run \(elsewhere:1, plan {plan.digest}"):
                prepare(other, target, **options)
        prepare(plan, target)  # the same plan joins in
    finally:
        ended.set()
        beating.join()
    prepare(other, target)  # it has given no sign for long enough
    assert list(target.build.list("running")) == []


def test_a_process_of_this_machine_that_is_gone_needs_no_watching(target: Target, plan: Plan) -> None:
    prepare(plan, target)
    here = presence._self()
    sign(target, **{**here, "process": 2**22 + 1})
    assert other_signs(target.build) == {}
    with present(target):
        assert len(list(target.build.list("running"))) == 1  # the sign it left is taken away
    sign(target, **{**here, "process": os.getppid()})
    assert list(other_signs(target.build)) == ["running/other.json"]
    target.build.write("running/other.json", b"{}")
    assert list(other_signs(target.build)) == ["running/other.json"]
    target.build.write("running/other.json", b"damaged")  # a sign of the living is always whole
    assert other_signs(target.build) == {}


def test_a_beating_heart(target: Target, monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    monkeypatch.setattr(presence, "_is_own", lambda data: False)
    with present(target):
        assert living_build(target.build).endswith(f":{os.getpid()}")
    assert living_build(target.build) == ""


def test_one_of_many_claims(target: Target) -> None:
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda number: stake(target.build, None, f"plan {number}"), range(16)))
    assert len(set(got)) == 1
    assert standing_claim(target.build) == got[0]


def test_who_lost_the_target_writes_nothing_more(target: Target, plan: Plan) -> None:
    require_claim(target, plan.digest)
    first = stake(target.build, None, plan.digest)
    require_claim(target, plan.digest)
    stake(target.build, first, "other")
    for lost in (require_claim, stake_publication):
        with pytest.raises(TargetError, match="was taken over by a build of plan other while this one"):
            lost(target, plan.digest)


def test_nobody_comes_between_a_publication_and_its_root(target: Target, plan: Plan) -> None:
    first = stake(target.build, None, plan.digest)
    stake_publication(target, plan.digest)
    stake_publication(target, plan.digest)
    assert standing_claim(target.build) == Claim(2, plan.digest, publishing=True)
    assert stake(target.build, first, "other") == Claim(2, plan.digest, publishing=True)


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b'{"plan": 1'])
def test_a_damaged_claim_is_passed_over(target: Target, plan: Plan, other: Plan, content: bytes) -> None:
    prepare(plan, target)
    target.build.write("claims/000002.json", content)
    assert standing_claim(target.build) == Claim(2, plan.digest)
    prepare(other, target)
    assert standing_claim(target.build) == Claim(3, "other")
    for number in (1, 2, 3):
        target.build.write(f"claims/{number:06d}.json", content)
    assert standing_claim(target.build) == Claim(3, "")
    prepare(plan, target)
    assert standing_claim(target.build) == Claim(4, plan.digest)


def test_what_killed_runs_left_goes_unless_another_run_may_be_writing(tmp_path: Path) -> None:
    target = target_of(str(tmp_path / "a.zarr"))
    (tmp_path / "a.build/unfinished").mkdir(parents=True)
    left = tmp_path / "a.build/unfinished/.x.partial"
    left.write_bytes(b"x")
    sign(target)
    clear_unfinished(target)
    assert left.exists()
    target.build.remove("running/other.json")
    clear_unfinished(target)
    assert not left.exists()
