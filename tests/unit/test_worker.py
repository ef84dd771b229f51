"""What a batch makes of files it cannot read: of one file it is a gap, of the source it is not."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from making import Built, Made

from cube.store import LocalStore
from cube.worker import read_patches, read_receipt


@dataclass(frozen=True)
class Flaky:
    """A store that answers every request but one."""

    inner: LocalStore
    at: int
    error: OSError
    alive: bool

    def read_many(self, keys: list[str]) -> Iterator[bytes | OSError]:
        for place, data in enumerate(self.inner.read_many(keys)):
            yield self.error if place == self.at else data

    def answers(self) -> bool:
        return self.alive


def read(tiny_cube: Built, made: Made, error: OSError, *, alive: bool = True) -> list[str]:
    store = Flaky(LocalStore(str(made.folder)), 4, error, alive)
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


def test_a_receipt_is_whole_or_none(tiny_cube: Built) -> None:
    kept = tiny_cube.target.build
    data = kept.read(next(iter(kept.list("receipts"))).key)
    whole = read_receipt(data)
    assert whole is not None
    for name in ("stamp", "objects", "columns"):
        assert read_receipt(json.dumps({key: value for key, value in whole.items() if key != name}).encode()) is None
    assert read_receipt(data[:-1]) is None
    assert read_receipt(b"[]") is None
