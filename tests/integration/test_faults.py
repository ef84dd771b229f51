"""Whatever fails between a build, its files and its cube: tried again or told, and the same bytes in the end."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from drills import Ground, full_disk, ground
from making import MODALITIES
from servers import close_connections

import cube.store.objects
from cube import Samples, open_cube
from cube.errors import CorruptError, CubeError
from cube.store.protocol import Entry
from cube.store.urls import open_store

SEED = 20
QUICK = 10
"""Seconds within which a request that is refused must end; nothing waits for it."""
PASSING = {
    "slowdown": [("PUT", "/s2/c/"), ("GET", r"\.tif")],
    "error500": [("PUT", "/receipts/"), ("GET", "list-type")],
    "reset": [("PUT", "/s1/c/"), ("GET", r"\.tif")],
    "reset_after": [("PUT", "/lc/c/"), ("PUT", r"\.zarr/zarr.json")],
    "stall": [("PUT", "/lat/c/"), ("GET", r"\.tif")],
    "stall_body": [("GET", r"\.tif")],
    "truncate": [("GET", r"\.tif"), ("GET", "/s2/c/")],
    "truncate_fin": [("GET", r"\.tif"), ("GET", "/receipts/"), ("GET", "/lc/c/")],
    "corrupt": [("GET", r"\.tif"), ("GET", "/s1/c/")],
    "corrupt_unnoticed": [("GET", r"\.tif"), ("GET", "/receipts/"), ("GET", "/epsg/c/"), ("GET", r"\.zarr/zarr.json")],
    "corrupt_upload": [("PUT", "/s1/c/"), ("PUT", "/patch/c/")],
}
"""Faults that a build must get over by itself: method and path of the requests they befall."""


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("ground")) as given:
        yield given


@pytest.fixture(scope="module")
def standing(field: Ground) -> str:
    """A cube with its catalog. Read only."""
    field.proxy.clear()
    to = field.target()
    assert field.build(to).exit_code == 0
    return to


@pytest.fixture(autouse=True)
def calm(field: Ground) -> Iterator[None]:
    """Begin and end each test with nothing going wrong."""
    field.proxy.clear()
    yield
    field.proxy.clear()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cube.store.failures.PATIENCE", 0.5)


def test_a_build_gets_over_every_fault_that_passes(field: Ground) -> None:
    rng = random.Random(SEED)
    rules = [
        field.proxy.inject(kind, method=method, path=path, at=rng.random(), seconds=3)
        for kind, places in PASSING.items()
        for method, path in places
    ]
    to = field.target()
    result = field.build(to)
    assert result.exit_code == 0, f"seed {SEED}: {result.output}"
    assert [rule for rule in rules if not rule.fired] == [], f"seed {SEED}"
    assert field.objects(to) == field.reference


@pytest.mark.parametrize(
    ("kind", "method", "path", "code", "message"),
    [
        ("denied", "GET", "list-type", 1, "s3://private/files: Access Denied; check the credentials"),
        ("expired", "GET", r"_p1\.tif", 1, "_p1.tif: The provided token has expired; check the credentials"),
        ("denied", "GET", r"_p1\.tif", 1, "_p1.tif: Access Denied; check the credentials"),
        ("expired", "HEAD", "zarr.json", 1, "zarr.json: Bad Request; servers answer so to expired credentials"),
        ("no_bucket", "PUT", "", 2, "The specified bucket does not exist; create the bucket, or mend its name"),
        ("denied", "PUT", "/s2/c/", 1, "/s2/c/0/0/0/0: Access Denied; check the credentials"),
        ("expired", "PUT", r"\.zarr/zarr.json", 1, "/zarr.json: The provided token has expired; check the credentials"),
    ],
)
def test_a_build_that_is_refused_says_so_at_once(
    field: Ground, kind: str, method: str, path: str, code: int, message: str
) -> None:
    rule, to, begun = field.proxy.inject(kind, method=method, path=path, times=None), field.target(), time.monotonic()
    result = field.build(to)
    assert (result.exit_code, rule.fired > 0) == (code, True)
    assert message in result.stderr.splitlines()[-1]
    assert time.monotonic() - begun < QUICK
    if method == "PUT":
        field.proxy.clear()
        assert field.finish(to) == 1


@pytest.mark.parametrize("kind", ["denied", "expired", "no_bucket"])
@pytest.mark.parametrize("command", ["plan", "verify", "info"])
def test_other_commands_say_so_too(field: Ground, kind: str, command: str) -> None:
    rule, begun = field.proxy.inject(kind, times=None), time.monotonic()
    where = [str(field.recipe), "--source", field.source] if command == "plan" else ["s3://private/cube-1.zarr"]
    result = field.run(command, *where)
    assert result.exit_code in (1, 2)
    assert "cube: s3://private/" in result.stderr
    assert ("create the bucket" if kind == "no_bucket" else "check the credentials") in result.stderr
    assert rule.fired
    assert time.monotonic() - begun < QUICK


@pytest.mark.parametrize("kind", ["denied", "expired", "no_bucket"])
def test_readers_say_so_too(field: Ground, kind: str) -> None:
    samples = Samples("s3://private/cube-1.zarr")
    field.proxy.inject(kind, times=None)
    for read in (lambda: open_cube("s3://private/cube-1.zarr"), lambda: samples.read([0])):
        with pytest.raises(OSError, match=r"s3://private/cube-1\.zarr/.*; (check the credentials|create the bucket)"):
            read()


def test_a_server_that_is_gone_is_told_after_some_tries(field: Ground, impatient: None) -> None:
    rule = field.proxy.inject("slowdown", times=None)
    result = field.build(field.target())
    assert result.exit_code == 1
    assert "Please reduce your request rate; the server is overloaded" in result.stderr
    assert rule.fired > 5


def test_a_file_that_always_arrives_damaged_is_never_stored(field: Ground, impatient: None) -> None:
    """No checksum of the server tells of it: only the MD5 in the listing of the files does."""
    rule = field.proxy.inject("corrupt_unnoticed", method="GET", path=r"s2_3_p4\.tif", times=None, at=0.9)
    to = field.target()
    result = field.build(to)
    assert result.exit_code == 1
    assert rule.fired > 1
    assert "_s2_3_p4.tif: its MD5 is " in result.stderr
    assert field.objects(to).keys() <= field.reference.keys() - {"zarr.json", "s2/c/1/0/0/0"}
    field.proxy.clear()
    assert field.finish(to) == 1


def test_a_file_that_always_arrives_short_is_never_called_bad(field: Ground, impatient: None) -> None:
    field.proxy.inject("truncate_fin", method="GET", path=r"s2_3_p4\.tif", times=None)
    result = field.build(to := field.target())
    assert result.exit_code == 1
    assert "bytes arrived, the listing says" in result.stderr
    field.proxy.clear()
    assert field.finish(to) == 1


def test_etags_that_are_no_md5_are_not_taken_for_one(field: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where AWS encrypts with a key of the owner, an ETag looks like an MD5 and is none; HEAD says so."""
    store = open_store("s3://private/kms")
    store.write("a", b"12345")
    entry = Entry("a", 5, f'"{32 * "0"}"')
    monkeypatch.setattr("cube.store.failures.PATIENCE", 0.2)
    (refused,) = store.read_listed([entry])
    assert isinstance(refused, OSError)
    fs, _ = store._open()  # type: ignore[attr-defined]
    monkeypatch.setattr(fs, "call_s3", lambda method, **names: {"ServerSideEncryption": "aws:kms", "ETag": entry.stamp})
    assert list(store.read_listed([entry])) == [b"12345"]
    (short,) = store.read_listed([Entry("a", 6, entry.stamp)])
    assert isinstance(short, OSError)


