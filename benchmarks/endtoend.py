"""SEN12MS with its true names and grids but tiny patches, end to end, at 1/16, 1/4 and all of its scenes.

    python benchmarks/endtoend.py                  # all sizes; also part of `make scale`
    python benchmarks/endtoend.py --shares 64      # a short form of 1/64 of the scenes, which fits no exponent

Each build is killed with all its processes when half of its batches are done, and resumed. The smallest size is built once
more without that: both cubes must have the very same root document, which certifies every byte below it. Prints a table
and each requirement beside what was measured, writes ``out/endtoend.json`` and exits with 1 if a requirement is missed.
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

import psutil
from growth import LIMIT, Run, as_table, exponent, stages_of
from tiny import link_scenes, make_tiny, read_scenes, write_recipe

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


def kill_at_half(recipe: Path, source: Path, to: Path) -> list[dict[str, Any]]:
    """Start a build, kill its whole process group when half of its batches are done, and return what it said and took."""
    command, receipts = _command(("build", recipe, source, to)), to.with_suffix(".build") / "receipts"
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, text=True)
    assert driver.stdout is not None
    lines = [json.loads(driver.stdout.readline()) for _ in range(3)]
    half = lines[1]["tasks"] // 2
    while driver.poll() is None and count_files(receipts) < half:
        time.sleep(0.05)
    seconds, cpu, peak = time.time() - lines[2]["begun"], psutil.Process(driver.pid).cpu_times(), peak_of(driver.pid)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    if driver.returncode != -signal.SIGKILL or (to / "zarr.json").exists():
        raise SystemExit(f"the build was over before it was killed (exit code {driver.returncode})")
    done = read_receipts(to)
    half_line = {
        "stage": "write until killed",
        "seconds": seconds,
        "driver_cpu": cpu.user + cpu.system - lines[2]["cpu"],
        "driver_peak": peak,
        "workers_cpu": sum(receipt["cpu_seconds"] for receipt in done),
        "worker_peak": max(receipt["peak_bytes"] for receipt in done),
        "done": len(done),
    }
    return [*lines[:2], half_line]


def count_files(folder: Path) -> int:
    """Count the files of a folder that may not exist yet."""
    return len(os.listdir(folder)) if folder.exists() else 0


def peak_of(process: int) -> int:
    """Return the largest resident size of a running process in bytes."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def read_receipts(to: Path) -> list[dict[str, Any]]:
    """Return the receipts of a build in the order in which they were written."""
    paths = (to.with_suffix(".build") / "receipts").glob("*.json")
    receipts = [{**json.loads(path.read_bytes()), "columns": None, "bytes": path.stat().st_size} for path in paths]
    return sorted(receipts, key=lambda item: item["started"] + item["seconds"])


def measure(folder: Path, recipe: Path, source: Path, share: int) -> Run:
    """Take one size through every stage."""
    to = folder / f"cube-{share}.zarr"
    lines = kill_at_half(recipe, source, to)
    rest = {line.get("stage", ""): line for line in run_stages("build", recipe, source, to)}
    resumed = {**rest["write"], "stage": "resume"}
    lines += [resumed, rest["verify"], rest["catalog"], *run_stages("read", to)]
    receipts = read_receipts(to)
    workers = {receipt["worker"]: [] for receipt in receipts}
    for receipt in receipts:
        workers[receipt["worker"]].append(receipt["peak_bytes"])
    return Run(
        share=share,
        patches=lines[0]["patches"],
        stages={line["stage"]: line for line in lines},
        worker_peaks=list(workers.values()),
        receipt_bytes=sum(receipt["bytes"] for receipt in receipts),
    )


def uninterrupted(folder: Path, recipe: Path, source: Path, share: int) -> bool:
    """Build one size again without a kill; return whether its root document is that of the resumed cube."""
    to = folder / "uninterrupted.zarr"
    run_stages("build", recipe, source, to, "--until", "write")
    return (to / "zarr.json").read_bytes() == (folder / f"cube-{share}.zarr" / "zarr.json").read_bytes()


def judge(runs: list[Run], *, same: bool) -> bool:
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
    plan, kept = stages["plan"], stages["write until killed"]["done"]
    exact = {
        "every object and pixel verified": all(run.stages["verify"]["passed"] for run in runs),
        "objects as planned": stages["verify"]["objects"] == plan["objects"],
        "resuming wrote only what was missing": all(
            run.stages["resume"]["resumed"] == run.stages["write until killed"]["done"] for run in runs
        ),
        "a resumed cube is the same as one never killed": same,
        "all patches opened": stages["open, engine"]["patches"] == largest.patches,
    }
    for name, held in exact.items():
        print(f"  {name}: {'yes' if held else 'NO, MISSED'}")
    print(f"  {plan['tasks']:,} tasks, {plan['objects']:,} objects; killed after {kept:,} tasks")
    return any(missed) or not all(exact.values())


def _require(what: str, seen: float, most: float) -> bool:
    print(f"  {what}: {seen:,.2f}, at most {most:,}{'' if seen <= most else '  MISSED'}")
    return seen > most


def run(folder: Path, shares: Iterable[int], out: Path) -> bool:
    """Make the files, measure every size, print and save; return whether a requirement is missed."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe, scenes, begun = write_recipe(folder / "tiny.yaml"), read_scenes(), time.monotonic()
    files, all_scenes = folder / "files", scenes[:: min(shares)]
    if not files.exists():
        count = make_tiny(files, all_scenes, recipe)
        print(f"{count:,} files of {len(all_scenes)} scenes made in {time.monotonic() - begun:.0f} s", flush=True)
    runs, same = [], True
    for share in shares:
        source = link_scenes(folder / f"files-{share}", files, scenes[::share])
        runs.append(measure(folder, recipe, source, share))
        _save(runs, out)
        print(f"  1/{share} of the scenes: {runs[-1].patches:,} patches, after {time.monotonic() - begun:.0f} s", flush=True)
        if share == max(shares):
            same = uninterrupted(folder, recipe, source, share)
    print("\n" + as_table(runs))
    return judge(runs, same=same)


def _save(runs: list[Run], out: Path) -> None:
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    document = {"machine": machine, "runs": [vars(run) for run in runs]}
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(document, indent=1), encoding="utf-8")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to make files and cubes (a temporary folder by default)")
    parser.add_argument("--shares", type=int, nargs="+", default=SHARES, help="one n-th of the scenes each, largest part last")
    parser.add_argument("--out", type=Path, default=OUT, help="where to keep every figure")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="cube-endtoend-"))
    try:
        sys.exit(run(folder, given.shares, given.out))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
