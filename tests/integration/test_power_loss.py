"""A machine that loses power: what was said to stand stands, and the next run finishes with the same bytes."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from making import MODALITIES, Made, make_patches, write_recipe
from making import Scene as MadeScene
from power import Disk, PowerLossError, watched

from cube.cli.main import main

SEED = 1970
NAME = "tiny"
WORK = ("build", "copy", "part")
RUNS, RUNS_OF_JUDGES = 5, 200


@dataclass
class Ground:
    """What is built and copied, and what comes of it when nothing disturbs."""

    folder: Path
    made: Made
    recipe: Path
    source: Path
    """A finished cube, to be copied."""
    whole: dict[str, dict[str, bytes]]
    """Kind of work → every file of the cube and of its catalog."""
    calls: dict[str, int]
    """Kind of work → how many calls it takes."""

    def words(self, work: str, to: Path) -> list[str]:
        """Return a command."""
        if work == "build":
            files = ["--source", str(self.made.folder), "--sample", "0"]
            return ["build", str(self.recipe), *files, "--to", str(to), "--workers", "0"]
        part = ["--where", "patch=*_p1 or patch=*_p2 or patch=*_p5"] if work == "part" else []
        return ["copy", str(self.source), str(to), *part, "--workers", "0"]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a cube and of its catalog."""
    trees = (folder / f"{NAME}.zarr", folder / f"{NAME}.stac")
    return {str(path.relative_to(folder)): path.read_bytes() for tree in trees for path in tree.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("power")
    made = make_patches(folder / "files", [MadeScene("fall", 3, rows=2, columns=4, first=0)])
    given = Ground(folder, made, write_recipe(folder / "tiny.yaml", shard=4), folder / "source" / "tiny.zarr", {}, {})
    for work in WORK:
        here = folder / work
        with watched(here, folder / f"{work}-kept") as disk:
            result = CliRunner().invoke(main, given.words(work, here / f"{NAME}.zarr"))
        assert result.exit_code == 0, result.output
        given.whole[work], given.calls[work] = contents(here), len(disk.calls)
        if work == "build":
            shutil.copytree(here, given.source.parent)
    return given


@pytest.mark.parametrize("work", WORK)
def test_what_vouches_for_others_comes_after_them(ground: Ground, tmp_path: Path, work: str) -> None:
    here, seen = tmp_path / "disk", []

    def watch(what: str, path: str) -> None:
        parts = Path(path).parts
        if what == "replace" and parts[1:2] == ("receipts",):
            shards = [
                file for name in (*MODALITIES, "originals/header") for file in (cube / name / "c").rglob("*") if file.is_file()
            ]
            assert shards
            assert all(disk.secure(file) for file in shards)
            seen.append("receipt")
        elif what == "replace" and path == f"{NAME}.zarr/zarr.json":
            assert all(disk.secure(file) for file in cube.rglob("*") if file.is_file())
            seen.append("root")
        elif what == "replace" and path == f"{NAME}.stac/catalog.json":
            assert all(disk.secure(file) for file in (here / f"{NAME}.stac").rglob("*") if file.is_file())
            seen.append("catalog")

    cube = here / f"{NAME}.zarr"
    with watched(here, tmp_path / "kept") as disk:
        disk.watch = watch
        assert CliRunner().invoke(main, ground.words(work, cube)).exit_code == 0
    assert seen == [*["receipt"] * {"build": 2, "copy": 0, "part": 1}[work], "root", "catalog"]
    assert all(disk.secure(file) for file in cube.rglob("*") if file.is_file())
    assert all(disk.secure(here / f"{NAME}.{name}") for name in ("stac/collection.json", "build/report.json"))


def lose(ground: Ground, work: str, folder: Path, fails_at: int | None, rng: random.Random) -> Disk:
    """Run a command until the power fails, or until it says that all is well and the power fails then."""
    with watched(folder / "disk", folder / "kept", fails_at) as disk:
        try:
            result = CliRunner().invoke(main, ground.words(work, folder / "disk" / f"{NAME}.zarr"))
            assert result.exit_code == 0, result.output
        except PowerLossError:
            pass
    disk.after(rng)
    return disk


def outlast(ground: Ground, folder: Path, seed: int) -> None:
    """Lose power once or twice at random, then finish."""
    rng = random.Random(seed)
    work, cube = rng.choice(WORK), folder / "disk" / f"{NAME}.zarr"
    for again in range(rng.choice((1, 1, 2))):
        (folder / "disk").mkdir(parents=True, exist_ok=True)
        lose(ground, work, folder, rng.randrange(ground.calls[work]), rng)
        shutil.rmtree(folder / "kept")
        if (cube / "zarr.json").exists():
            checked = CliRunner().invoke(main, ["verify", str(cube), "--workers", "0"])
            assert checked.exit_code == 0, (seed, again, checked.output)
    result = CliRunner().invoke(main, ground.words(work, cube))
    assert result.exit_code == 0, (seed, work, result.output)
    assert contents(folder / "disk") == ground.whole[work], (seed, work)


@pytest.mark.parametrize("run", range(RUNS))
def test_after_a_loss_of_power_the_next_run_finishes(ground: Ground, tmp_path: Path, run: int) -> None:
    outlast(ground, tmp_path, SEED + run)


@pytest.mark.judges
@pytest.mark.timeout(1800)
def test_after_every_loss_of_power_the_next_run_finishes(ground: Ground, tmp_path: Path) -> None:
    for run in range(RUNS_OF_JUDGES):
        outlast(ground, tmp_path / str(run), 10 * SEED + run)
        shutil.rmtree(tmp_path / str(run))


@pytest.mark.parametrize("work", WORK)
def test_what_was_said_to_be_sound_is_so_after_a_loss_of_power(ground: Ground, tmp_path: Path, work: str) -> None:
    lose(ground, work, tmp_path, None, random.Random(SEED))
    assert contents(tmp_path / "disk") == ground.whole[work]


@pytest.mark.parametrize("content", [b"", b'{"plan": "', b"\0" * 40, None], ids=["empty", "cut", "zeros", "gone"])
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_any_file_beside_a_cube_may_be_damaged(ground: Ground, tmp_path: Path, content: bytes | None, finished: bool) -> None:
    shutil.copytree(ground.source.parent, tmp_path / "whole")
    if not finished:
        (tmp_path / "whole" / "tiny.zarr" / "zarr.json").unlink()
    for path in sorted((tmp_path / "whole" / "tiny.build").rglob("*.*")):
        here = tmp_path / "here"
        shutil.copytree(tmp_path / "whole", here)
        damaged = here / path.relative_to(tmp_path / "whole")
        damaged.unlink()
        if content is not None:
            damaged.write_bytes(content)
        result = CliRunner().invoke(main, ground.words("build", here / "tiny.zarr"))
        assert result.exit_code == 0, (path, result.output)
        assert contents(here) == ground.whole["build"], path
        shutil.rmtree(here)
