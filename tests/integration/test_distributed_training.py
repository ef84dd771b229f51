"""Real ranks of ``torch.distributed`` train one model from one cube."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import Built, Made, require_torch
from servers import free_ports

SECONDS = 150
"""After so long a rank hangs."""
SCRIPT = str(Path(__file__).with_name("rank.py"))


def trained(url: str, folder: Path, world: int) -> dict[str, list[dict[str, Any]]]:
    """Run all ranks; return, for each ``tail``, what each of them wrote."""
    (port,) = free_ports(1)
    about = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "GLOO_SOCKET_IFNAME": "lo"}
    ranks = []
    try:
        for rank in range(world):
            command = [sys.executable, SCRIPT, json.dumps({"url": url, "to": str(folder / f"{rank}.json")})]
            with (folder / f"{rank}.log").open("wb") as log:
                ranks.append(subprocess.Popen(command, env=os.environ | about | {"RANK": str(rank)}, stdout=log, stderr=log))
        for rank, process in enumerate(ranks):
            assert process.wait(SECONDS) == 0, (folder / f"{rank}.log").read_text()
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    written = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]
    return {tail: [each[tail] for each in written] for tail in written[0]}


@pytest.mark.parametrize("world", [pytest.param(2, marks=pytest.mark.judges), 3])
def test_ranks_train_one_model(tiny_cube: Built, made: Made, tmp_path: Path, world: int) -> None:
    require_torch()
    for tail, ranks in trained(tiny_cube.url, tmp_path, world).items():
        _check_ids(tail, ranks, made.ids)
        assert all(rank["weights"] == ranks[0]["weights"] for rank in ranks)
        together = min(len(rank["shared"]) for rank in ranks) if tail != "keep" else len(ranks[0]["ids"][0]) - 1
        for step in range(together):
            shared = np.array([rank["shared"][step] for rank in ranks])
            own = np.array([rank["own"][step] for rank in ranks])
            assert (shared == shared[0]).all(), f"{tail}, step {step}: the gradients differ"
            assert not np.array_equal(own[0], own[1])
            assert np.allclose(shared[0], own.mean(axis=0), rtol=1e-4, atol=1e-5)


def _check_ids(tail: str, ranks: list[dict[str, Any]], known: list[str]) -> None:
    """Check that ranks share every epoch as ``docs/training.md`` says of a ``tail``."""
    for epoch in zip(*(rank["ids"] for rank in ranks), strict=True):
        seen = [name for batches in epoch for names in batches for name in names]
        assert [len(batches) for batches in epoch] == [rank["length"] for rank in ranks]
        own = [{name for names in batches for name in names} for batches in epoch]
        assert sum(map(len, own)) == len(set().union(*own)), "two ranks were given one patch"
        if tail == "keep":
            assert sorted(seen) == sorted(known)
            continue
        assert len({len(batches) for batches in epoch}) == 1
        assert (set(seen) == set(known)) if tail == "repeat" else (len(seen) == len(set(seen)) < len(known))
    assert ranks[0]["ids"][0] != ranks[0]["ids"][1]
