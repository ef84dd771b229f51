"""Two builds of one target, started together: one wins, or both write the same bytes. Never a mixture."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from making import Built, Made, build, write_recipe
from servers import S3Server, seaweedfs

from cube.format.target import target_of
from cube.jobs.diff import difference
from cube.read.opened import open_certified
from cube.verify.verification import verify_cube

_BUILDER = """
import json, sys
from click.testing import CliRunner
from cube.cli.main import main
print("ready", flush=True)
for line in sys.stdin:
    result = CliRunner().invoke(main, json.loads(line))
    print(json.dumps([result.exit_code, result.stdout, result.stderr]), flush=True)
"""
_REFUSALS = "being built by another run|holds another cube|holds an unfinished build|was taken over by|claim it again and again"

Ends = list[tuple[int, str, str]]


class Builders:
    """Two processes that have imported everything and wait for a command."""

    def __init__(self, processes: list[subprocess.Popen[str]], server: S3Server) -> None:
        self.processes, self.server = processes, server

    def run(self, *commands: list[str]) -> Ends:
        """Start one command in each process at once; return exit code, output and errors of each."""
        for process, command in zip(self.processes, commands, strict=True):
            assert process.stdin is not None
            options = ["--workers", "0", "--sample", "0", "--json"] if command[0] == "build" else []
            process.stdin.write(json.dumps([*command, *options]) + "\n")
            process.stdin.flush()
        return [tuple(json.loads(process.stdout.readline())) for process in self.processes if process.stdout is not None]


@pytest.fixture(scope="module")
def builders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builders]:
    with ExitStack() as stack:
        server = stack.enter_context(seaweedfs(tmp_path_factory.mktemp("seaweed")))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = {**os.environ, **server.environment}
        command = [sys.executable, "-c", _BUILDER]
        processes = [stack.enter_context(subprocess.Popen(command, env=environment, **pipes)) for _ in range(2)]
        for process in processes:
            stack.callback(process.stdin.close)
            assert process.stdout.readline() == "ready\n"
        yield Builders(processes, server)


@pytest.fixture(scope="module")
def wholes(tiny_cube: Built, made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Plan → the objects of its cube, as one build alone writes them."""
    folder = tmp_path_factory.mktemp("wholes")
    recipe = write_recipe(folder / "tiny.yaml")
    recipe.write_text(recipe.read_text().replace("labels: 64}", "labels: 64, profile: fast}"))
    fast = build(recipe, made.folder, folder / "fast.zarr")
    assert fast.plan.digest != tiny_cube.plan.digest
    return {each.plan.digest: objects_of(Path(each.url)) for each in (tiny_cube, fast)}


def objects_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stored(builders: Builders, to: str) -> dict[str, bytes]:
    if to.startswith("s3://"):
        bucket, _, prefix = to.removeprefix("s3://").partition("/")
        return builders.server.objects(bucket, f"{prefix}/")
    return objects_of(Path(to))


def hold_against(whole: dict[str, bytes], there: dict[str, bytes], ends: Ends) -> None:
    """Hold what two builds left against what one build alone writes, and look at what the loser said, if one lost."""
    assert there.keys() == whole.keys()
    assert [key for key in whole if there[key] != whole[key]] == []
    for code, output, errors in ends:
        if code != 0:
            assert (code, output) == (2, ""), errors
            assert re.search(f"cube: .*({_REFUSALS})", errors.splitlines()[-1]), errors


def pairs(count: int) -> list[tuple[str, str, int]]:
    return [(place, plans, number) for place in ("disk", "s3") for plans in ("same", "different") for number in range(count)]


