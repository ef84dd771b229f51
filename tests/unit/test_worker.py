from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from making import Built, Made

from cube.store import LocalStore
from cube.worker import read_patches


@dataclass(frozen=True)
class Flaky:
    """An object store that answers every request but one."""

    inner: LocalStore
    at: int
    error: OSError

    def read_many(self, keys: list[str]) -> Iterator[bytes | OSError]:
        for place, data in enumerate(self.inner.read_many(keys)):
            yield self.error if place == self.at else data


def read(tiny_cube: Built, made: Made, error: OSError) -> list[str]:
    store = Flaky(LocalStore(str(made.folder)), 4, error)
    results = read_patches(tiny_cube.plan.job, tiny_cube.plan.batch(0), store)  # type: ignore[arg-type]
    return [item.reason for _, rejected in results for item in rejected]


def test_a_store_that_does_not_answer_says_nothing_of_the_file(tiny_cube: Built, made: Made) -> None:
    with pytest.raises(OSError, match="reset"):
        read(tiny_cube, made, ConnectionResetError("connection reset"))


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), PermissionError("forbidden")])
def test_a_file_that_is_not_given_is_rejected(tiny_cube: Built, made: Made, error: OSError) -> None:
    assert set(read(tiny_cube, made, error)) == {"unreadable"}
