"""One rank of a distributed training: ``python rank.py '{"url": …, "to": …}'`` with the environment that PyTorch asks for.

Trains a small model for two epochs for each ``tail``, and writes what it was given and what it computed.
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from cube import Samples
from cube.torch import BatchLoader, ImageAndMask

EPOCHS = 2


def train(samples: Samples, tail: str) -> dict[str, Any]:
    """Train from the same start on every rank; return ids, gradients and the weights in the end."""
    torch.manual_seed(1)
    layers = torch.nn.Sequential(torch.nn.Conv2d(15, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 20, 1))
    model = DistributedDataParallel(layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = BatchLoader(samples, batch_size=4, tail=tail, seed=5, form=ImageAndMask())
    ids: list[list[list[str]]] = []
    own, shared = [], []
    # Ranks that are done first wait for the others, which is for `keep` only.
    waiting: AbstractContextManager[Any] = model.join() if tail == "keep" else nullcontext()
    with waiting:
        for _ in range(EPOCHS):
            ids.append([])
            for batch in loader:
                ids[-1].append(batch["patch"])
                with model.no_sync():
                    own.append(_gradient(model, batch))
                shared.append(_gradient(model, batch))
                optimizer.step()
    weights = torch.cat([part.detach().ravel() for part in model.parameters()]).tolist()
    return {"length": len(loader), "ids": ids, "own": own, "shared": shared, "weights": weights}


def _gradient(model: Any, batch: dict[str, Any]) -> list[float]:
    """Compute the gradient of a batch; return it."""
    model.zero_grad()
    found = model(torch.nan_to_num(batch["image"]) / 1000)
    torch.nn.functional.cross_entropy(found, batch["mask"][:, 1:-1, 1:-1]).backward()
    return torch.cat([part.grad.ravel() for part in model.parameters()]).tolist()


def main() -> None:
    wish = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=100))
    samples = Samples(wish["url"])
    seen = {tail: train(samples, tail) for tail in ("drop", "repeat", "keep")}
    Path(wish["to"]).write_text(json.dumps(seen), encoding="utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