def test_an_upload_that_arrives_damaged_unnoticed_is_found_and_written_again(
    field: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that neither signs the body nor sends a checksum, as none does by default."""

    def careless(url: str, options: Any) -> dict[str, Any]:
        s3 = {"payload_signing_enabled": False}
        return {**options, "config_kwargs": {"s3": s3, "request_checksum_calculation": "when_required"}}

    to = field.target()
    rule = field.proxy.inject("corrupt_upload", method="PUT", path="/s2/c/0")
    with monkeypatch.context() as patch:
        patch.setattr(cube.store.objects, "with_defaults", careless)
        result = field.build(to)
    assert (result.exit_code, rule.fired) == (1, 1)
    assert "s2/c/0/0/0/0" in result.output
    assert not field.server.objects("private", to.removeprefix("s3://private/").replace(".zarr", ".stac"))
    assert field.finish(to) == 1


@pytest.mark.parametrize("kind", ["reset", "reset_after", "error500"])
@pytest.mark.parametrize(("method", "query"), [("POST", "uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId")])
def test_an_object_of_many_parts_arrives_whole(
    field: Ground, monkeypatch: pytest.MonkeyPatch, kind: str, method: str, query: str
) -> None:
    """Where the answer to the last request is lost, the upload is unknown afterwards: all of it is sent again."""
    monkeypatch.setattr(cube.store.objects, "SPOOL_LIMIT", 5 * 2**20)
    store, data = open_store("s3://private/parts"), random.Random(SEED).randbytes(11 * 2**20)
    rule = field.proxy.inject(kind, method=method, path=query)
    with store.writing("large") as file:
        file.write(data)
    assert rule.fired == 1
    assert store.read("large") == data


def test_a_disk_that_is_full_while_an_object_is_kept_for_its_upload(field: Ground) -> None:
    to = field.target()
    with full_disk(2048):
        result = field.build(to)
    assert result.exit_code == 1
    assert "File too large; free some space (there and in the temporary folder) and run again" in result.stderr
    assert "s2/c/0/0/0/0" not in field.objects(to)
    assert field.finish(to) == 1


def test_a_driver_that_is_killed_goes_on(field: Ground) -> None:
    to = field.target()
    command = [sys.executable, "-m", "cube", *field.arguments(to), "--workers", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        field.wait_for("PUT", "/s2/c/0")
        driver.kill()
    assert driver.wait() < 0
    assert field.finish(to) == 1


# Readers


def test_readers_get_over_every_fault_that_passes(field: Ground) -> None:
    places = [("/zarr.json", 0), *((f"/{name}/c/", skip) for name in MODALITIES for skip in (0, 2))]  # an index, then tiles
    for kind in ("slowdown", "error500", "reset", "reset_after", "truncate", "truncate_fin", "corrupt", "corrupt_unnoticed"):
        field.proxy.clear()
        rules = [field.proxy.inject(kind, method="GET", path=path, skip=skip) for path, skip in places]
        got = Samples("s3://private/cube-1.zarr").read(range(6))
        for name in MODALITIES:
            np.testing.assert_array_equal(got[name], field.made.array(name), err_msg=kind)
        assert [rule for rule in rules if not rule.fired] == []


def test_an_object_that_is_damaged_is_named(field: Ground, tmp_path: Path) -> None:
    field.build(to := field.target())
    store = open_store(to)
    data = bytearray(store.read("s2/c/1/0/0/0"))
    data[40] ^= 1
    store.write("s2/c/1/0/0/0", bytes(data))
    samples = Samples(to)
    with pytest.raises(CorruptError, match=r"s2/c/1/0/0/0, byte 0: the checksum of a tile is wrong"):
        samples.read([4])
    np.testing.assert_array_equal(samples.read([3])["s2"][0], field.made.array("s2")[3])


# What a build and its readers ask for


def test_a_build_writes_every_object_once_and_reads_none_of_its_data(field: Ground) -> None:
    to = field.target()
    assert field.build(to).exit_code == 0
    cube = f"/{to.removeprefix('s3://')}/"
    log = [(item.method, item.path.removeprefix(cube)) for item in field.proxy.log]
    written = [key for method, key in log if method == "PUT" and not key.startswith("/")]
    written.remove("modality/c/0")  # written beforehand, too, to see whether the cube can be written
    assert sorted(written) == sorted(field.reference)
    assert [key for method, key in log[: log.index(("PUT", "zarr.json"))] if method == "GET" and "/c/" in key] == []
    receipts = [key for method, key in log if method == "PUT" and "/receipts/" in key]
    assert len(receipts) == len(set(receipts)) == 2
    files = [(method, key) for method, key in log if key.endswith(".tif")]
    assert sorted(files) == sorted(
        ("GET", f"/private/files/{file.relative_to(field.made.folder)}") for file in field.made.files.values()
    )
    for shard in field.shards:
        assert log.count(("GET", shard)) == 2  # the verification: its index, and its tiles


def test_a_run_of_patches_is_one_request_a_shard(field: Ground) -> None:
    samples = Samples("s3://private/cube-1.zarr")
    field.proxy.log.clear()
    samples.read(range(6))
    for key in field.shards:
        ranges = [item.range for item in field.proxy.log if item.path == f"/private/cube-1.zarr/{key}"]
        assert len(ranges) == 2
        assert ranges[0].startswith("bytes=-")
    assert len(field.proxy.log) == 2 * len(field.shards)
    field.proxy.log.clear()
    samples.read(range(6))
    assert len(field.proxy.log) == len(field.shards)  # the indexes are known


def test_opening_asks_for_what_is_promised(field: Ground) -> None:
    cube = "/private/cube-1.zarr/"
    open_cube("s3://private/cube-1.zarr")
    assert field.proxy.counts() == {("GET", f"{cube}zarr.json"): 1, ("GET", f"{cube}patch/c/0"): 1}
    field.proxy.clear()
    plain = xr.open_zarr("s3://private/cube-1.zarr", chunks=None, zarr_format=3)
    gets = [item.path.removeprefix(cube) for item in field.proxy.log if item.method == "GET"]
    assert sorted(gets) == sorted(["zarr.json", *(f"{name}/c/0" for name in plain.xindexes)])
    assert {item.status for item in field.proxy.log} == {200}


ALL_KINDS = ("error500", "slowdown", "reset", "stall_body", "truncate", "truncate_fin", "corrupt", "latency")


def uses(field: Ground, to: str) -> dict[str, Any]:
    """Return what people do with a cube on S3, each giving what it found; nothing but reads befalls the proxy."""

    def command(*words: str) -> Any:
        def run() -> str:
            result = field.run(*words)
            assert result.exit_code == 0, (words, result.output)
            return re.sub(r"written \d+ s ago", "written just now", result.stdout)

        return run

    def copied(*more: str) -> Any:
        def run() -> dict[str, bytes]:
            with tempfile.TemporaryDirectory() as folder:
                result = field.run("copy", to, f"{folder}/x.zarr", *more, "--workers", "0")
                assert result.exit_code == 0, (more, result.output)
                return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder, "x.zarr").rglob("*.json")}

        return run

    def samples() -> bytes:
        values = Samples(to, incomplete="keep").read([0, 2])["s1"]
        return bytes(values.tobytes())

    def pixels() -> Any:
        with open_cube(to) as cube:
            return cube.s2.isel(patch=[0, 3]).values.tobytes()

    return {
        "info": command("info", to),
        "info --patch": command("info", to, "--patch", "ROIs1970_fall_3_p1"),
        "search": command("search", to, "--where", "scene=3 and class:Urban>=0"),
        "verify": command("verify", to, "--workers", "0"),
        "verify --source": command("verify", to, "--source", field.source, "--workers", "0"),
        "verify --catalog": command("verify", to, "--catalog", "--workers", "0"),
        "copy": copied(),
        "copy --where": copied("--where", "number>2"),
        "clean": command("clean", to.rpartition("/")[0]),
        "plan": command("plan", str(field.recipe), "--source", field.source),
        "open_cube": pixels,
        "Samples": samples,
    }


READING = ("verify", "search", "copy", "open_cube", "Samples")
"""What reads most; with the judges everything meets every fault."""


@pytest.mark.parametrize(
    "kind", [kind if kind == "corrupt" else pytest.param(kind, marks=pytest.mark.judges) for kind in ALL_KINDS]
)
def test_every_command_and_reader_gets_over_what_passes(field: Ground, kind: str) -> None:
    to = field.target()
    assert field.build(to).exit_code == 0
    rng = random.Random(f"{SEED} {kind}")
    for name in READING if kind == "corrupt" else uses(field, to):
        use = uses(field, to)[name]
        field.proxy.clear()
        close_connections()
        wanted = use()
        # Nothing tells of a flipped bit in a listing, and of one in the footer of a table the checksum of the whole file alone.
        path = "^(?!.*(parquet|list-type))" if kind == "corrupt" else ""
        asked = [item for item in field.proxy.log if item.method == "GET" and re.search(path, f"{item.path}?{item.query}")]
        field.proxy.clear()
        close_connections()
        rules = [
            field.proxy.inject(kind, method="GET", path=path, skip=skip, at=rng.random(), seconds=3)
            for skip in sorted(rng.sample(range(len(asked)), min(3, len(asked))))
        ]
        assert use() == wanted, (SEED, kind, name)
        assert not asked or any(rule.fired for rule in rules), (kind, name)


@pytest.mark.parametrize("name", ["info", "search", "verify", "copy", "clean", "plan", "open_cube", "Samples"])
def test_every_command_and_reader_says_what_does_not_pass(field: Ground, standing: str, name: str, impatient: None) -> None:
    to = standing
    close_connections()
    field.proxy.inject("denied", method="GET", times=None)
    started = time.monotonic()
    with pytest.raises((AssertionError, CubeError, PermissionError)) as caught:
        uses(field, to)[name]()
    assert "Access Denied" in str(caught.value) or "not sound" in str(caught.value).lower()
    assert "Traceback" not in str(caught.value)
    assert time.monotonic() - started < QUICK
