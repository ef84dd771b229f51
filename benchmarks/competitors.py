"""What is measured: each competitor as one subprocess, and the figures it leaves behind."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECIPE = "sen12ms"
Samples = dict[tuple[Any, ...], list[dict[str, Any]]]
"""What was run, such as ``("build", "balanced", 2, 672)``, and the figures of each repeat."""


@dataclass
class Bench:
    """Where a run works, and what it has measured so far."""

    folder: Path
    """Scratch folder; holds the data set and whatever a competitor writes until it is removed."""
    paths: list[str] = field(default_factory=list)
    """Files of the data set in the order of its patches, three for each."""
    samples: Samples = field(default_factory=dict)

    @property
    def source(self) -> Path:
        """The data set."""
        return self.folder / "files"

    def first(self, patches: int) -> Path:
        """Return a folder that holds the first patches only: hard links, so the files stay in memory once."""
        folder = self.folder / f"files-{patches}"
        if not folder.exists():
            for path in self.paths[: 3 * patches]:
                link = folder / path
                link.parent.mkdir(parents=True, exist_ok=True)
                link.hardlink_to(self.source / path)
        return folder

    def record(self, key: tuple[Any, ...], figures: dict[str, Any]) -> None:
        """Keep the figures of one run and say them."""
        self.samples.setdefault(key, []).append(figures)
        print(f"  {' '.join(map(str, key)):34} {figures['seconds']:8.2f} s", file=sys.stderr, flush=True)

    def scratch(self) -> Path:
        """Return an empty folder to write to, with earlier output gone and the disk at rest."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        os.sync()
        return out


def run_json(command: list[str | Path]) -> tuple[dict[str, Any], float, float]:
    """Run a command; return the JSON it prints, the wall seconds and the CPU seconds of it and its children."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout), seconds, cpu


def warm(source: Path) -> None:
    """Read every file once, so that all competitors find them in memory alike."""
    for path in source.rglob("*.tif"):
        with path.open("rb", buffering=0) as file:
            while file.read(2**22):
                pass


def run_script(bench: Bench, patches: int) -> None:
    """Measure the script people write today."""
    out = bench.scratch() / "script.zarr"
    command = [sys.executable, HERE / "script.py", "--source", bench.first(patches), "--to", out, "--patches", patches]
    figures, wall, cpu = run_json([*command, "--workers", 2])
    bench.record(("script", patches), {**figures, "wall_seconds": wall, "cpu_seconds": cpu})


def run_bare(bench: Bench, profile: str, patches: int, *, shared: bool) -> None:
    """Measure the bare loop, with shared tiles or with every tile encoded."""
    out = bench.scratch()
    command = [sys.executable, HERE / "bare.py", "--source", bench.source, "--to", out, "--recipe", RECIPE]
    command += ["--profile", profile, "--patches", patches, *([] if shared else ["--unshared"])]
    bench.record(("bare" if shared else "unshared", profile, patches), run_json(command)[0])


def run_writing(bench: Bench, profile: str, sizes: tuple[int, ...]) -> None:
    """Measure the writing stage alone, and decoding."""
    out = bench.scratch()
    command = [sys.executable, HERE / "write_only.py", "--source", bench.source, "--to", out, "--recipe", RECIPE]
    figures = run_json([*command, "--profile", profile, "--patches", *sizes])[0]
    for run in figures["runs"]:
        bench.record(("writing", profile, run["patches"]), {**run, "decoded": figures["decoded"]})


def run_build(bench: Bench, profile: str, workers: int, patches: int) -> None:
    """Measure the whole command ``cube build``, verification included."""
    out = bench.scratch()
    command = [Path(sys.executable).with_name("cube"), "build", RECIPE, "--source", bench.first(patches)]
    command += ["--to", out / "cube.zarr", "--workers", workers, "--profile", profile, "--json"]
    document, wall, cpu = run_json(command)
    if not document["report"]["passed"] or document["patches"] != patches:
        raise SystemExit(f"cube build did not pass its verification or lost patches: {document['patches']} of {patches}")
    receipts = [json.loads(path.read_bytes()) for path in sorted((out / "cube.build" / "receipts").iterdir())]
    figures = {
        "patches": patches,
        "seconds": wall,
        "cpu_seconds": cpu,
        "writing_cpu_seconds": sum(receipt["cpu_seconds"] for receipt in receipts),
        "peak_bytes": max(receipt["peak_bytes"] for receipt in receipts),
        "stored_bytes": sum(path.stat().st_size for path in (out / "cube.zarr").rglob("*") if path.is_file()),
        "figures": document["figures"],
    }
    bench.record(("build", profile, workers, patches), figures)
