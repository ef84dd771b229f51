"""What augmentation costs: epochs of shuffled batches as they are, turned and mirrored, and cropped as well, in turns.

``python benchmarks/augmentation.py [--patches 600] [--rounds 7]`` prints patches a second and the ratios to plain batches,
medians of the rounds: ``Batches(…, augment=…)`` does it while tiles are copied, calling an ``Augmentation`` with each batch
does it afterwards, in the consumer's thread.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from click.testing import CliRunner
from scenes import TEXTURE, make_scenes

from cube import Batches, Samples
from cube.cli.main import main as cube
from cube.tasks import Augmentation

CHANGES = {
    "plain": None,
    "flips and turns": Augmentation(seed=1),
    "crops of half the side": Augmentation(crop=128, flips=False, turns=False, seed=1),
    "all three": Augmentation(crop=128, seed=1),
}


def epoch(samples: Samples, inside: Augmentation | None, afterwards: Augmentation | None = None) -> float:
    """Return the seconds of one epoch, augmented while tiles are copied, or batch after batch when they are finished."""
    batches = Batches(samples, batch_size=32, augment=inside)
    started = time.perf_counter()
    for batch in batches:
        if afterwards is not None:
            afterwards(batch, 0)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texture", type=Path, default=TEXTURE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, to = Path(name) / "files", Path(name) / "x.zarr"
        make_scenes(source, options.patches, texture=options.texture)
        result = CliRunner().invoke(cube, ["build", "sen12ms", "--source", str(source), "--to", str(to), "--workers", "0"])
        if result.exit_code:
            raise SystemExit(result.output)
        samples = Samples(to)
        epoch(samples, None)
        ways = {kind: (change, None) for kind, change in CHANGES.items()}
        ways |= {f"{kind}, afterwards": (None, change) for kind, change in CHANGES.items() if change is not None}
        taken: dict[str, list[float]] = {kind: [] for kind in ways}
        for _ in range(options.rounds):
            for kind, (inside, afterwards) in ways.items():
                taken[kind].append(epoch(samples, inside, afterwards))
        for kind, seconds in taken.items():
            ratio = statistics.median(plain / changed for plain, changed in zip(taken["plain"], seconds, strict=True))
            print(f"{kind:36} {len(samples) / statistics.median(seconds):6.0f} patches/s, {ratio:.2f} of plain")


if __name__ == "__main__":
    main()
