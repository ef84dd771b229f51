"""``make demo-s3``: the whole round on a real S3 server of this machine, which is gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fsspec
from servers import S3Server, seaweedfs

from cube.source.demo import make_demo

_READ = """
import xarray as xr
from cube import open_cube

anybody = {"anon": True}
plain = xr.open_zarr("s3://public/demo.zarr", chunks=None, storage_options=anybody)
summer = plain.sel(season="summer", s2_band=["B04", "B03", "B02"])
print("plain xarray:", dict(summer["s2"].sizes), "mean", float(summer["s2"].mean()))
engine = open_cube("s3://public/demo.zarr", where="season=summer", storage_options=anybody)
part = engine["s2"].sel(s2_band=["B04", "B03", "B02"])
print("cube engine: ", dict(part.sizes), "mean", float(part.mean()))
subset = xr.open_zarr("demo-s3/summer.zarr", chunks=None)
print("the subset:  ", subset.sizes["patch"], "patches, equal:", bool((subset["s2"].values == engine["s2"].values).all()))
try:
    open_cube("s3://private/again.zarr", storage_options=anybody)
except PermissionError as error:
    print("what is not public:", type(error).__name__)
"""


def run(words: list[str], environment: dict[str, str], folder: Path, *, expected: int = 0) -> None:
    """Show a command and run it; end with its exit code if that is another than expected."""
    print(f"\n$ {' '.join(words)}", flush=True)
    command = [sys.executable, "-m", *words] if words[0] == "cube" else words
    code = subprocess.run(command, env=environment, cwd=folder, check=False).returncode
    if code != expected:
        sys.exit(code or 1)


def main() -> None:
    """Make files, serve them from S3, and go round."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, seaweedfs(Path(folder) / "server") as server:
        work = Path(folder)
        print(f"An S3 server (SeaweedFS) runs at {server.endpoint}. Of its two buckets, anybody may read `public`.")
        upload(server, work)
        environment = {**os.environ, **server.environment}
        sample = ["--sample", "20"]
        here = ["--workers", "0"]  # two batches: processes of their own would take longer to start
        run(
            ["cube", "build", "demo", "--source", "s3://private/files", "--to", "s3://public/demo.zarr", *sample, *here],
            environment,
            work,
            expected=3,  # one of the demo's files is broken
        )
        run(["cube", "verify", "s3://public/demo.zarr", "--source", "s3://private/files", *here], environment, work)
        run(["cube", "copy", "s3://public/demo.zarr", "s3://private/again.zarr", *here], environment, work)
        run(
            ["cube", "copy", "s3://public/demo.zarr", "demo-s3/summer.zarr", "--where", "season=summer", *here],
            environment,
            work,
        )
        run(["cube", "info", "demo-s3/summer.zarr"], environment, work)
        run(["cube", "clean", "s3://public"], environment, work)
        print("\nNow without any credentials:")
        print(_READ.rstrip())
        nobody = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
        nobody |= {"AWS_ENDPOINT_URL": server.endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
        subprocess.run([sys.executable, "-c", _READ], env=nobody, cwd=work, check=True)
    print(f"\nDone in {time.monotonic() - started:.0f} s; the server and its data are gone.")


def upload(server: S3Server, folder: Path) -> None:
    """Make the files of the demo data set and put them into the private bucket."""
    print(f"The demo data set, put to s3://private/files: {make_demo(folder / 'files')}")
    keys = {"key": server.environment["AWS_ACCESS_KEY_ID"], "secret": server.environment["AWS_SECRET_ACCESS_KEY"]}
    fsspec.filesystem("s3", endpoint_url=server.endpoint, **keys).put(f"{folder}/files/", "private/files/", recursive=True)


if __name__ == "__main__":
    main()
