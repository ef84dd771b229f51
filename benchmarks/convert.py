"""Measures the conversion: against a script, against a bare loop, in bytes, in memory, and against its own predictions.

One run converts the same SEN12MS-shaped files (see ``scenes.py``: **B10, S1 and land cover are made up**) with every
competitor in turn, several times over, and judges the medians. It prints one table per question, writes
``out/convert.json`` and exits with 1 if a requirement is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from competitors import RECIPE, Bench, run_bare, run_build, run_script, run_writing, warm
from requirements import Figures, Requirement, Sizes, requirements
from scenes import LARGEST, TEXTURE, TRIPLET_BYTES, make_scenes

from cube.recipes.recipe import read_recipe

OUT = Path(__file__).resolve().parent / "out" / "convert.json"
FULL = Sizes(script=(168, 336), build=(672, 2688), memory=(336, 1344, 2688), loop=(512, 2560), unshared=(512, 1536))
QUICK = Sizes(script=(14, 28), build=(320, 832), memory=(168, 320, 832), loop=(512, 1024), unshared=(512, 1024))


def measure(bench: Bench, sizes: Sizes, repeats: int, profile: str, profiles: Iterable[str]) -> None:
    """Run every competitor ``repeats`` times, taking turns, so that a machine that drifts does so for all alike."""
    builds = {(profile, 2, size) for size in (*sizes.build, *sizes.memory)}
    builds |= {(profile, 1, size) for size in sizes.build} | {("fast", 2, size) for size in sizes.build}
    for repeat in range(repeats):
        print(f"repeat {repeat + 1} of {repeats}", file=sys.stderr)
        for size in sizes.script:
            run_script(bench, size)
        for build in sorted(builds, key=lambda build: (build[2], build)):
            run_build(bench, *build)
        for size in sizes.loop:
            run_bare(bench, profile, size, shared=True)
        for name in profiles:
            run_writing(bench, name, sizes.loop)
        for size in sizes.unshared:
            run_bare(bench, profile, size, shared=False)
    if sizes.build[1] not in sizes.unshared:
        run_bare(bench, profile, sizes.build[1], shared=False)


def speed_table(figures: Figures) -> list[list[str]]:
    """Return the rates of all competitors."""
    script = figures.script
    rates = {
        "script: rioxarray, xarray, Dask": script,
        f"cube build ({figures.profile}), verified": figures.build(figures.profile),
        "cube build (fast), verified": figures.build("fast"),
        f"writing stage ({figures.profile})": figures.writing(figures.profile),
        f"bare loop ({figures.profile})": figures.bare,
        f"loop without sharing ({figures.profile})": figures.unshared,
    }
    rows = [["two processes", "triplets/s", "raw MB/s", "× script"]]
    return rows + [[n, f"{r:.0f}", f"{r * TRIPLET_BYTES / 1e6:.0f}", f"{r / script:.1f}"] for n, r in rates.items()]


def profile_table(figures: Figures, profiles: Iterable[str]) -> list[list[str]]:
    """Return what each codec profile gives."""
    rows = [["profile", "raw / stored", "writing triplets/s", "decoding MB/s: s1", "s2", "lc", "all"]]
    for name in profiles:
        decoding = figures.decoding(name)
        shown = [f"{decoding[kind]:.0f}" for kind in ("s1", "s2", "lc", "all")]
        label = f"{name} (default)" if name == figures.profile else name
        rows.append([label, f"{figures.ratio(name):.2f}", f"{figures.writing(name):.0f}", *shown])
    return rows


def verdict_table(verdict: list[Requirement]) -> list[list[str]]:
    """Return every requirement."""
    rows = [["requirement", "required", "measured", "met"]]
    return rows + [[item.name, item.required, item.measured, "yes" if item.met else "NO"] for item in verdict]


def as_text(rows: list[list[str]]) -> str:
    """Lay a table out in columns."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def save(figures: Figures, verdict: list[Requirement], profiles: Iterable[str]) -> None:
    """Keep every sample, the medians' tables and the verdict."""
    document = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "data": "SEN12MS-shaped; 12 S2 bands are real texture; B10, S1 and land cover are made up",
        "samples": {" ".join(map(str, key)): runs for key, runs in figures.samples.items()},
        "speed": speed_table(figures),
        "profiles": profile_table(figures, profiles),
        "requirements": [vars(item) for item in verdict],
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(document, indent=1), encoding="utf-8")


def benchmark(folder: Path, repeats: int, sizes: Sizes, texture: Path) -> list[Requirement]:
    """Make the data, measure, print and save; return the requirements."""
    layout = read_recipe(RECIPE).layout
    largest = max(*sizes.build, *sizes.loop)
    bench = Bench(folder)
    print(f"making {largest:,} triplets ({largest * TRIPLET_BYTES / 1e9:.1f} GB) in {bench.source}", file=sys.stderr)
    bench.paths = make_scenes(bench.source, largest, texture=texture)
    os.sync()
    warm(bench.source)
    begun = time.monotonic()
    measure(bench, sizes, repeats, layout.profile, layout.profiles)
    figures = Figures(bench.samples, sizes, layout.profile)
    verdict = list(requirements(figures))
    save(figures, verdict, layout.profiles)
    print("\nTwelve S2 bands are real texture. B10, S1 and land cover are made up.")
    for table in (speed_table(figures), profile_table(figures, layout.profiles), verdict_table(verdict)):
        print("\n" + as_text(table))
    print(f"\n{repeats} repeats in {(time.monotonic() - begun) / 60:.1f} min; every sample is in {OUT}")
    return verdict


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to make a temporary folder of up to 12 GB")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repeat of small sizes: a smoke run, not a measurement")
    parser.add_argument("--texture", type=Path, default=TEXTURE, help="folder of the texture cells")
    given = parser.parse_args()
    sizes, repeats = (QUICK, 1) if given.quick else (FULL, given.repeats)
    assert max(*sizes.build, *sizes.loop) <= LARGEST
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="convert-", dir=given.folder) as folder:
        verdict = benchmark(Path(folder), repeats, sizes, given.texture)
    if not given.quick and not all(item.met for item in verdict):
        sys.exit(1)


if __name__ == "__main__":
    main()
