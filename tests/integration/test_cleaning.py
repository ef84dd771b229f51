"""What was given up is listed and removed; a finished cube and a running build are never touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from making import Built, build, write_recipe
from servers import S3Server, close_connections, seaweedfs

from cube.cli.main import main
from cube.errors import TargetError
from cube.format.target import target_of
from cube.jobs.clean import find_leftovers, remove_leftovers
from cube.records import presence
from cube.records.claims import Claim, stake, standing_claim
from cube.verify.verification import verify_cube


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    close_connections()
    with seaweedfs(tmp_path_factory.mktemp("seaweed")) as running, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running
    close_connections()


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, server: S3Server, tmp_path: Path) -> str:
    return str(tmp_path / "cubes") if request.param == "disk" else f"s3://private/{os.urandom(4).hex()}"


@pytest.fixture
def left(place: str, tiny_cube: Built, made: Any, tmp_path: Path) -> str:
    """A folder or prefix with a finished cube, a build that was killed before its last batch, and a copy that was."""
    recipe = write_recipe(tmp_path / "tiny.yaml")
    for name in ("done", "killed"):
        build(recipe, made.folder, f"{place}/{name}.zarr")
    killed, copied = target_of(f"{place}/killed.zarr"), target_of(f"{place}/copied.zarr")
    killed.cube.remove("zarr.json")
    killed.cube.remove("s2/c/1/0/0/0")
    last = next(key for key in (entry.key for entry in killed.build.list("receipts")))
    killed.build.remove(last)
    stake(copied.build, None, "copy-x")
    copied.cube.write("s2/c/0/0/0/0", b"12345")
    return place


def clean(*words: str) -> Any:
    return CliRunner().invoke(main, ["clean", *words])


def keys(url: str) -> list[str]:
    target = target_of(url)
    return [entry.key for store in (target.cube, target.build) for entry in store.list()]


def test_listing_removes_nothing(left: str) -> None:
    before = {name: keys(f"{left}/{name}.zarr") for name in ("done", "killed", "copied")}
    said = clean(left)
    assert said.exit_code == 0, said.output
    copied, killed, last = said.stdout.splitlines()
    assert copied.startswith(f"{left}/copied.zarr: unfinished copy, 2 objects with ")
    assert killed.startswith(f"{left}/killed.zarr: unfinished build of tiny, 1 of 2 batches, ")
    assert "last written" in copied
    assert "last written" in killed
    assert last == "Nothing was removed; the same command with --yes does that."
    assert {name: keys(f"{left}/{name}.zarr") for name in before} == before


def test_removing_takes_all_but_what_is_finished(left: str, made: Any, tmp_path: Path) -> None:
    done = keys(f"{left}/done.zarr")
    document = json.loads(clean(left, "--yes", "--json").stdout)
    assert document["removed"]
    assert [(item["kind"], item["title"], item["done"], item["batches"]) for item in document["found"]] == [
        ("copy", "", 0, None), ("build", "tiny", 1, 2)
    ]  # fmt: skip
    assert all(0 <= item["age"] < 600 and not item["running"] for item in document["found"])
    assert keys(f"{left}/killed.zarr") == keys(f"{left}/copied.zarr") == []
    assert keys(f"{left}/done.zarr") == done
    assert verify_cube(target_of(f"{left}/done.zarr")).passed
    assert clean(left).stdout == f"{left}: nothing was left unfinished\n"
    assert clean(f"{left}/done.zarr", "--yes").stdout == f"{left}/done.zarr: nothing was left unfinished\n"
    again = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, f"{left}/copied.zarr")
    assert verify_cube(again.target).passed


def test_uploads_that_were_given_up_go_and_the_cube_stays(server: S3Server, made: Any, tmp_path: Path) -> None:
    built = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, "s3://private/uploads/a.zarr")
    before = keys(built.url)
    for key in ("uploads/a.zarr/s2/c/0/0/0/0", "uploads/a.zarr/s2/c/1/0/0/0", "other/object"):
        server.client().create_multipart_upload(Bucket="private", Key=key)
    (found,) = find_leftovers("s3://private/uploads")
    assert (found.kind, found.uploads) == ("cube", 2)
    said = clean("s3://private/uploads", "--yes").stdout
    assert said.startswith(
        "s3://private/uploads/a.zarr: finished cube, which stays; left beside it, 0 objects with 0 B, 2 unfinished"
    )
    assert keys(built.url) == before
    assert find_leftovers("s3://private/uploads") == []
    uploads = server.client().list_multipart_uploads(Bucket="private")["Uploads"]
    assert [upload["Key"] for upload in uploads] == ["other/object"]


def test_files_that_were_being_written_go_and_the_cube_stays(made: Any, tmp_path: Path) -> None:
    built = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "a.zarr")
    partial = tmp_path / "a.build/unfinished/.x.partial"
    partial.write_bytes(b"123")
    assert "left beside it, 1 object with 3 B" in clean(str(tmp_path), "--yes").stdout
    assert not partial.exists()
    assert verify_cube(built.target).passed


def test_a_build_that_may_be_running_is_left_alone(left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_LOOK_SECONDS", 0.05)
    target = target_of(f"{left}/killed.zarr")
    beats = iter(range(10**6))

    def beating(build: Any) -> dict[str, bytes]:
        return {"running/x.json": b'{"host": "far", "process": 7, "beat": %d}' % next(beats)}

    before = keys(target.url)
    for module in ("records.presence", "jobs.clean"):
        monkeypatch.setattr(f"cube.{module}.other_signs", beating)
    assert "may still be running" in clean(target.url).stdout
    said = clean(target.url, "--yes")
    assert said.exit_code == 2
    assert "is being written by another run (far:7): stop that first" in said.stderr
    assert keys(target.url) == before


def test_who_comes_at_the_same_moment_keeps_the_target(left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of(f"{left}/killed.zarr")
    standing = standing_claim(target.build)
    assert isinstance(standing, Claim)
    stake(target.build, standing, "faster")
    monkeypatch.setattr("cube.jobs.clean.standing_claim", lambda build: standing)
    before = keys(target.url)
    with pytest.raises(TargetError, match="was claimed by another run at this very moment"):
        remove_leftovers(target)
    assert keys(target.url) == before


def test_nothing_anywhere(tmp_path: Path) -> None:
    assert clean(str(tmp_path / "none")).stdout.endswith("nothing was left unfinished\n")
