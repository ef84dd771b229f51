"""Storage options reach the server: whoever reads a bucket at his own cost says so with every request."""

from __future__ import annotations

import http.server
from pathlib import Path

import numpy as np
import pytest
from making import Built, Made
from web import Ranged, serving

from cube import open_cube
from cube.format.target import target_of
from cube.jobs.copy import copy_cube
from cube.verify.verification import verify_cube


class Paid(Ranged):
    """Serves a bucket as S3 does where the reader pays."""

    def do_GET(self) -> None:
        if self.headers.get("x-amz-request-payer") == "requester":
            super().do_GET()
        else:
            self.send_error(http.HTTPStatus.FORBIDDEN)

    def do_HEAD(self) -> None:
        self.do_GET()


@pytest.fixture
def bucket(tiny_cube: Built, tmp_path: Path) -> Path:
    (tmp_path / "bucket").symlink_to(Path(tiny_cube.url).parent)
    return tmp_path


def test_a_reader_who_pays(bucket: Path, made: Made) -> None:
    with serving(bucket, Paid) as url:
        options = {"key": "k", "secret": "s", "endpoint_url": url, "client_kwargs": {"region_name": "us-east-1"}}
        with pytest.raises(PermissionError):
            open_cube("s3://bucket/tiny.zarr", storage_options=options)
        cube = open_cube("s3://bucket/tiny.zarr", storage_options={**options, "requester_pays": True})
        np.testing.assert_array_equal(cube["s2"][[3, 17]].values, made.array("s2")[[3, 17]])


def test_a_subset_comes_from_a_plain_web_server(tiny_cube: Built, made: Made, tmp_path: Path) -> None:
    with serving(Path(tiny_cube.url).parent, Ranged) as url:
        copied = copy_cube(target_of(f"{url}/tiny.zarr"), target_of(str(tmp_path / "a.zarr")), where="season=summer")
    assert copied.report.passed
    assert verify_cube(target_of(str(tmp_path / "a.zarr"))).passed
    rows = [row for row, name in enumerate(made.ids) if "summer" in name]
    np.testing.assert_array_equal(open_cube(str(tmp_path / "a.zarr"))["lc"].values, made.array("lc")[rows])
