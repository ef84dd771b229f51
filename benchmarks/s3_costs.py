"""What object storage costs a worker: requests of a batch by method, and CPU seconds of a triplet, on a real S3 server.

Source and target are both on the server (SeaweedFS, on this machine) behind a proxy that counts. One and two whole batches
of true size are written and verified in one process; the difference of the two is one batch. Prints one line of JSON and
writes ``out/s3.json``. ``scaling.py`` takes its constants from here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import s3fs
from latency import far_away
from scenes import make_scenes

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests" / "integration"))
sys.path.append(str(HERE.parent / "tests"))
from servers import S3Server, close_connections, seaweedfs  # noqa: E402

OUT = HERE / "out" / "s3.json"
BATCH = 256
"""Patches in a batch of the recipe."""
STAGE = """
import json, sys, time
from cube.jobs.planning import Chosen, plan_build
from cube.recipes.recipe import read_recipe
from cube.format.target import target_of
from cube.verify.verification import verify_cube
from cube.convert.writer import write_cube

source, to, limit, stage = sys.argv[1:]
target = target_of(to)
begun = time.perf_counter(), time.process_time()
if stage == "write":
    plan = plan_build(read_recipe("sen12ms"), source, Chosen(limit=int(limit)))
    begun = time.perf_counter(), time.process_time()
    receipt = write_cube(plan, target, None).receipts[0]
    facts = {**receipt["objects"], "receipt": len(target.build.read(f"receipts/{receipt['batch']}.json"))}
else:
    report = verify_cube(target)
    assert report.passed
    facts = {}
ended = time.perf_counter(), time.process_time()
print(json.dumps({"seconds": ended[0] - begun[0], "cpu": ended[1] - begun[1], "objects": facts}))
"""


def run(stage: str, source: str, to: str, patches: int) -> dict[str, Any]:
    """Run one stage in a fresh process and return what it says."""
    command = [sys.executable, "-c", STAGE, source, to, str(patches), stage]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout)


def upload(server: S3Server, folder: Path) -> None:
    """Put the files on the server."""
    close_connections()
    store = s3fs.S3FileSystem(endpoint_url=server.endpoint)
    store.put(f"{folder}/", "public/files/", recursive=True)
    close_connections()


def per_batch(stage: str, source: str, place: str, line: Any = None) -> dict[str, Any]:
    """Return the requests and the seconds of one batch, two batches less one, and the bytes of its objects."""
    seen = []
    for batches in (1, 2):
        if line is not None:
            line.proxy.log.clear()
        figures = run(stage, source, f"{place}/{batches}.zarr", batches * BATCH)
        seen.append({**figures, **(dict(line.methods) if line is not None else {})})
    objects = seen[1].pop("objects")
    return {name: seen[1][name] - seen[0].get(name, 0) for name in seen[1]} | {"objects": objects}


def measure(folder: Path) -> dict[str, Any]:
    """Measure everything."""
    files = folder / "files"
    make_scenes(files, 2 * BATCH)
    found = {f"{stage}, disk": per_batch(stage, str(files), str(folder / "disk")) for stage in ("write", "verify")}
    with seaweedfs(folder / "server") as server:
        os.environ.update(server.environment)
        upload(server, files)
        with far_away(int(server.endpoint.rpartition(":")[2]), 0.0) as line:
            os.environ["AWS_ENDPOINT_URL"] = line.url
            for stage in ("write", "verify"):
                found[f"{stage}, S3"] = per_batch(stage, "s3://public/files", "s3://public/cubes", line)
    return found


def main() -> None:
    """Measure, print and save."""
    with tempfile.TemporaryDirectory(prefix="cube-s3-") as folder:
        found = measure(Path(folder))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
