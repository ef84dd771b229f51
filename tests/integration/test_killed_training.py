"""Training that is killed at any moment goes on where its record ends: every patch once an epoch, in the same order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killing import Seen, Starter, consumed, forking, fresh
from making import Built, Made, Scene, build, make_patches, require_torch, write_recipe

SEED = 20261
KILLS = {1: 6, 2: 3, 4: 2, 7: 1}
"""World size → kills of each rank."""
EPOCHS, BATCH = 2, 3
SCENES = (
    Scene("spring", 1, rows=6, columns=8),
    Scene("summer", 1, rows=5, columns=9, gaps=((1, 1), (3, 4)), epsg=32633),
    Scene("winter", 7, rows=4, columns=8),
)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Patches enough for seven ranks of some batches each."""
    return make_patches(tmp_path_factory.mktemp("many") / "files", SCENES)


@pytest.fixture(scope="module")
def cube(many: Made, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("many-cube")
    return build(write_recipe(folder / "tiny.yaml"), many.folder, folder / "many.zarr")


@pytest.fixture(scope="module")
def forked() -> Iterator[Starter]:
    with forking() as start:
        yield start


@pytest.fixture
def pytorch() -> None:
    require_torch()


def wishes(cube: Built, folder: Path, world: int, workers: int | None, context: str = "fork") -> Iterator[dict[str, Any]]:
    """Yield what each rank is asked to do."""
    for rank in range(world):
        about = {"url": cube.url, "record": str(folder / f"{rank}.jsonl"), "log": str(folder / f"{rank}.log"), "pause": 0.01}
        how = {"batch_size": BATCH, "seed": SEED, "stream": [rank, world], "workers": workers, "context": context}
        yield {**about, **how, "epochs": EPOCHS}


def check(start: Starter, cube: Built, many: Made, folder: Path, world: int, kills: int = 0, **how: Any) -> None:
    """Run all ranks twice, killed and in peace, and compare."""
    (folder / "killed").mkdir()
    (folder / "whole").mkdir()
    rng, kills = random.Random(SEED), kills or KILLS[world]
    stride = EPOCHS * len(many.ids) // (world * BATCH * (kills + 1))
    killed = [consumed(start, wish, rng, kills, stride) for wish in wishes(cube, folder / "killed", world, **how)]
    whole = [consumed(start, wish, rng) for wish in wishes(cube, folder / "whole", world, **how)]
    print(f"seed {SEED}, world {world}, {how}, batches recorded at each kill, by rank: {[rank.kills for rank in killed]}")
    assert [rank.batches for rank in killed] == [rank.batches for rank in whole]
    for epoch in range(EPOCHS):
        assert sorted(name for rank in killed for name in rank.ids(epoch)) == sorted(many.ids)
    assert len({tuple(killed[0].ids(epoch)) for epoch in range(EPOCHS)}) == EPOCHS
    check_fired(killed, kills)


def check_fired(ranks: list[Seen], kills: int) -> None:
    """Assert that processes were killed, and that some of them were in the middle of their work."""
    fired = [(at, len(rank.batches)) for rank in ranks for at in rank.kills]
    assert len(fired) >= len(ranks) * kills / 2
    assert any(0 < at < batches for at, batches in fired)


@pytest.mark.parametrize("world", [1, 4, pytest.param(2, marks=pytest.mark.judges), pytest.param(7, marks=pytest.mark.judges)])
def test_plain_batches(forked: Starter, cube: Built, many: Made, tmp_path: Path, world: int) -> None:
    check(forked, cube, many, tmp_path, world, workers=None)


@pytest.mark.parametrize(
    ("world", "workers"),
    [(1, 4), (2, 3), *(pytest.param(*more, marks=pytest.mark.judges) for more in [(1, 0), (4, 1), (7, 2)])],
)
@pytest.mark.usefixtures("pytorch")
def test_a_loader_with_its_workers(forked: Starter, cube: Built, many: Made, tmp_path: Path, world: int, workers: int) -> None:
    check(forked, cube, many, tmp_path, world, workers=workers)


@pytest.mark.judges
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("pytorch")
@pytest.mark.parametrize(
    ("world", "how"),
    [
        (1, {"workers": 4, "context": "spawn", "kills": 2}),
        (2, {"workers": 1, "context": "forkserver", "kills": 1}),
        (4, {"workers": 0, "kills": 1}),
    ],
)
def test_interpreters_of_their_own(cube: Built, many: Made, tmp_path: Path, world: int, how: dict[str, Any]) -> None:
    check(fresh, cube, many, tmp_path, world, **how)
