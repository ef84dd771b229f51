"""What a batch makes of files it cannot read: of one file it is a gap, of the source it is not."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from making import Built, Made

from cube.convert.worker import read_patches
from cube.records.receipts import read_receipt, receipt_bytes
from cube.store.local import LocalStore
from cube.store.protocol import Entry


@dataclass(frozen=True)
class Flaky:
    """A store that answers every request but one."""

    inner: LocalStore
    at: int
    error: OSError
    alive: bool

    url: str = "/here"

    def read_listed(self, entries: list[Entry]) -> Iterator[bytes | OSError]:
        for place, data in enumerate(self.inner.read_listed(entries)):
            yield self.error if place == self.at else data

    def answers(self) -> bool:
        return self.alive


def read(tiny_cube: Built, made: Made, error: OSError, *, alive: bool = True, url: str = "/here") -> list[str]:
    store = Flaky(LocalStore(str(made.folder)), 4, error, alive, url)
    results = read_patches(tiny_cube.plan.job, tiny_cube.plan.batch(0), store)  # type: ignore[arg-type]
    return [item.reason for _, rejected in results for item in rejected]


OF_A_FILE = [
    FileNotFoundError("gone"),
    PermissionError("forbidden"),
    IsADirectoryError("a folder"),
    NotADirectoryError("no folder"),
    OSError(errno.EIO, "a bad sector"),
]


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError("connection reset"), OSError(errno.ESTALE, "stale"), OSError("slow down"), TimeoutError("timed out")],
)
def test_a_store_that_does_not_answer_says_nothing_of_the_file(tiny_cube: Built, made: Made, error: OSError) -> None:
    with pytest.raises(OSError, match=re.escape(str(error))):
        read(tiny_cube, made, error)


@pytest.mark.parametrize("error", OF_A_FILE)
def test_a_file_that_is_not_given_is_rejected(tiny_cube: Built, made: Made, error: OSError) -> None:
    assert set(read(tiny_cube, made, error)) == {"unreadable"}


@pytest.mark.parametrize("error", OF_A_FILE)
def test_a_file_of_a_source_that_is_gone_is_no_gap(tiny_cube: Built, made: Made, error: OSError) -> None:
    with pytest.raises(OSError, match=re.escape(str(error))):
        read(tiny_cube, made, error, alive=False)


def test_an_object_store_that_gives_no_permission_does_not_mean_one_file(tiny_cube: Built, made: Made) -> None:
    with pytest.raises(PermissionError, match="forbidden"):
        read(tiny_cube, made, PermissionError("forbidden"), url="s3://bucket/files")


def test_a_receipt_is_whole_or_none(tiny_cube: Built) -> None:
    kept = tiny_cube.target.build
    data = kept.read(next(iter(kept.list("receipts"))).key)
    whole = read_receipt(data)
    assert whole is not None
    for name in ("stamp", "objects", "columns"):
        assert read_receipt(receipt_bytes({key: value for key, value in whole.items() if key != name})) is None
    assert read_receipt(receipt_bytes(whole)) == whole
    for damaged in (data[:-1], b"", b"[]", json.dumps(whole).encode()):
        assert read_receipt(damaged) is None


def test_a_receipt_with_any_flipped_bit_is_none(tiny_cube: Built) -> None:
    kept = tiny_cube.target.build
    data = kept.read(next(iter(kept.list("receipts"))).key)
    assert json.loads(data)["seal"]
    for place in range(0, len(data), 7):
        assert read_receipt(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]) is None
