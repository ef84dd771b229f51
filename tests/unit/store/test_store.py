"""Stores: objects appear whole or not at all, and what cannot be read says so."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cube.errors import RequestError
from cube.format.target import target_of
from cube.store import flushing
from cube.store.local import LocalStore
from cube.store.objects import ObjectStore
from cube.store.protocol import Entry, Range, Store
from cube.store.urls import open_store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "root"))
    return open_store(f"memory://{tmp_path.name}/root")


def named(entry: Entry) -> tuple[str, int]:
    return entry.key, entry.size


def test_writing_reading_listing_and_removing(store: Store) -> None:
    assert list(store.list()) == []
    assert not store.exists("a/b")
    store.write("a/b", b"0123456789")
    store.write("a/b", b"abcdefghij")
    store.write("c", b"")
    assert store.read("a/b") == b"abcdefghij"
    assert store.read_range("a/b", 2, 5) == b"cde"
    assert store.exists("a/b")
    assert sorted(map(named, store.list())) == [("a/b", 10), ("c", 0)]
    assert list(map(named, store.list("a"))) == [("a/b", 10)]
    assert list(store.list("nothing")) == []
    assert store.child("a").read("b") == b"abcdefghij"
    store.remove("a/b")
    assert [entry.key for entry in store.list()] == ["c"]


def test_a_store_that_is_empty_or_gone_does_not_answer(store: Store, tmp_path: Path) -> None:
    assert not store.answers()
    store.write("a/b", b"x")
    assert store.answers()
    if isinstance(store, LocalStore):
        shutil.rmtree(store.root)
        assert not store.answers()
        Path(store.root).write_text("a file")
        assert not store.answers()


def test_a_file_that_is_written_anew_has_another_stamp(tmp_path: Path) -> None:
    store, path = LocalStore(str(tmp_path)), tmp_path / "a"
    path.write_bytes(b"1234")
    (before,) = store.list()
    assert list(store.list()) == [before]
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    (after,) = store.list()
    assert before.stamp
    assert (after.size, after.stamp != before.stamp) == (4, True)


def test_ranges_end_where_the_object_ends(store: Store) -> None:
    store.write("x", b"0123456789")
    assert store.read_range("x", 8, 1 << 40) == b"89"
    assert store.read_ranges([Range("x", 2, 4), Range("x", -3, None), Range("x", 8, 1 << 40)]) == [b"23", b"789", b"89"]


def test_missing_objects(store: Store) -> None:
    store.write("there", b"x")
    for read in (lambda: store.read("gone"), lambda: store.read_range("gone", 0, 1)):
        with pytest.raises(FileNotFoundError):
            read()
    got = list(store.read_many(["there", "gone", "there"]))
    assert got[0] == got[2] == b"x"
    assert isinstance(got[1], FileNotFoundError)
    assert list(store.read_many([])) == []


def test_an_object_appears_when_its_writing_ends(store: Store) -> None:
    with store.writing("deep/er/x") as file:
        file.write(b"part one, ")
        assert not store.exists("deep/er/x")
        assert [entry for entry in store.list() if not entry.key.endswith(".partial")] == []
        file.write(b"part two")
    assert store.read("deep/er/x") == b"part one, part two"
    assert [entry.key for entry in store.list()] == ["deep/er/x"]


@pytest.mark.parametrize("error", [ValueError("no"), OSError(28, "No space left"), KeyboardInterrupt()])
def test_nothing_appears_and_nothing_is_lost_if_writing_fails(store: Store, error: BaseException) -> None:
    store.write("x", b"before")

    def fail(key: str) -> None:
        with store.writing(key) as file:
            file.write(b"half of it")
            raise error

    for key in ("x", "y"):
        with pytest.raises(type(error)):
            fail(key)
    assert store.read("x") == b"before"
    assert [entry.key for entry in store.list()] == ["x"]


def test_one_of_many_writes_a_new_object(store: Store) -> None:
    assert store.write_new("a/x", b"first") == b"first"
    assert store.write_new("a/x", b"second") == b"first"
    assert store.read("a/x") == b"first"
    with ThreadPoolExecutor(8) as pool:
        stands = set(pool.map(lambda number: store.write_new("a/y", b"%d" % number), range(40)))
    assert stands == {store.read("a/y")}
    assert sorted(entry.key for entry in store.list()) == ["a/x", "a/y"]


def test_a_file_system_without_links_knows_one_writer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: str, target: str) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    store = LocalStore(str(tmp_path))
    assert store.write_new("x", b"first") == b"first"
    assert store.write_new("x", b"second") == b"first"
    assert [entry.key for entry in store.list()] == ["x"]


def test_a_lost_answer_is_no_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client tries again after a lost answer, and is told that the object is there: it is its own."""
    store = ObjectStore("memory://lost/root")
    write = MemoryFileSystem.pipe_file

    def lose_the_answer(self: MemoryFileSystem, path: str, value: bytes, mode: str) -> None:
        write(self, path, value, mode=mode)
        raise OSError(errno.EINVAL, "At least one of the pre-conditions you specified did not hold")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", lose_the_answer)
    assert store.write_new("x", b"mine") == b"mine"


