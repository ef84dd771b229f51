"""Published labels and lists are read as numbers and texts; a pickle that wants to run something is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cube.errors import RequestError
from cube.tasks import differences, read_labels, read_list

LABELS = {"ROIs1158_spring_s2_1_p30.tif": [0.75, 0.25], "ROIs1158_spring_s2_1_p31.tif": [0.0, 1.0]}


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/never",)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("kind", [list, np.array, tuple, lambda row: [np.float32(value) for value in row]])
def test_pickles_of_numbers_are_read(tmp_path: Path, protocol: int, kind: Any) -> None:
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps({name: kind(row) for name, row in LABELS.items()}, protocol))
    names, numbers = read_labels(path)
    assert names.tolist() == list(LABELS)
    np.testing.assert_array_equal(numbers, list(LABELS.values()))


def test_texts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"{name} {a} {b}\n" for name, (a, b) in LABELS.items()))
    names, numbers = read_labels(path)
    assert dict(zip(names.tolist(), numbers.tolist(), strict=True)) == LABELS
    path.write_text("\n".join(LABELS))
    assert read_list(path).tolist() == list(LABELS)


@pytest.mark.parametrize("what", [Evil(), {"a": Evil()}, {"a": [1, Evil()]}, [Evil], {"a": np.array([Evil()], object)}])
def test_nothing_is_run(tmp_path: Path, what: Any) -> None:
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps(what))
    with pytest.raises(RequestError, match="refused"):
        read_labels(path)
    assert not Path("/tmp/never").exists()


@pytest.mark.parametrize("what", [[1, 2], {1: [2]}, {"a": [1], "b": [1, 2]}, {"a": ["x"]}, {}])
def test_pickles_of_something_else_are_refused(tmp_path: Path, what: Any) -> None:
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps(what))
    with pytest.raises(RequestError):
        read_labels(path)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x04\x95", b"name x y\n", b"\x80\x05.", b"\x80\x04(."])
def test_damaged_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "labels"
    path.write_bytes(data)
    with pytest.raises(RequestError):
        read_labels(path)


def test_files_that_are_not_there_are_told(tmp_path: Path) -> None:
    for read in (read_labels, read_list):
        with pytest.raises(RequestError, match="No such file"):
            read(tmp_path / "none")


def test_labels_that_differ_are_named() -> None:
    theirs = np.array([[0.5, 0.5], [1, 0], [0, 1]])
    assert differences(["a", "b", "c"], theirs, ["c", "a"], np.array([[0, 1], [0.5, 0.5]])) == []
    assert differences(["a", "b", "c"], theirs, ["c", "a", "x"], np.array([[0, 1], [0.4, 0.6], [9, 9]])) == ["a"]
    assert differences(["a"], theirs[:1], ["a"], np.array([[np.nan, 0.5]])) == ["a"]
    with pytest.raises(RequestError, match="not one patch"):
        differences(["a"], theirs[:1], ["b"], theirs[:1])
    with pytest.raises(RequestError, match="numbers a patch"):
        differences(["a"], theirs[:1], ["a"], np.array([[1.0]]))
