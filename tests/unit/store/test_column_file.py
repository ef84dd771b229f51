"""Parts of a Parquet object, read by ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cube.store.parquet
from cube.errors import CorruptError
from cube.store.local import LocalStore
from cube.store.parquet import ColumnFile
from cube.store.urls import open_store

ROWS, GROUP = 5000, 1000


@pytest.fixture(scope="module")
def table() -> pa.Table:
    rng = np.random.default_rng(1)
    pair = pa.StructArray.from_arrays([pa.array(rng.random(ROWS)), pa.array(np.arange(ROWS))], names=["x", "n"])
    texts = pa.array([f"row {i:05}" for i in range(ROWS)])
    lists = pa.array([[i, i + 1] for i in range(ROWS)])
    wide = {f"wide{i}": pa.array(rng.random(ROWS)) for i in range(20)}
    return pa.table({"text": texts, "pair": pair, "list": lists, **wide, "some": pa.array([None, 1] * (ROWS // 2))})


@pytest.fixture(scope="module")
def store(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    folder = tmp_path_factory.mktemp("parquet")
    pq.write_table(table, folder / "t.parquet", row_group_size=GROUP, compression="zstd")
    opened = open_store(str(folder))
    assert isinstance(opened, LocalStore)
    return opened


@pytest.fixture
def short_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than what is read at once."""
    monkeypatch.setattr(cube.store.parquet, "_TAIL", 4096)
    monkeypatch.setattr(cube.store.parquet, "_GAP", 16)


@pytest.mark.parametrize("columns", [["text"], ["pair"], ["pair.x"], ["list"], ["some", "wide3"], ["text", "pair.n"]])
@pytest.mark.parametrize("groups", [[0], [1, 3], [0, 1, 2, 3, 4], []])
@pytest.mark.usefixtures("short_tail")
def test_parts_are_what_the_whole_file_says(store: LocalStore, table: pa.Table, columns: list[str], groups: list[int]) -> None:
    file = ColumnFile(store, "t.parquet")
    rows = [row for group in groups for row in range(group * GROUP, (group + 1) * GROUP)]
    with pq.ParquetFile(f"{store.url}/t.parquet") as whole:
        expected = whole.read(columns=columns).take(pa.array(rows, pa.int64()))
    assert file.read(columns, groups).combine_chunks().equals(expected.combine_chunks())


@pytest.mark.usefixtures("short_tail")
def test_only_what_is_needed_is_read_and_nothing_twice(store: LocalStore) -> None:
    size = (Path(store.url) / "t.parquet").stat().st_size
    file = ColumnFile(store, "t.parquet")
    file.read(["text"], [2])
    requests, read = file.requests, file.bytes_read
    assert requests == 3  # the end, the whole footer, one column
    assert read < size / 4
    file.read(["text"], [2])
    assert (file.requests, file.bytes_read) == (requests, read)
    file.read(["text"], [2, 3])
    assert file.requests == requests + 1


def test_a_small_file_is_read_at_once(store: LocalStore, table: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cube.store.parquet, "_TAIL", 2**24)
    file = ColumnFile(store, "t.parquet")
    assert file.read(table.schema.names, file.groups).combine_chunks().equals(table.combine_chunks())
    assert file.requests == 1


def test_limits_are_those_recorded(store: LocalStore) -> None:
    file = ColumnFile(store, "t.parquet")
    assert file.starts.tolist() == [0, 1000, 2000, 3000, 4000, 5000]
    assert file.limits("pair.n", 2) == (2000, 2999)
    assert file.limits("text", 0) == ("row 00000", "row 00999")
    assert file.limits("none", 0) is None


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all", b"x" * 100 + (2**30).to_bytes(4, "little") + b"PAR1"])
def test_what_is_no_parquet_file_is_said_to_be_damaged(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises(CorruptError, match="no Parquet file"):
        _ = ColumnFile(open_store(str(tmp_path)), "t.parquet").metadata


def test_damaged_pages_are_said_to_be_damaged(store: LocalStore, tmp_path: Path) -> None:
    data = bytearray(store.read("t.parquet"))
    data[4:400] = bytes(396)
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises(CorruptError, match="or damaged"):
        ColumnFile(open_store(str(tmp_path)), "t.parquet").read(["text"], [0])


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _ = ColumnFile(open_store(str(tmp_path)), "t.parquet").metadata
