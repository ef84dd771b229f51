"""Cubes on a real S3 server: written, verified, read by anybody, and equal to those on a disk byte by byte."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import s3fs
import xarray as xr
from making import BANDS, Built, Made, build, write_recipe
from servers import S3Server, close_connections, seaweedfs

from cube import Samples
from cube.convert.preparation import claimed
from cube.errors import TargetError
from cube.format.target import target_of
from cube.jobs.export import export_cube
from cube.store import failures as answers
from cube.store.urls import open_store
from cube.verify.verification import verify_cube


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweedfs(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


@pytest.fixture(scope="module")
def environment(server: S3Server) -> Iterator[None]:
    """Make every S3 client of this process use the server."""
    close_connections()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield
    close_connections()


@pytest.fixture(scope="module")
def remote(environment: None, made: Made, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The cube of ``made`` on S3; its files lie on a disk."""
    recipe = write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml")
    return build(recipe, made.folder, "s3://public/cubes/tiny.zarr")


@pytest.fixture
def anonymous(server: S3Server) -> dict[str, Any]:
    """Storage options of somebody without any credentials."""
    return {"anon": True, "endpoint_url": server.endpoint}


def objects_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_whole_object_is_read_with_one_request(remote: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = s3fs.S3FileSystem._call_s3

    async def counting(system: Any, method: str, *arguments: Any, **options: Any) -> Any:
        asked.append(method)
        return await ask(system, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counting)
    store = open_store(remote.url)
    root = store.read("zarr.json")
    assert next(iter(store.read_many(["zarr.json", "patch/zarr.json"]))) == root
    assert asked == ["get_object"] * 3


def test_browsers_are_told_what_a_document_is(environment: None, server: S3Server) -> None:
    store, client = open_store("s3://public/documents"), server.client()
    for name, kind in {"a.html": "text/html", "b.json": "application/json", "c.png": "image/png"}.items():
        store.write(name, b"{}")
        assert client.head_object(Bucket="public", Key=f"documents/{name}")["ContentType"].startswith(kind)
    client.close()


def test_objects_are_those_of_the_cube_on_a_disk(remote: Built, tiny_cube: Built, server: S3Server) -> None:
    there, here = server.objects("public", "cubes/tiny.zarr/"), objects_of(Path(tiny_cube.url))
    assert there.keys() == here.keys()
    assert [key for key in here if there[key] != here[key]] == []
    assert len(here) == remote.plan.objects


def test_verifies_through_s3(remote: Built, made: Made) -> None:
    report = verify_cube(target_of(remote.url), source=str(made.folder))
    assert report.passed
    assert {check.name for check in report.checks} >= {"objects", "pixels", "source", "certificate"}


def test_verification_on_s3_can_fail(remote: Built, server: S3Server, made: Made) -> None:
    client, flipped = server.client(), "s2/c/1/0/0/0"
    for key, data in server.objects("public", "cubes/tiny.zarr/").items():
        body = data[:50] + bytes([data[50] ^ 1]) + data[51:] if key == flipped else data
        if key != "lc/c/0/0/0/0":
            client.put_object(Bucket="private", Key=f"damaged.zarr/{key}", Body=body)
    report = verify_cube(target_of("s3://private/damaged.zarr"))
    assert not report.passed
    findings = [(finding.check, finding.where, finding.what) for finding in report.findings]
    assert ("objects", "lc/c/0/0/0/0", "it is missing") in findings
    assert any(made.ids[16] in f"{where} {what}" for _, where, what in findings), findings


def test_anybody_opens_it_with_plain_xarray(remote: Built, tiny_cube: Built, made: Made, anonymous: dict[str, Any]) -> None:
    there = xr.open_zarr(remote.url, storage_options=anonymous)
    assert there["patch"].values.tolist() == made.ids
    for name in BANDS:
        np.testing.assert_array_equal(there[name].values, made.array(name))
    xr.testing.assert_identical(there.load(), xr.open_zarr(tiny_cube.url).load())


def test_anybody_opens_a_part_of_it(remote: Built, made: Made, anonymous: dict[str, Any]) -> None:
    opened = xr.open_zarr(remote.url, chunks=None, storage_options=anonymous)
    part = opened.sel(season="summer", s2_band=["B04", "B03", "B02"]).chunk(patch=8)
    rows = [row for row, name in enumerate(made.ids) if made.scenes[name].season == "summer"]
    np.testing.assert_array_equal(part["s2"].values, made.array("s2")[rows][:, [3, 2, 1]])


def test_anybody_reads_only_what_is_public(remote: Built, server: S3Server, anonymous: dict[str, Any]) -> None:
    """The server does check who asks: without this, the tests above would say little."""
    server.client().put_object(Bucket="private", Key="object", Body=b"secret")
    nobody = fsspec.filesystem("s3", **anonymous)
    with pytest.raises(PermissionError):
        nobody.cat_file("private/object")
    with pytest.raises(PermissionError):
        nobody.pipe_file("public/object", b"not allowed")


def test_running_again_does_nothing(remote: Built, server: S3Server, made: Made, tmp_path: Path) -> None:
    before = server.client().list_objects_v2(Bucket="public", Prefix="cubes/")["Contents"]
    again = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, remote.url)
    after = server.client().list_objects_v2(Bucket="public", Prefix="cubes/")["Contents"]
    assert again.written.resumed == again.plan.tasks
    zarr = [(item["Key"], item["LastModified"], item["ETag"]) for item in before if ".zarr/" in item["Key"]]
    assert zarr == [(item["Key"], item["LastModified"], item["ETag"]) for item in after if ".zarr/" in item["Key"]]


