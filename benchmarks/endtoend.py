"""SEN12MS with its true names and grids but tiny patches, end to end, at 1/16, 1/4 and all of its scenes.

    python benchmarks/endtoend.py                  # all sizes; also part of `make scale`
    python benchmarks/endtoend.py --shares 64      # a short form of 1/64 of the scenes, which fits no exponent

Each size is built twice: once through all stages, and once killed with all its processes when half of its batches are done,
and resumed. The resumed cube must have the very root document of the other one. Prints a table and each requirement beside
what was measured, writes ``out/endtoend.json`` and exits with 1 if a requirement is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from growth import LIMIT, Run, as_table, exponent, stages_of
from tiny import TinyScene, link_scenes, make_tiny, read_scenes, write_recipe

HERE = Path(__file__).resolve().parent
OUT = HERE / "out" / "endtoend.json"
SHARES = (16, 4, 1)
DRIVER_MB, WORKER_MB, SPREAD = 1500, 400, 1.1


def run_stages(*words: Any) -> list[dict[str, Any]]:
    """Run stages in a fresh process and return what each said."""
    done = subprocess.run(_command(words), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words} failed ({done.returncode}):\n{done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _command(words: Iterable[Any]) -> list[str]:
    return [sys.executable, str(HERE / "stages.py"), *map(str, words)]


def kill_at_half(recipe: Path, source: Path, to: Path, tasks: int) -> int:
    """Start a build, kill its process group when half of the receipts are there, and return how many are."""
    command = _command(("build", recipe, source, to, "--until", "write"))
    receipts = to.with_suffix(".build") / "receipts"
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while driver.poll() is None and count_files(receipts) < tasks // 2:
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    if driver.returncode != -signal.SIGKILL or (to / "zarr.json").exists():
        raise SystemExit(f"the build was over before it was killed (exit code {driver.returncode})")
    return count_files(receipts)


def count_files(folder: Path) -> int:
    """Count the files of a folder that may not exist yet."""
    return len(os.listdir(folder)) if folder.exists() else 0


def measure(folder: Path, recipe: Path, source: Path, share: int) -> Run:
    """Take one size through every stage."""
    whole, halved = folder / f"whole-{share}.zarr", folder / f"halved-{share}.zarr"
    lines = run_stages("build", recipe, source, whole)
    known = {line["stage"]: line for line in lines}
    kept = kill_at_half(recipe, source, halved, known["plan"]["tasks"])
    resumed = next(line for line in run_stages("build", recipe, source, halved, "--until", "write") if line["stage"] == "write")
    same = (whole / "zarr.json").read_bytes() == (halved / "zarr.json").read_bytes()
    lines += [{**resumed, "stage": "resume", "kept": kept, "same": same}, *run_stages("read", whole)]
    receipts = [json.loads(path.read_bytes()) for path in (whole.with_suffix(".build") / "receipts").iterdir()]
    receipts.sort(key=lambda item: item["started"] + item["seconds"])
    peaks = {worker: [r["peak_bytes"] for r in receipts if r["worker"] == worker] for worker in {r["worker"] for r in receipts}}
    sizes = [path.stat().st_size for path in whole.with_suffix(".build").glob("receipts/*")]
    return Run(
        share=share,
        patches=known["scan"]["patches"],
        stages={line["stage"]: line for line in lines},
        worker_peaks=list(peaks.values()),
        receipt_bytes=sum(sizes),
    )


def judge(runs: list[Run]) -> bool:
    """Print every requirement beside its measurement; return whether one is missed."""
    largest, missed = runs[-1], []
    stages = largest.stages
    for name in stages_of(runs):
        if len(runs) > 1:
            missed.append(_require(f"exponent of {name}", exponent(runs, name, "cpu"), LIMIT))
    driver = max(line["driver_peak"] for line in stages.values()) / 1e6
    missed.append(_require("peak memory of the driver, MB", driver, DRIVER_MB))
    missed.append(_require("peak memory of a worker, MB", stages["verify"]["worker_peak"] / 1e6, WORKER_MB))
    ends = [max(max(peaks) for peaks in run.worker_peaks) for run in runs]
    missed.append(_require("largest worker of all sizes against the smallest", max(ends) / min(ends), SPREAD))
    plan, resume = stages["plan"], stages["resume"]
    exact = {
        "every object and pixel verified": all(run.stages["verify"]["passed"] for run in runs),
        "objects as planned": stages["verify"]["objects"] == plan["objects"],
        "resuming wrote only what was missing": all(r.stages["resume"]["resumed"] == r.stages["resume"]["kept"] for r in runs),
        "the resumed cube is the same": all(run.stages["resume"]["same"] for run in runs),
        "all patches opened": stages["open, engine"]["patches"] == largest.patches,
    }
    for name, held in exact.items():
        print(f"  {name}: {'yes' if held else 'NO, MISSED'}")
    print(f"  {plan['tasks']:,} tasks, {plan['objects']:,} objects; killed after {resume['kept']:,} tasks")
    return any(missed) or not all(exact.values())


def _require(what: str, seen: float, most: float) -> bool:
    print(f"  {what}: {seen:,.2f}, at most {most:,}{'' if seen <= most else '  MISSED'}")
    return seen > most


def run(folder: Path, shares: Iterable[int] = SHARES) -> bool:
    """Make the files, measure every size, print and save; return whether a requirement is missed."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe, scenes, begun = write_recipe(folder / "tiny.yaml"), read_scenes(), time.monotonic()
    least = min(shares)
    chosen: list[TinyScene] = scenes[::least]
    files = make_tiny(folder / "files", chosen, recipe)
    print(f"{files:,} files of {SIZE_TEXT} in {len(chosen)} scenes made in {time.monotonic() - begun:.0f} s", flush=True)
    runs = []
    for share in shares:
        source = folder / "files"
        if share != least:
            source = link_scenes(folder / f"files-{share}", source, scenes[::share])
        runs.append(measure(folder, recipe, source, share))
        _save(runs)
        print(f"  1/{share} of the scenes: {runs[-1].patches:,} patches, after {time.monotonic() - begun:.0f} s", flush=True)
    print("\n" + as_table(runs))
    return judge(runs)


SIZE_TEXT = "16 × 16 pixels"


def _save(runs: list[Run]) -> None:
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    document = {"machine": machine, "runs": [vars(run) for run in runs]}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(document, indent=1), encoding="utf-8")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to make files and cubes (a temporary folder by default)")
    parser.add_argument("--shares", type=int, nargs="+", default=SHARES, help="one n-th of the scenes each, largest part last")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="cube-endtoend-"))
    try:
        sys.exit(run(folder, given.shares))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
