"""Every object of a cube is the same to the bit, whoever builds it, wherever, and in whatever order the files come."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import making
import numpy as np
import pytest
from making import Made, Scene, make_patches, write_recipe

from cube.store.local import LocalStore
from cube.store.protocol import Entry

LARGE = 256
"""A size at which Blosc splits a tile into blocks, which its threads would share out."""
SCENES = (Scene("fall", 7, rows=2, columns=3, gaps=((0, 1),)), Scene("spring", 3, rows=1, columns=3))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_patches(tmp_path_factory.mktemp("same") / "files", SCENES, size=LARGE)


@pytest.fixture(scope="module")
def recipe(source: Made) -> Path:
    return write_recipe(source.folder.parent / "tiny.yaml", size=LARGE, tile=LARGE // 2, shard=2)


@pytest.fixture(scope="module")
def reference(source: Made, recipe: Path) -> dict[str, str]:
    """Objects of a cube built in this process."""
    target = source.folder.parent / "reference.zarr"
    making.build(recipe, source.folder, target)
    return objects(target)


def objects(target: Path) -> dict[str, str]:
    """Key → SHA-256 of every object."""
    files = sorted(path for path in target.rglob("*") if not path.is_dir())
    return {str(path.relative_to(target)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(recipe: Path, source: Path, target: Path, *, workers: int, **environment: str) -> dict[str, str]:
    """Build with the command in a process of its own and return the objects."""
    options = ["--source", str(source), "--to", str(target), "--workers", str(workers), "--sample", "0", "--json"]
    command = [sys.executable, "-m", "cube", "build", str(recipe), *options]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"]["passed"]
    return objects(target)


def test_the_reference_is_of_several_shards_and_all_kinds_of_objects(reference: dict[str, str]) -> None:
    for name in ("s1", "s2", "lc"):
        assert [key for key in reference if key.startswith(f"{name}/c/")] == [f"{name}/c/{i}/0/0/0" for i in range(4)]
    assert {"zarr.json", "patch/c/0", "originals/header/c/3/0/0", "originals/path/c/0/0/0", "s2_band/c/0"} <= reference.keys()


@pytest.mark.parametrize("workers", [1, 4])
def test_with_any_number_of_workers(
    source: Made, recipe: Path, reference: dict[str, str], tmp_path: Path, workers: int
) -> None:
    assert run(recipe, source.folder, tmp_path / "other.zarr", workers=workers) == reference


def test_with_blosc_told_to_use_threads(source: Made, recipe: Path, reference: dict[str, str], tmp_path: Path) -> None:
    assert run(recipe, source.folder, tmp_path / "threads.zarr", workers=0, BLOSC_NTHREADS="8") == reference


def test_with_threads_left_on_in_blosc_by_someone_else(
    source: Made, recipe: Path, reference: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from numcodecs import blosc

    monkeypatch.setattr(blosc, "use_threads", True)
    before = blosc.set_nthreads(8)
    try:
        making.build(recipe, source.folder, tmp_path / "threads.zarr")
    finally:
        blosc.set_nthreads(before)
    assert objects(tmp_path / "threads.zarr") == reference


@pytest.mark.parametrize("seed", [1, 2])
def test_with_files_listed_in_any_order(
    source: Made, recipe: Path, reference: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    plain, orders = LocalStore.list, []

    def shuffled(self: LocalStore, prefix: str = "") -> Iterator[Entry]:
        entries = sorted(plain(self, prefix), key=lambda entry: entry.key)
        random.Random(seed).shuffle(entries)
        orders.append([entry.key for entry in entries])
        return iter(entries)

    monkeypatch.setattr(LocalStore, "list", shuffled)
    making.build(recipe, source.folder, tmp_path / "shuffled.zarr")
    assert any(len(order) == 24 and order != sorted(order) for order in orders), "the source was listed in order"
    assert objects(tmp_path / "shuffled.zarr") == reference


def test_with_files_made_in_another_order_elsewhere(
    source: Made, recipe: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    paths = [path.relative_to(source.folder) for path in source.files.values()]
    random.Random(3).shuffle(paths)
    for path in paths:
        (tmp_path / "copies" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.folder / path, tmp_path / "copies" / path)
    making.build(recipe, tmp_path / "copies", tmp_path / "deep" / "er" / "another name.zarr")
    assert objects(tmp_path / "deep" / "er" / "another name.zarr") == reference


def test_batches_written_last_to_first(
    source: Made, recipe: Path, reference: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cube.convert import writer

    tasks, indexes = writer._tasks, []

    def backwards(plan: object, target: object, left: list[int]) -> object:
        indexes.extend(reversed(left))
        return tasks(plan, target, left[::-1])

    monkeypatch.setattr(writer, "_tasks", backwards)
    making.build(recipe, source.folder, tmp_path / "backwards.zarr")
    assert indexes == [3, 2, 1, 0]
    assert objects(tmp_path / "backwards.zarr") == reference


def test_another_pixel_makes_other_bytes(source: Made, recipe: Path, reference: dict[str, str], tmp_path: Path) -> None:
    """These tests could not fail if the objects did not depend on the files."""
    shutil.copytree(source.folder, tmp_path / "files")
    name = source.ids[4]
    path = tmp_path / "files" / source.files[name, "s2"].relative_to(source.folder)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    making.build(recipe, tmp_path / "files", tmp_path / "changed.zarr")
    changed = objects(tmp_path / "changed.zarr")
    assert changed.keys() == reference.keys()
    place = np.flatnonzero([item == name for item in source.ids])[0] // 2
    assert f"s2/c/{place}/0/0/0" in {key for key in reference if changed[key] != reference[key]}
