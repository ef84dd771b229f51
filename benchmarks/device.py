"""A training step on a device, fed in several ways: patches a second, and how long the device waits. Needs a GPU, for minutes.

    python benchmarks/device.py --folder FOLDER      # where read.py has left its cube and files

A ResNet-50 over fifteen bands is trained on classes of land cover. Each loader feeds the same number of steps, in turn, several
times; medians are printed as one line of JSON. ``--device cpu`` runs it as well, to see that it does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from readers import Files
from torch import nn

from cube import Samples
from cube.torch import BatchLoader, ImageAndMask

BATCH, BANDS, CLASSES = 32, 15, 17


class _Bottleneck(nn.Module):
    """One block of ResNet-50."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.way = nn.Sequential(
            nn.Conv2d(given, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width),
        )  # fmt: skip
        same = stride == 1 and given == 4 * width
        self.short = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(given, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (patch, 4 × width, y, x)."""
        made: torch.Tensor = torch.relu(self.way(images) + self.short(images))
        return made


def resnet50() -> nn.Module:
    """Return a ResNet-50 over fifteen bands (He et al., 2016)."""
    layers: list[nn.Module] = [
        nn.Conv2d(BANDS, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(True),
        nn.MaxPool2d(3, 2, 1),
    ]
    given = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(blocks):
            layers.append(_Bottleneck(given, width, stride if not number else 1))
            given = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(given, CLASSES + 1))


def from_cube(folder: Path, device: str) -> Iterator[Any]:
    """Feed tiles that are gathered on the device."""
    while True:
        yield from BatchLoader(
            Samples(str(folder / "cube.zarr")), batch_size=BATCH, form=ImageAndMask(), device=device, threads=8
        )


def from_host(folder: Path, device: str) -> Iterator[Any]:
    """Feed batches that are made here and copied."""
    while True:
        for batch in BatchLoader(
            Samples(str(folder / "cube.zarr")), batch_size=BATCH, form=ImageAndMask(), threads=8, pin_memory=device != "cpu"
        ):
            yield {name: batch[name].to(device, non_blocking=True) for name in ("image", "mask")}


def from_files(folder: Path, device: str) -> Iterator[Any]:
    """Feed a DataLoader over the files, with as many workers as there are cores, up to sixteen."""
    while True:
        for batch in torch.utils.data.DataLoader(
            Files(folder), BATCH, shuffle=True, num_workers=16, pin_memory=device != "cpu"
        ):
            yield {name: values.to(device, non_blocking=True) for name, values in batch.items()}


def nothing(_: Path, device: str) -> Iterator[Any]:
    """Feed one batch that is there already: what the device can do at best."""
    batch = {
        "image": torch.randn(BATCH, BANDS, 256, 256, device=device),
        "mask": torch.ones(BATCH, 256, 256, dtype=torch.int64, device=device),
    }
    while True:
        yield batch


FEEDS: dict[str, Callable[[Path, str], Iterator[Any]]] = {
    "nothing": nothing,
    "device": from_cube,
    "host": from_host,
    "files": from_files,
}


def steps(feed: Iterator[Any], model: nn.Module, device: str, count: int) -> float:
    """Train some steps; return patches a second."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    begun = 0.0
    for number in range(count + 3):
        if number == 3:
            _wait(device)
            begun = time.perf_counter()
        batch = next(feed)
        with torch.autocast(device.partition(":")[0], torch.bfloat16):
            loss = nn.functional.cross_entropy(model(batch["image"].nan_to_num()), batch["mask"][:, 0, 0].clamp(0, CLASSES))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    _wait(device)
    return count * BATCH / (time.perf_counter() - begun)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    """Measure each feed and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--feeds", nargs="+", choices=FEEDS, default=list(FEEDS))
    given = parser.parse_args()
    model = resnet50().to(given.device)
    found: dict[str, list[float]] = {name: [] for name in given.feeds}
    for _ in range(given.repeats):
        for name in given.feeds:
            found[name].append(steps(FEEDS[name](given.folder, given.device), model, given.device, given.steps))
    rates = {name: statistics.median(values) for name, values in found.items()}
    idle = {name: 1 - rate / rates["nothing"] for name, rate in rates.items()} if "nothing" in rates else {}
    print(json.dumps({"device": given.device, "rates": rates, "idle": idle}))


if __name__ == "__main__":
    main()
