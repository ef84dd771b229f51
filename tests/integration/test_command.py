"""The command as people run it: processes of its own, exit codes, results on stdout, progress on stderr."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from click.testing import CliRunner
from distributed import LocalCluster
from making import MODALITIES, Made, Scene, make_patches, write_recipe

from cube import __version__
from cube.cli.main import main
from cube.recipes.bundled import recipe_names

SCENES = (Scene("spring", 15, rows=3, columns=4), Scene("winter", 2, rows=2, columns=4, epsg=32737))
PATCHES = 20


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_patches(tmp_path_factory.mktemp("files") / "patches", SCENES)


@pytest.fixture(scope="module")
def recipe(files: Made) -> Path:
    return write_recipe(files.folder.parent / "tiny.yaml", shard=4)


@pytest.fixture(scope="module")
def built(files: Made, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A cube built by two worker processes, and what the command said."""
    to = tmp_path_factory.mktemp("built") / "a.zarr"
    return to, cube("build", recipe, "--source", files.folder, "--to", to, "--workers", 2)


def cube(*words: Any, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, warnings being errors, and expect an exit code."""
    command = [sys.executable, "-m", "cube", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment})
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def receipts(to: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in to.with_suffix(".build").joinpath("receipts").glob("*.json")]
    return sorted(found, key=lambda receipt: receipt["index"])


def objects(to: Path) -> dict[str, bytes]:
    return {str(path.relative_to(to)): path.read_bytes() for path in sorted(to.rglob("*")) if path.is_file()}


def test_a_build_by_two_workers(built: tuple[Path, subprocess.CompletedProcess[str]], files: Made) -> None:
    to, _ = built
    opened = xr.open_zarr(to)
    for name in MODALITIES:
        np.testing.assert_array_equal(opened[name].values, files.array(name))
    workers = {receipt["worker"] for receipt in receipts(to)}
    assert 1 <= len(workers) <= 2
    assert all(re.fullmatch(r".+:\d+", worker) for worker in workers)
    assert len(receipts(to)) == 5
    assert not list(to.parent.rglob("*.partial"))


def test_results_come_on_stdout_and_progress_on_stderr(built: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    to, done = built
    assert f"Wrote {to}: 20 patches in " in done.stdout
    assert "predicted" in done.stdout
    assert f"{to} is sound:" in done.stdout
    assert f"Catalog: {to.with_suffix('.stac')}" in done.stdout
    assert "patches/s" not in done.stdout
    assert re.search(r"^writing 20 of 20 patches · .* patches/s · .* MB/s · 0\.0 s left · 0 rejected$", done.stderr, re.M)
    assert re.search(r"^verifying 20 of 20 patches · .* MB/s · 0\.0 s left · 0 rejected$", done.stderr, re.M)
    assert "20 patches in 1 of" not in done.stderr
    assert re.search(r"spring +12 of 40,883 patches in 1 of 56 scenes, 40,871 missing$", done.stderr, re.M)
    assert re.search(r"summer +0 of 45,753 patches in 0 of 65 scenes, 45,753 missing$", done.stderr, re.M)
    assert "\r" not in done.stderr


def test_the_same_command_again_writes_nothing(
    built: tuple[Path, subprocess.CompletedProcess[str]], files: Made, recipe: Path
) -> None:
    to, _ = built
    before = {path: path.stat().st_mtime_ns for path in to.rglob("*") if path.is_file()}
    again = cube("build", recipe, "--source", files.folder, "--to", to, "--workers", 1, "--json")
    document = json.loads(again.stdout)
    assert document["resumed"] == 5
    assert document["report"]["passed"] is True
    assert document["patches"] == PATCHES
    assert {path: path.stat().st_mtime_ns for path in to.rglob("*") if path.is_file()} == before


def test_resuming_writes_what_is_missing_and_no_more(files: Made, recipe: Path, tmp_path: Path) -> None:
    to = tmp_path / "a.zarr"
    command = ["build", recipe, "--source", files.folder, "--to", to, "--workers", 2, "--sample", 0]
    cube(*command)
    expected = objects(to)
    (to / "zarr.json").unlink()
    (to / "s2/c/3/0/0/0").unlink()
    (tmp_path / "a.build/receipts" / f"{receipts(to)[1]['batch']}.json").unlink()
    times = {path: path.stat().st_mtime_ns for path in to.glob("s?/c/*/0/0/0")}
    again = cube(*command)
    assert "(3 of 5 batches stood from an earlier run)" in again.stdout
    assert objects(to) == expected
    changed = {path.parts[-4] for path in times if path.stat().st_mtime_ns != times[path]}
    assert changed == {"1", "3"}


def test_verify(built: tuple[Path, subprocess.CompletedProcess[str]], files: Made) -> None:
    to, _ = built
    alone = cube("verify", to, "--workers", 2)
    assert f"{to} is sound:" in alone.stdout
    assert "against" not in alone.stdout
    assert "verifying 20 of 20 patches" in alone.stderr
    document = json.loads(cube("verify", to, "--source", files.folder, "--workers", 0, "--json").stdout)
    assert document["passed"] is True
    assert {"root", "objects", "pixels", "sharing", "source"} <= {check["name"] for check in document["checks"]}
    assert next(check["seen"] for check in document["checks"] if check["name"] == "source") == (
        f"60 files of {files.folder}; 0 other files there are no part of the cube"
    )


def test_verify_finds_a_flipped_bit(files: Made, recipe: Path, tmp_path: Path) -> None:
    to = tmp_path / "a.zarr"
    cube("build", recipe, "--source", files.folder, "--to", to, "--workers", 0, "--limit", 4)
    shard = to / "s2/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(bytes(data))
    done = cube("verify", to, "--workers", 0, code=1)
    assert f"{to} is NOT sound:" in done.stdout
    assert "FAIL shards" in done.stdout
    assert "ROIs1158_spring_15_p3" in done.stdout
    assert json.loads(cube("verify", to, "--workers", 0, "--json", code=1).stdout)["passed"] is False


def test_info(built: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    to, _ = built
    text = cube("info", to).stdout
    assert "20 patches in 2 scenes: spring 12, winter 8" in text
    assert "Splits: " in text
    facts = json.loads(cube("info", to, "--json").stdout)
    assert facts["patches"] == PATCHES
    assert facts["seasons"] == {"spring": 12, "winter": 8}
    assert facts["splits"] == {"test": 12, "train": 8}
    assert facts["crs"] == ["EPSG:32632", "EPSG:32737"]
    assert {name: item["patches"] for name, item in facts["modalities"].items()} == dict.fromkeys(MODALITIES, PATCHES)
    assert facts["stored_bytes"] == sum(len(data) for data in objects(to).values())


def test_plan_writes_nothing(files: Made, recipe: Path, tmp_path: Path) -> None:
    before = sorted(files.folder.parent.rglob("*"))
    done = cube("plan", recipe, "--source", files.folder, "--json")
    document = json.loads(done.stdout)
    assert document["plan"]["patches"] == PATCHES
    assert document["plan"]["tasks"] == 5
    assert document["estimate"]["sampled"] == 0
    assert document["estimate"]["seconds"] is None
    sampled = json.loads(cube("plan", recipe, "--source", files.folder, "--json", "--sample", 100).stdout)
    assert sampled["plan"] == document["plan"]
    assert sampled["estimate"]["sampled"] == PATCHES
    assert sampled["estimate"]["seconds"] > 0
    text = cube("plan", recipe, "--source", files.folder, "--sample", 100, "--profile", "small").stdout
    assert "Measured on 20 of these patches" in text
    assert "profile small" in text
    assert sorted(files.folder.parent.rglob("*")) == before


def test_a_plan_foretells_the_build(built: tuple[Path, subprocess.CompletedProcess[str]], files: Made, recipe: Path) -> None:
    to, _ = built
    document = json.loads(cube("plan", recipe, "--source", files.folder, "--json", "--sample", 100).stdout)
    shards = sum(
        size for receipt in receipts(to) for key, size in receipt["objects"].items() if key.split("/")[0] in MODALITIES
    )
    assert document["estimate"]["stored_bytes"] == shards
    assert document["plan"]["objects"] == len(objects(to))
    figures = json.loads((to.with_suffix(".build") / "build.json").read_text())["figures"]
    assert figures["objects"] == {"predicted": len(objects(to)), "actual": len(objects(to))}
    assert document["plan"]["digest"] == json.loads((to / "zarr.json").read_text())["attributes"]["cube"]["plan"]


def test_an_inventory_is_kept_beside_the_cube(built: tuple[Path, subprocess.CompletedProcess[str]], files: Made) -> None:
    table = pq.read_table(built[0].with_suffix(".build") / "inventory.parquet")
    assert table["patch"].to_pylist() == files.ids
    for name in MODALITIES:
        assert table[f"{name}_path"].to_pylist() == [str(files.files[row, name].relative_to(files.folder)) for row in files.ids]
        assert table[f"{name}_bytes"].to_pylist() == [files.files[row, name].stat().st_size for row in files.ids]


def test_published_counts_are_those_of_the_whole_source(files: Made, recipe: Path) -> None:
    done = cube("plan", recipe, "--source", files.folder, "--where", "season=winter", "--limit", 3)
    assert re.search(r"spring +12 of 40,883 patches in 1 of 56 scenes, 40,871 missing; 0 to be converted$", done.stdout, re.M)
    assert re.search(r"winter +8 of 31,825 patches in 1 of 46 scenes, 31,817 missing; 3 to be converted$", done.stdout, re.M)
    document = json.loads(cube("plan", recipe, "--source", files.folder, "--limit", 3, "--json").stdout)
    assert document["published"]["winter"] == {"scenes": 1, "of_scenes": 46, "patches": 8, "of_patches": 31825}
    assert document["published"]["fall"] == {"scenes": 0, "of_scenes": 85, "patches": 0, "of_patches": 62201}


def test_limit_and_where(files: Made, recipe: Path, tmp_path: Path) -> None:
    def ids(name: str, *more: Any) -> list[str]:
        to = tmp_path / f"{name}.zarr"
        cube("build", recipe, "--source", files.folder, "--to", to, "--workers", 0, "--sample", 0, *more)
        opened = xr.open_zarr(to)
        rows = [files.ids.index(name) for name in opened["patch"].values]
        np.testing.assert_array_equal(opened["s1"].values, files.array("s1")[rows])
        return list(opened["patch"].values)

    assert ids("limit", "--limit", 7) == files.ids[:7]
    assert ids("where", "--where", "season=winter and number>=33") == files.ids[15:]
    assert ids("both", "--where", "split=train", "--limit", 3) == files.ids[12:15]


def test_recipes() -> None:
    listed = cube("recipes").stdout
    assert [line.split()[0] for line in listed.splitlines()] == recipe_names()
    assert list(json.loads(cube("recipes", "--json").stdout)) == recipe_names()
    assert cube("recipes", "sen12ms").stdout.startswith("# SEN12MS")
    assert json.loads(cube("recipes", "demo", "--json").stdout)["name"] == "demo"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["recipes", "sen12m"], 2, "cube: no bundled recipe is called 'sen12m'; did you mean 'sen12ms' or 'sen1-2'?"),
        (["plan", "sen12ms", "--source", "nowhere"], 2, "cube: nowhere: no such folder"),
        (["plan", "sen12ms"], 2, "Missing option '--source'"),
        (["build", "sen12ms", "--source", "nowhere", "--to", "a.zip"], 2, "expected a path or URL that ends in .zarr"),
        (["verify", "nowhere.zarr"], 2, "cube: nowhere.zarr: there is no cube"),
        (["info", "nowhere.zarr"], 2, "cube: nowhere.zarr: there is no cube"),
        (["verify", "nowhere"], 2, "expected a path or URL that ends in .zarr"),
        (["frobnicate"], 2, "No such command 'frobnicate'"),
        (["demo", "/proc/nowhere", "--workers", "0"], 1, "cube: [Errno 2] No such file or directory"),
    ],
)
def test_exit_codes(words: list[str], code: int, message: str) -> None:
    done = cube(*words, code=code)
    assert message in done.stderr


def test_help_and_version() -> None:
    assert cube("--version").stdout.strip().endswith(__version__)
    text = cube("--help").stdout
    for verb in ("build", "demo", "info", "plan", "recipes", "verify"):
        assert f"  {verb} " in text
    assert "--incomplete [fail|reject|keep]" in cube("build", "-h").stdout


def nothing_but_the_plan(folder: Path) -> bool:
    """The target has been claimed, one label shows that it can be written, and that is all."""
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return written == {"a.build/plan.json", "a.build/claims/000001.json", "a.zarr/modality/c/0"}


def test_a_scheduler_that_does_not_answer(files: Made, recipe: Path, tmp_path: Path) -> None:
    done = cube("build", recipe, "--source", files.folder, "--to", tmp_path / "a.zarr", "--scheduler", "nonsense://x", code=2)
    assert "no Dask scheduler answers at 'nonsense://x'" in done.stderr
    assert nothing_but_the_plan(tmp_path)


def test_a_scheduler_without_workers(files: Made, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cube.work.clusters._CONNECT_SECONDS", 1)
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as idle:
        address = idle.scheduler_address
        words = ["build", str(recipe), "--source", str(files.folder), "--to", str(tmp_path / "a.zarr"), "--scheduler", address]
        done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert f"the scheduler at {address!r} has no worker after 1 s: start one, or wait longer, then run again" in done.stderr
    assert nothing_but_the_plan(tmp_path)


@pytest.fixture
def scheduler() -> Iterator[LocalCluster]:
    """A cluster that somebody else started, of two processes."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=0
    ) as cluster:
        yield cluster


def test_a_running_cluster(scheduler: LocalCluster, files: Made, recipe: Path, tmp_path: Path, built: Any) -> None:
    to, address = tmp_path / "a.zarr", scheduler.scheduler_address
    assert address.startswith("tcp://")
    cube("build", recipe, "--source", files.folder, "--to", to, "--scheduler", address, "--workers", 0)
    known = {worker.pid for worker in scheduler.workers.values()}
    named = {int(receipt["worker"].rpartition(":")[2]) for receipt in receipts(to)}
    assert named
    assert named <= known
    assert objects(to) == objects(built[0])
    assert "is sound" in cube("verify", to, "--scheduler", address).stdout
    assert len(scheduler.workers) == 2
