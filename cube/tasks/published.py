"""Labels and lists as they were published beside a data set, read without trusting them."""

from __future__ import annotations

import io
import pickle  # nosec B403
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cube.errors import RequestError

_NUMPY = {
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
}
"""What a pickle of NumPy arrays of numbers names."""
_MOST_BYTES = 1 << 30


class _Numbers(pickle.Unpickler):
    """Reads numbers, texts, lists, dictionaries and NumPy arrays of numbers; everything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NUMPY:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no number")
        return super().find_class(module, name)


def read_labels(path: str | Path) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """Return the files that published labels name (patch), and their numbers (patch, class), such as shares of classes.

    Two kinds of file are read: pickles, as SEN12MS has them, of a mapping of file names to lists of numbers, and texts of one
    file name and its numbers a line. A pickle can run code where it is read by ``pickle.load``; here nothing but
    numbers and texts is made of it, and all else is refused. Source: ``splits/`` of https://github.com/schmitt-muc/SEN12MS.

    Raises ``RequestError`` for a file that holds anything else.
    """
    data = _read(path)
    if data[:1] == b"\x80":
        try:
            found = _Numbers(io.BytesIO(data)).load()  # nosec B301
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise RequestError(f"{path}: refused: {error}") from None
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise RequestError(f"{path}: expected a mapping of file names to numbers")
        names, values = list(found), list(found.values())
    else:
        rows = [line.split() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
        names, values = [row[0] for row in rows], [row[1:] for row in rows]
    try:
        numbers = np.array(values, np.float64).reshape(len(names), -1)
    except (ValueError, TypeError):
        raise RequestError(f"{path}: expected as many numbers for each file") from None
    if not numbers.size:
        raise RequestError(f"{path}: holds no labels")
    return np.array(names, str), numbers


def read_list(path: str | Path) -> NDArray[np.str_]:
    """Return the file names of a published list, one a line, in its order. Raises ``RequestError`` for a file that is none."""
    names = _read(path).decode("utf-8", "replace").split()
    if not names or any("\ufffd" in name for name in names):
        raise RequestError(f"{path}: expected the name of a file in each line")
    return np.array(names, str)


def differences(
    names: ArrayLike, theirs: NDArray[Any], ids: ArrayLike, ours: NDArray[Any], *, within: float = 1e-6
) -> list[str]:
    """Return the patches of which published numbers (patch, class) differ from others by more than ``within``.

    ``names`` are ids, as ``ids`` are; those that one of both lacks are not compared. Raises ``RequestError`` where the numbers
    of classes differ, or where nothing can be compared.
    """
    known, place = np.asarray(ids, str), np.asarray(names, str)
    shared, here, there = np.intersect1d(place, known, return_indices=True)
    if not len(shared):
        raise RequestError("not one patch has published numbers: are the names ids of the cube?")
    if theirs.shape[1:] != ours.shape[1:]:
        raise RequestError(f"published are {theirs.shape[1]} numbers a patch, compared with {ours.shape[1]}")
    far = ~(np.abs(np.asarray(theirs)[here] - np.asarray(ours)[there]) <= within).all(axis=1)
    differing: list[str] = shared[far].tolist()
    return differing


def _read(path: str | Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise RequestError(f"{path}: more than {_MOST_BYTES:,} bytes, so it is no list of labels")
    return data
