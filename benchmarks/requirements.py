"""From measured samples to figures, and from figures to requirements met or missed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from competitors import Samples
from scenes import TRIPLET_BYTES

EXACT = ("objects", "tasks", "rejected")
"""Predictions that must be right; the others have a tolerance."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many triplets each competitor converts."""

    script: tuple[int, int]
    build: tuple[int, int]
    """Ends of the line whose slope is the speed of the whole command."""
    memory: tuple[int, ...]
    """Sizes at which the memory of the whole command is compared."""
    loop: tuple[int, int]
    """Whole shards for each of two processes: the bare loop and the writing stage."""
    unshared: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One line of the verdict."""

    name: str
    required: str
    measured: str
    met: bool


@dataclass(frozen=True)
class Figures:
    """Medians over the repeats."""

    samples: Samples
    sizes: Sizes
    profile: str
    """The recipe's default profile."""

    def median(self, key: tuple[Any, ...], name: str = "seconds") -> float:
        """Return the median of one figure over the repeats."""
        return float(median(sample[name] for sample in self.samples[key]))

    def slope(self, key: tuple[Any, ...], sizes: tuple[int, int], name: str = "seconds") -> float:
        """Return what one more triplet costs, from two sizes."""
        small, large = sizes
        return (self.median((*key, large), name) - self.median((*key, small), name)) / (large - small)

    def rate(self, key: tuple[Any, ...], sizes: tuple[int, int]) -> float:
        """Return triplets per second, free of start-up."""
        return 1 / self.slope(key, sizes)

    @property
    def script(self) -> float:
        """Triplets per second of the script."""
        return self.rate(("script",), self.sizes.script)

    @property
    def bare(self) -> float:
        """Triplets per second of the bare loop."""
        return self.rate(("bare", self.profile), self.sizes.loop)

    @property
    def unshared(self) -> float:
        """Triplets per second of the loop that encodes every tile."""
        return self.rate(("unshared", self.profile), self.sizes.unshared)

    def build(self, profile: str) -> float:
        """Triplets per second of the whole command."""
        return self.rate(("build", profile, 2), self.sizes.build)

    def writing(self, profile: str) -> float:
        """Triplets per second of the writing stage."""
        return self.rate(("writing", profile), self.sizes.loop)

    def fixed(self, profile: str) -> float:
        """Seconds of the whole command that do not grow with the data."""
        key, size = ("build", profile, 2), self.sizes.build[0]
        return self.median((*key, size)) - size * self.slope(key, self.sizes.build)

    def ratio(self, profile: str) -> float:
        """Raw bytes per stored byte of the largest cube written with a profile."""
        size = self.sizes.loop[1]
        return size * TRIPLET_BYTES / self.median(("writing", profile, size), "stored_bytes")

    def decoding(self, profile: str) -> dict[str, float]:
        """Return decoded MB/s of one process by modality, and over all of them as ``all``."""
        runs = [sample["decoded"] for sample in self.samples["writing", profile, self.sizes.loop[1]]]
        rates = {name: median(run[name]["bytes"] / run[name]["seconds"] for run in runs) / 1e6 for name in runs[0]}
        totals = [[sum(part[unit] for part in run.values()) for unit in ("bytes", "seconds")] for run in runs]
        return {**rates, "all": median(size / seconds for size, seconds in totals) / 1e6}

    def cpu(self, workers: int, name: str) -> float:
        """Return CPU seconds per triplet: of the writing tasks at the larger size, or of the whole command as a slope."""
        key, large = ("build", self.profile, workers), self.sizes.build[1]
        if name == "writing_cpu_seconds":
            return self.median((*key, large), name) / large
        return self.slope(key, self.sizes.build, name)


def requirements(figures: Figures) -> Iterator[Requirement]:
    """Yield every requirement with what was measured."""
    yield from _speed(figures)
    yield from _bytes(figures)
    yield from _memory(figures)
    yield from _predictions(figures)


