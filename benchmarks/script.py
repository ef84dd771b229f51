"""What many people write today to get patches into Zarr: rioxarray, Dask, ``to_zarr`` with one chunk per patch.

Reasonable code that a reader of the three projects' documentation would arrive at; the competitor of ``convert.py``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import rioxarray
import xarray as xr
from distributed import Client, LocalCluster


def patch_numbers(source: Path, count: int) -> list[tuple[int, int]]:
    """Return (scene, patch number) of the first patches, in order."""
    names = (path.stem.split("_") for path in source.rglob("*_s1_*.tif"))
    return sorted((int(parts[3]), int(parts[4][1:])) for parts in names)[:count]


def open_patches(source: Path, kind: str, numbers: list[tuple[int, int]]) -> xr.DataArray:
    """Return all patches of one modality as one lazy array (patch, band, y, x)."""
    patches = []
    for scene, number in numbers:
        path = source / "ROIs1158_spring" / f"{kind}_{scene}" / f"ROIs1158_spring_{kind}_{scene}_p{number}.tif"
        patch = rioxarray.open_rasterio(path, chunks={})
        # Every patch lies elsewhere: without its own x and y the patches can be stacked.
        patches.append(patch.drop_vars(["x", "y", "spatial_ref", "band"]))
    stacked = xr.concat(patches, dim="patch", combine_attrs="drop_conflicts")
    return stacked.rename(band=f"{kind}_band").chunk(patch=1)


def convert(source: Path, to: str, count: int, client: Client) -> None:
    """Write the first patches of a data set as one Zarr store."""
    numbers = patch_numbers(source, count)
    dataset = xr.Dataset({kind: open_patches(source, kind, numbers) for kind in ("s1", "s2", "lc")})
    dataset["scene"] = "patch", [scene for scene, _ in numbers]
    dataset["number"] = "patch", [number for _, number in numbers]
    client.compute(dataset.to_zarr(to, mode="w", zarr_format=3, consolidated=False, compute=False), sync=True)


def main() -> None:
    """Convert and print how long it took, without the start of Python and the cluster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("--patches", type=int, required=True)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with (
        LocalCluster(n_workers=given.workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        begun = time.monotonic()
        convert(given.source, given.to, given.patches, client)
        print(json.dumps({"patches": given.patches, "seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main()