@pytest.fixture
def contest(builders: Builders, wholes: dict[str, dict[str, bytes]], made: Made, tmp_path: Path) -> Callable[..., None]:
    """Start two builds of one target together, and check what they leave and say."""

    def check(place: str, plans: str, number: int) -> None:
        to = str(tmp_path / "x.zarr") if place == "disk" else f"s3://public/{plans}-{number}-{os.urandom(4).hex()}.zarr"
        command = ["build", str(write_recipe(tmp_path / "tiny.yaml")), "--source", str(made.folder), "--to", to]
        other = [*command, "--profile", "fast" if plans == "different" else "balanced"]
        ends = builders.run(*((command, other) if number % 2 else (other, command)))
        assert sorted(code for code, _, _ in ends) == ([0, 0] if plans == "same" else [0, 2]), ends
        winners = [json.loads(output) for code, output, _ in ends if code == 0]
        assert len({winner["plan"] for winner in winners}) == 1
        assert all(winner["report"]["passed"] for winner in winners)
        hold_against(wholes[winners[0]["plan"]], stored(builders, to), ends)

    return check


@pytest.mark.parametrize("pair", pairs(1), ids=str)
def test_two_builders_started_together(contest: Callable[..., None], pair: tuple[str, str, int]) -> None:
    contest(*pair)


@pytest.mark.judges
@pytest.mark.parametrize("pair", pairs(5), ids=str)
def test_two_builders_started_together_twenty_times(contest: Callable[..., None], pair: tuple[str, str, int]) -> None:
    contest(*pair)


@pytest.fixture
def race(builders: Builders, made: Made, tmp_path: Path) -> Callable[..., None]:
    """Let one cube grow twice at once, and check that one wins, that the other says so, and what is there in the end."""

    def check(place: str, plans: str, number: int) -> None:
        recipe = write_recipe(tmp_path / "tiny.yaml")
        base, whole = tmp_path / "base.zarr", tmp_path / "whole.zarr"
        build(recipe, made.folder, whole)
        source = ["build", str(recipe), "--source", str(made.folder), "--grow"]
        to = str(base) if place == "disk" else f"s3://public/grown-{plans}-{number}-{os.urandom(4).hex()}.zarr"
        begin = [*source, "--to", to, "--where", "season=spring and scene=1"]
        ends = builders.run(begin, [*begin[:-3], str(tmp_path / "other.zarr"), *begin[-2:]])
        assert [code for code, _, _ in ends] == [0, 0]
        wheres = ["scene=15", "season=summer" if plans == "different" else "scene=15"]
        commands = [[*source, "--to", to, "--where", where] for where in (wheres if number % 2 else reversed(wheres))]
        ends = builders.run(*commands)
        codes = [code for code, _, _ in ends]
        assert 0 in codes
        for code, output, errors in ends:
            assert code in (0, 2), (output, errors)
            if code:
                assert output == ""
                said = "is being written by another run|was changed by another run|was taken over by|claim it again and again"
                assert re.search(f"cube: .*({said})", errors.splitlines()[-1]), errors
        again = [[*source, "--to", to], ["diff", str(tmp_path / "other.zarr"), str(tmp_path / "other.zarr")]]
        (code, output, errors), _ = builders.run(*again)
        assert code == 0, errors
        assert json.loads(output)["report"]["passed"]
        (tmp_path / "there").mkdir()
        for key, data in stored(builders, to).items():
            path = tmp_path / "there" / "x.zarr" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        assert verify_cube(target_of(str(tmp_path / "there" / "x.zarr")), source=str(made.folder)).passed
        grown, once = (open_certified(str(path)) for path in (tmp_path / "there" / "x.zarr", whole))
        assert not difference(grown, once).any

    return check


@pytest.mark.parametrize("pair", [("disk", "different", 0), ("s3", "same", 0)], ids=str)
def test_two_growths_at_once(race: Callable[..., None], pair: tuple[str, str, int]) -> None:
    race(*pair)


@pytest.mark.judges
@pytest.mark.parametrize("pair", pairs(4), ids=str)
def test_two_growths_at_once_again_and_again(race: Callable[..., None], pair: tuple[str, str, int]) -> None:
    race(*pair)
