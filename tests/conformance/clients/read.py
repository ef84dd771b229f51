"""Read a published catalog with clients nobody here wrote; print what they found. Arguments: client, URL of the folder."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import fsspec


def by_pystac_client(url: str) -> Any:
    """Walk a static catalog from its root to every item."""
    import pystac_client

    client = pystac_client.Client.open(f"{url}/catalog.json")
    (collection,) = client.get_collections()
    items = list(collection.get_items())
    return {
        "collection": collection.id,
        "items": {item.id: item.assets["zarr"].get_absolute_href() for item in items},
        "table": collection.assets["items"].get_absolute_href(),
    }


def by_xpystac(url: str, asset: str) -> Any:
    """Hand an asset of the collection to xarray."""
    import pystac
    import xarray as xr

    collection = pystac.Collection.from_file(f"{url}/collection.json")
    collection.make_asset_hrefs_absolute()  # xpystac takes an href as it stands
    try:
        opened = xr.open_dataset(collection.assets[asset], engine="stac")
    except UnboundLocalError as error:
        return {"refused": repr(error)}
    first = opened["s2"].isel(patch=0).values
    return {"patches": opened.sizes["patch"], "sum": int(first.sum())}


def by_stac_geoparquet(url: str) -> Any:
    """Turn the rows of the table into items, through pyarrow."""
    import pyarrow.parquet as pq
    import pystac
    from stac_geoparquet.arrow import stac_table_to_items

    with fsspec.open(f"{url}/items.parquet") as file:
        items = list(stac_table_to_items(pq.read_table(file)))
    return [pystac.Item.from_dict(item).to_dict(transform_hrefs=False) for item in items]


def by_duckdb(url: str) -> Any:
    """Ask the table in SQL."""
    import duckdb
    import pyarrow.dataset as ds
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    system, path = fsspec.core.url_to_fs(f"{url}/items.parquet")
    items = ds.dataset(path, filesystem=PyFileSystem(FSSpecHandler(system)), format="parquet")
    question = """
        select id from items
        where "patchcube:season" = 'spring' and "class:IGBP:urban_and_built_up_lands" > 0.1 and bbox.xmin < 180
        order by "patchcube:index"
    """
    rows = duckdb.connect().register("items", items).execute(question).fetchall()
    return [patch for (patch,) in rows]


def by_geopandas(url: str) -> Any:
    """Read some rows by their boxes."""
    import geopandas

    west, south, east, north = -180, -90, 180, 90
    with fsspec.open(f"{url}/items.parquet") as file:
        frame = geopandas.read_parquet(file, bbox=(west, south, east, north), columns=["id", "geometry", "bbox"])
    return {"ids": frame["id"].tolist(), "crs": str(frame.crs), "valid": bool(frame.geometry.is_valid.all())}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    client, *arguments = sys.argv[1:]
    print(json.dumps(globals()[f"by_{client}"](*arguments)))