def test_a_failure_that_wrote_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: MemoryFileSystem, path: str, value: bytes, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Forbidden")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(PermissionError, match="Forbidden"):
        ObjectStore("memory://refused/root").write_new("x", b"mine")


@pytest.mark.parametrize(
    "url",
    ["s3://key:planted@bucket/a.zarr", "https://me:planted@host/a.zarr", "https://host/a.zarr?X-Amz-Signature=planted"],
)
def test_a_url_with_credentials_is_refused_and_not_shown(url: str) -> None:
    for refuse in (open_store, target_of):
        with pytest.raises(RequestError) as caught:
            refuse(url)
        assert "planted" not in str(caught.value)
        assert "key" not in str(caught.value).replace("KEY", "")


def test_options_are_not_shown() -> None:
    store = open_store("s3://bucket/a.zarr", options={"key": "planted", "secret": "planted"})
    assert "planted" not in f"{store} {store!r} {target_of('s3://bucket/a.zarr', options={'secret': 'planted'})!r}"
    assert pickle.loads(pickle.dumps(store)).options == store.options


def test_a_store_is_a_value_that_travels(store: Store) -> None:
    store.write("x", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.read("x") == b"1"


def test_unfinished_files_lie_where_they_are_told(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "root"), staging=str(tmp_path / "aside"))
    with store.writing("a/b") as file:
        file.write(b"x")
        file.flush()
        assert [path.suffix for path in (tmp_path / "aside").iterdir()] == [".partial"]
        assert list(store.list()) == []
    assert list((tmp_path / "aside").iterdir()) == []
    assert store.read("a/b") == b"x"


def test_local_paths_and_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("here") == LocalStore(str(tmp_path / "here"))
    assert open_store(f"file://{tmp_path}/here").url == str(tmp_path / "here")
    assert open_store("s3://bucket/name/", options={"anon": True}) == ObjectStore("s3://bucket/name", {"anon": True})
    assert open_store("s3://bucket/name").child("c").url == "s3://bucket/name/c"


def test_listing_follows_links_and_tells_broken_ones(tmp_path: Path) -> None:
    (tmp_path / "root/sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/far.tif").write_bytes(b"123")
    (tmp_path / "root/sub/near.tif").write_bytes(b"12345")
    (tmp_path / "root/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/file.tif").symlink_to(tmp_path / "elsewhere/far.tif")
    (tmp_path / "root/broken.tif").symlink_to(tmp_path / "gone")
    (tmp_path / "root/folder.tif").mkdir()
    assert {entry.key: entry.size for entry in LocalStore(str(tmp_path / "root")).list()} == {
        "sub/near.tif": 5, "linked/far.tif": 3, "file.tif": 3, "broken.tif": -1
    }  # fmt: skip


def test_a_link_to_what_it_lies_in_lists_every_file_once(tmp_path: Path) -> None:
    (tmp_path / "root/sub").mkdir(parents=True)
    (tmp_path / "root/sub/a.tif").write_bytes(b"1")
    (tmp_path / "root/sub/up").symlink_to(tmp_path / "root")
    (tmp_path / "root/own").symlink_to("own")
    assert [entry.key for entry in LocalStore(str(tmp_path / "root")).list() if entry.size >= 0] == ["sub/a.tif"]


def test_a_large_file_goes_to_the_disk_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(flushing, "_PIECE", 1000)
    monkeypatch.setattr(os, "fsync", lambda file: sizes.append(os.fstat(file).st_size))
    with LocalStore(str(tmp_path)).writing("a") as file:
        while not sizes:
            file.write(bytes(2**16))
        assert not (tmp_path / "a").exists()
    assert 0 < sizes[0] <= (tmp_path / "a").stat().st_size


def test_what_a_disk_could_not_take_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(flushing, "_PIECE", 1000)
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output error"), LocalStore(str(tmp_path)).writing("a") as file:
        file.write(bytes(2000))
    assert list(tmp_path.iterdir()) == []


def test_a_store_need_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", waited.append)
    for flush in (True, False):
        store = open_store(str(tmp_path), flush=flush).child("below")
        waited.clear()
        for _ in range(2):
            store.keep("a", b"1")
            store.write("b", b"2")
        store.secure(["b"])
        assert bool(waited) == flush


def test_reading_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder.tif").mkdir()
    (got,) = LocalStore(str(tmp_path)).read_many(["folder.tif"])
    assert isinstance(got, IsADirectoryError)