def test_an_interrupted_build_goes_on(environment: None, server: S3Server, made: Made, tmp_path: Path) -> None:
    """What an interruption leaves behind: finished shards and receipts, no root."""
    recipe, to = write_recipe(tmp_path / "tiny.yaml"), "s3://public/resumed.zarr"
    whole = build(recipe, made.folder, to)
    objects = server.objects("public", "resumed.zarr/")
    for key in ("zarr.json", "s2/c/1/0/0/0"):
        server.client().delete_object(Bucket="public", Key=f"resumed.zarr/{key}")
    again = build(recipe, made.folder, to)
    assert (whole.written.resumed, again.written.resumed) == (0, again.plan.tasks - 1)
    assert server.objects("public", "resumed.zarr/") == objects


def test_files_on_s3_are_a_source(environment: None, server: S3Server, made: Made, tiny_cube: Built, tmp_path: Path) -> None:
    client = server.client()
    for path in made.files.values():
        key = f"patches/{path.relative_to(made.folder).as_posix()}"
        client.put_object(Bucket="private", Key=key, Body=path.read_bytes())
    source = "s3://private/patches"
    built = build(write_recipe(tmp_path / "tiny.yaml"), source, tmp_path / "x.zarr")
    assert objects_of(tmp_path / "x.zarr") == objects_of(Path(tiny_cube.url))
    assert verify_cube(built.target, source=source).passed


def test_a_target_that_cannot_be_written_is_refused(remote: Built, anonymous: dict[str, Any]) -> None:
    target = target_of("s3://public/x.zarr", options=anonymous)
    with pytest.raises(TargetError, match=r"s3://public/x\.zarr: cannot be written"), claimed(remote.plan, target):
        pytest.fail("it can be written")


# The store itself


