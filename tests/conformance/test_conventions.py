"""The root document's conventions, judged by zarr-cm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import zarr_cm
from making import Built
from zarr_cm import spatial


@pytest.fixture(scope="module")
def root(tiny_cube: Built) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(tiny_cube.url, "zarr.json").read_bytes())
    return document


def test_the_declared_conventions_are_well_formed(root: dict[str, Any]) -> None:
    zarr_cm.validate_convention_metadata_objects(root["attributes"]["zarr_conventions"])
    assert [item["name"] for item in root["attributes"]["zarr_conventions"]] == ["CF", "spatial"]
    assert spatial.CMO in root["attributes"]["zarr_conventions"]


def test_the_group_fits_the_spatial_convention(root: dict[str, Any]) -> None:
    spatial.validate_group_metadata({key: root[key] for key in ("zarr_format", "node_type", "attributes")})
    _, found = spatial.extract(root["attributes"])
    assert found == {
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [32, 32],
        "spatial:transform_type": "per-sample",
    }


def test_nothing_claims_one_grid_for_all_patches(root: dict[str, Any]) -> None:
    text = json.dumps(root)
    for word in ("grid_mapping", "proj:code", "proj:wkt2", 'spatial:transform"', "crs_wkt", "GeoTransform"):
        assert word not in text


def test_the_link_leads_to_the_catalog(root: dict[str, Any]) -> None:
    assert root["attributes"]["catalog"].format(name="tiny") == "../tiny.stac/collection.json"
