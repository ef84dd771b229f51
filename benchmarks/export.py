"""What the way back costs: `cube export` in one process against a bare loop that decodes and writes the same files, in turns.

``python benchmarks/export.py [--patches 600] [--rounds 5]`` prints MB/s and the median of the ratios. The bare loop reads the
same runs of patches, puts header and pixels together and writes; it looks at no certificate and renames nothing.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from scenes import TEXTURE, make_scenes

from cube.cli.main import main as cube
from cube.format.target import target_of
from cube.jobs.export import Wanted, _parts, _planned, export_cube
from cube.jobs.restoring import _read
from cube.jobs.subset import read_headers
from cube.store.urls import open_store


def bare(source: str, to: Path) -> int:
    """Write the files and return their bytes."""
    origin, everything = _planned(target_of(source), Wanted())
    total = 0
    for labels in _parts(everything):
        headers = read_headers(origin.source, origin.header, labels.rows, labels.header_size)
        for kind, name in enumerate(origin.pixels):
            for slot, image in enumerate(_read(origin, name, labels.rows)):
                header, start = headers[slot, kind], int(labels.pixel_start[slot, kind])
                path = to / str(labels.path[slot, kind])
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    file.write(header[:start])
                    total += start + file.write(np.ascontiguousarray(image.transpose(1, 2, 0)).data)
                    total += file.write(header[start:])
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texture", type=Path, default=TEXTURE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, to = Path(name) / "files", Path(name) / "x.zarr"
        make_scenes(source, options.patches, texture=options.texture)
        result = CliRunner().invoke(cube, ["build", "sen12ms", "--source", str(source), "--to", str(to), "--workers", "0"])
        if result.exit_code:
            raise SystemExit(result.output)
        shutil.rmtree(source)
        taken: dict[str, list[float]] = {"bare": [], "export": []}
        size = 0
        for _ in range(options.rounds):
            for kind, seconds in taken.items():
                started = time.perf_counter()
                if kind == "bare":
                    size = bare(str(to), Path(name) / "back")
                else:
                    place = open_store(str(Path(name) / "back"), flush=False)
                    export_cube(target_of(str(to)), place, wanted=Wanted(sums=False))
                seconds.append(time.perf_counter() - started)
                shutil.rmtree(Path(name) / "back")
        for kind, seconds in taken.items():
            print(f"{kind:7} {size / statistics.median(seconds) / 1e6:6.0f} MB/s")
        ratio = statistics.median(one / two for one, two in zip(taken["bare"], taken["export"], strict=True))
        print(f"the way back at {ratio:.2f} of the bare loop")


if __name__ == "__main__":
    main()