def _at_least(name: str, required: float, measured: float, unit: str = " ×") -> Requirement:
    return Requirement(name=name, required=f">= {required:g}{unit}", measured=f"{measured:.2f}{unit}", met=measured >= required)


def _at_most(name: str, required: float, measured: float, unit: str) -> Requirement:
    return Requirement(name=name, required=f"<= {required:g}{unit}", measured=f"{measured:.2f}{unit}", met=measured <= required)


def _speed(figures: Figures) -> Iterator[Requirement]:
    default, script = figures.profile, figures.script
    yield _at_least(f"cube build ({default}) / script", 12, figures.build(default) / script)
    yield _at_least("cube build (fast) / script", 20, figures.build("fast") / script)
    for profile in sorted({default, "fast"}):
        yield _at_most(f"fixed cost of cube build ({profile})", 8, figures.fixed(profile), " s")
    yield _at_least("bare loop / loop without sharing", 2.5, figures.bare / figures.unshared)
    yield _at_least("bare loop / script", 15, figures.bare / script)
    yield _at_least(f"writing stage ({default}) / bare loop", 0.8, figures.writing(default) / figures.bare)
    names = {"writing_cpu_seconds": "writing", "cpu_seconds": "whole command"}
    for name, text in names.items():
        more = figures.cpu(2, name) / figures.cpu(1, name)
        yield _at_most(f"CPU per triplet, 2 workers / 1 ({text})", 1.15, more, " ×")


def _bytes(figures: Figures) -> Iterator[Requirement]:
    large = figures.sizes.build[1]
    stored = figures.median(("build", figures.profile, 2, large), "stored_bytes")
    unshared = figures.median(("unshared", figures.profile, large), "stored_bytes")
    yield _at_least("raw / stored bytes, all objects", 6, large * TRIPLET_BYTES / stored)
    yield _at_least("bytes without sharing, same codec / stored", 3.1, unshared / stored)


def _memory(figures: Figures) -> Iterator[Requirement]:
    sizes = figures.sizes.memory
    peaks = [figures.median(("build", figures.profile, 2, size), "peak_bytes") / 1e6 for size in sizes]
    shown = " / ".join(f"{peak:.0f}" for peak in peaks)
    spread = 100 * (max(peaks) / min(peaks) - 1)
    yield _at_most("peak memory of a worker", 400, max(peaks), " MB")
    name = f"peak memory at {' / '.join(map(str, sizes))} triplets: {shown} MB, spread"
    yield Requirement(name=name, required="< 10 %", measured=f"{spread:.1f} %", met=spread < 10)


def _predictions(figures: Figures) -> Iterator[Requirement]:
    """Compare what each build of the largest size predicted with what came; the worst repeat counts."""
    key = ("build", figures.profile, 2, figures.sizes.build[1])
    pairs = [sample["figures"] for sample in figures.samples[key]]
    for name in pairs[0]:
        predicted, actual = max(
            ((pair[name]["predicted"], pair[name]["actual"]) for pair in pairs), key=lambda pair: _error(*pair)
        )
        error, shown = _error(predicted, actual), f"{predicted:,.4g} for {actual:,.4g}"
        if name in EXACT:
            yield Requirement(name=f"predicted {name}", required="exact", measured=shown, met=predicted == actual)
        elif name == "seconds":
            yield Requirement(name="predicted seconds", required="within 2 ×", measured=shown, met=error <= 2)
        else:
            limit = 10 if "stored" in name else 25
            yield Requirement(
                name=f"predicted {name}",
                required=f"within {limit} %",
                measured=shown,
                met=abs(predicted / actual - 1) * 100 <= limit,
            )


def _error(predicted: float, actual: float) -> float:
    """Return how many times too large or too small a prediction was."""
    if predicted == actual:
        return 1.0
    return max(predicted / actual, actual / predicted) if predicted and actual else float("inf")