@pytest.fixture
def small_spool(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have objects of more than 5 MiB go to a file first and up in parts, as those of more than 32 MiB do."""
    limit = 5 * 2**20
    monkeypatch.setattr("cube.store.objects.SPOOL_LIMIT", limit)
    return limit


@pytest.mark.parametrize("more", [-1, 0, 1, 2**20, 5 * 2**20, 7 * 2**20 + 3])
def test_objects_of_many_sizes_arrive_whole(environment: None, small_spool: int, more: int) -> None:
    store = open_store("s3://private/store")
    data = np.random.default_rng(1).bytes(small_spool + more)
    with store.writing("a/b") as file:
        file.write(data[:7])
        file.write(data[7:])
    assert store.read("a/b") == data
    assert store.read_range("a/b", len(data) - 11, len(data)) == data[-11:]
    assert [(entry.key, entry.size) for entry in store.list("a")] == [("a/b", len(data))]
    store.remove("a/b")
    assert not store.exists("a/b")
    assert list(store.list()) == []


@pytest.mark.parametrize("size", [10, 11 * 2**20])
def test_an_object_whose_writing_fails_does_not_appear(environment: None, small_spool: int, size: int) -> None:
    store = open_store("s3://private/failing")

    def write() -> None:
        with store.writing("object") as file:
            file.write(bytes(size))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write()
    assert not store.exists("object")


def test_an_object_whose_upload_fails_does_not_appear(
    environment: None, server: S3Server, small_spool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing an S3 file publishes what it has; after a failed part that would be half an object."""
    upload, calls = s3fs.core.S3File._upload_chunk, []

    def fail_once(file: Any, final: bool = False) -> Any:
        calls.append(final)
        if len(calls) == 2:
            raise OSError("connection lost")
        return upload(file, final)

    monkeypatch.setattr(s3fs.core.S3File, "_upload_chunk", fail_once)
    monkeypatch.setattr(answers, "PATIENCE", 0.0)
    store = open_store("s3://private/failing")
    with pytest.raises(OSError, match="connection lost"), store.writing("object") as file:
        file.write(bytes(3 * small_spool + 5))
    assert not store.exists("object")
    assert "Uploads" not in server.client().list_multipart_uploads(Bucket="private")
    assert len(calls) == 2


def test_one_of_many_writes_a_new_object(environment: None, server: S3Server) -> None:
    store = open_store("s3://private/claims")
    with ThreadPoolExecutor(4) as pool:
        stands = set(pool.map(lambda number: store.write_new("x", b"%d" % number), range(8)))
    assert stands == {store.read("x")} == {server.objects("private", "claims/")["x"]}
    assert store.write_new("x", b"late") in stands


def test_missing_objects_are_told_apart(environment: None) -> None:
    store = open_store("s3://private/few")
    store.write("one", b"1")
    got = list(store.read_many(["one", "two", "one"]))
    assert got[0] == got[2] == b"1"
    assert isinstance(got[1], FileNotFoundError)
    assert list(store.read_many([])) == []
    with pytest.raises(FileNotFoundError):
        store.read("two")


@pytest.mark.parametrize("key", ["a b/ö ü.tif", "a[1]/b*.tif", "a%20b/+&=.tif", "a#b/c?.tif"])
def test_keys_of_every_kind(environment: None, key: str) -> None:
    store = open_store(f"s3://private/odd-{len(key)}")
    store.write(key, b"data")
    assert [entry.key for entry in store.list()] == [key]
    assert store.read(key) == b"data"
    assert list(store.read_many([key])) == [b"data"]
    store.remove(key)


def test_a_prefix_is_a_folder(environment: None) -> None:
    store = open_store("s3://private/folder")
    store.write("a/x", b"1")
    store.write("ab/x", b"22")
    assert sorted(entry.key for entry in store.list("a")) == ["a/x"]
    assert sorted(entry.key for entry in store.child("ab").list()) == ["x"]
    assert list(store.list("none")) == []


def test_an_index_is_asked_for_once(remote: Built, anonymous: dict[str, Any]) -> None:
    samples = Samples(remote.url, storage_options=anonymous)
    samples.read([20, 3, 8, 17])
    before = {name: reader.traffic.requests for name, reader in samples.readers.items()}
    samples.read([20, 3, 8, 17])
    again = {name: reader.traffic.requests - before[name] for name, reader in samples.readers.items()}
    assert all(again[name] == before[name] - 2 for name in before)  # two shards, their indexes are known now


@pytest.mark.parametrize("name", ["all.tar.gz", "all.tar", "all.zip"])
def test_archives_are_read_where_they_lie(
    environment: None, server: S3Server, made: Made, remote: Built, tmp_path: Path, name: str
) -> None:
    paths = sorted(path.relative_to(made.folder).as_posix() for path in made.files.values())
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in paths:
                archive.write(made.folder / path, path)
    else:
        with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as archive:
            for path in paths:
                archive.add(made.folder / path, path)
    folder = name.replace(".", "-")
    open_store(f"s3://public/{folder}").write(name, (tmp_path / name).read_bytes())
    recipe = write_recipe(tmp_path / "tiny.yaml")
    expected = cube_objects("s3://public/cubes/tiny.zarr")
    build(recipe, f"s3://public/{folder}", tmp_path / "prefix.zarr")
    build(recipe, f"{server.endpoint}/public/{folder}/{name}", tmp_path / "web.zarr")
    built = build(recipe, f"s3://public/{folder}/{name}", f"s3://public/{folder}/tiny.zarr")
    assert objects_of(tmp_path / "prefix.zarr") == expected
    assert objects_of(tmp_path / "web.zarr") == expected
    assert cube_objects(f"s3://public/{folder}/tiny.zarr") == expected
    assert verify_cube(built.target, source=f"s3://public/{folder}").passed


def cube_objects(url: str) -> dict[str, bytes]:
    store = open_store(url)
    return {entry.key: store.read(entry.key) for entry in store.list()}


def test_files_come_back_from_s3_and_to_it(remote: Built, made: Made, tmp_path: Path) -> None:
    told = export_cube(remote.target, open_store("s3://private/back"))
    assert told.equal == 0
    again = export_cube(remote.target, open_store("s3://private/back"))
    assert again.standing == again.exact == told.exact
    here = export_cube(remote.target, open_store(str(tmp_path / "back")))
    assert here.sums == told.sums
    for path in (tmp_path / "back").rglob("*.tif"):
        assert path.read_bytes() == (made.folder / path.relative_to(tmp_path / "back")).read_bytes()
