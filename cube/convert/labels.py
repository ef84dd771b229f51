"""The per-patch coordinates and the originals' records: from plan and receipts to arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.convert.plan import Plan
from cube.format.originals import ORIGINALS
from cube.format.tiles import DIGEST_SIZE
from cube.geo.grid import centres
from cube.geo.projection import numbered
from cube.records.receipts import Receipt

Arrays = dict[str, NDArray[Any]]


def label_values(plan: Plan, receipts: Iterable[Receipt]) -> Arrays:
    """Return the values of every per-patch array but the headers, which the workers wrote, and ``crs_wkt`` where needed.

    ``receipts`` come in the order of the batches, each with its columns.
    """
    columns = _join(plan, receipts)
    values = {**_from_inventory(plan), **_from_receipts(plan, columns)}
    if plan.recipe.source.georeference == "file":
        values |= _places(plan, columns)
    return values


def _join(plan: Plan, receipts: Iterable[Receipt]) -> dict[str, NDArray[Any]]:
    kinds = len(plan.job.layouts)
    parts: dict[str, list[NDArray[Any]]] = {}
    array: NDArray[Any]
    for receipt in receipts:
        for name, column in receipt["columns"].items():
            if name == "crs":
                array = np.array([column[0][row] if row >= 0 else "" for row in column[1]], object)
            elif name == "transform":
                array = np.array([row or [np.nan] * 6 for row in column], np.float64)
            elif isinstance(column, str):
                array = np.frombuffer(bytes.fromhex(column), np.uint8).reshape(-1, kinds, DIGEST_SIZE)
            else:
                array = np.array(column, np.int64)
            parts.setdefault(name, []).append(array)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _from_inventory(plan: Plan) -> Arrays:
    inventory, recipe = plan.inventory, plan.recipe
    seasons = np.array(inventory.seasons)[inventory.season]
    values: Arrays = {
        "patch": inventory.patch.astype(str),
        "season": seasons,
        "scene": inventory.scene,
        "number": inventory.number,
        f"{ORIGINALS}/path": _padded(inventory.images, recipe.layout.path_bytes),
    }
    values |= inventory.labels
    if recipe.splits is not None:
        splits = {key: recipe.split_of(*key) for key in inventory.scene_keys()}
        values["split"] = np.array([splits[season, int(scene)] for season, scene in zip(seasons, inventory.scene, strict=True)])
    return values


def _padded(texts: NDArray[Any], length: int) -> NDArray[np.uint8]:
    joined = b"".join(text.encode().ljust(length, b"\0") for text in texts.ravel())
    return np.frombuffer(joined, np.uint8).reshape(*texts.shape, length)


def _from_receipts(plan: Plan, columns: Arrays) -> Arrays:
    stored = columns["header_size"] >= 0
    counts = {name: columns[name] for name in ("nan_count", "zero_count", "saturated_count", "kept", "digest")}
    counts |= _defects(plan, columns)
    originals = {f"{ORIGINALS}/{name}": columns[name] for name in ("header_size", "pixel_start", "size")}
    return {"present": stored, **counts, **originals, f"{ORIGINALS}/digest": columns["header_digest"]}


def _defects(plan: Plan, columns: Arrays) -> Arrays:
    """Return what may be wrong with the images of each patch (patch), as :data:`cube.format.defects.DEFECTS` says."""
    recipe, layouts = plan.recipe, plan.job.layouts
    measured = [not any(band.legend for band in modality.bands) for modality in recipe.modalities.values()]
    pixels = np.array([layout.size**2 * layout.bands for layout in layouts.values()])
    nothing = (columns["header_size"] >= 0) & (columns["nan_count"] + columns["zero_count"] == pixels)
    known = {defect.patch for defect in recipe.known_defects}
    return {
        "nan": columns["nan_count"].sum(axis=1),
        "saturated": columns["saturated_count"].sum(axis=1),
        "constant": columns["constant"][:, measured].sum(axis=1),
        "empty": nothing.sum(axis=1),
        "masked": columns["masked"].sum(axis=1),
        "known_defect": np.array([patch in known for patch in plan.inventory.patch.tolist()]),
    }


def _places(plan: Plan, columns: Arrays) -> Arrays:
    epsg, transform, wkt = columns["epsg"], columns["transform"], columns["crs"]
    definitions = {text: row for row, text in enumerate(text for text in dict.fromkeys(wkt.tolist()) if text)}
    pointing = np.array([definitions.get(text, -1) for text in wkt.tolist()], np.int64)
    lon, lat = centres(numbered(epsg, pointing), transform, plan.recipe.patch.size, list(definitions))
    defined: Arrays = {"crs_index": pointing, "crs_wkt": np.array(list(definitions))} if definitions else {}
    return {"epsg": epsg, "transform": transform, "lon": lon, "lat": lat, **defined}
