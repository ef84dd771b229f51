"""What loaders are told: options and saved states, each checked by itself and named with what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RequestError

GREATEST = 2**63 - 1
"""Largest number that draws an order."""


def require_whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return a whole number if it lies within bounds. Raises ``RequestError`` naming the option and what it may be."""
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not whole or int(value) < least or (most is not None and int(value) > most):
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        raise RequestError(f"{name} is {value!r}: expected a whole number, {allowed}")
    return int(value)


def require_positions(name: str, values: Any) -> NDArray[np.int64]:
    """Return positions as whole numbers. Raises ``RequestError`` for a mask, a fraction, or anything else that names none."""
    array = np.asarray(values)
    if array.ndim != 1 or not (array.dtype.kind in "iu" or not array.size):
        seen = f"{array.ndim} dimensions of type {array.dtype}"
        raise RequestError(f"{name} has {seen}: expected a list of whole numbers; np.flatnonzero makes one of a mask")
    return array.astype(np.int64)


def require_stack(stack: Any, modalities: Iterable[str], sides: Mapping[str, int]) -> None:
    """Raise ``RequestError`` unless a stack names, under names of their own, modalities that are each joined once.

    ``sides`` is modality → side of its images in pixels, which must be equal for those that are joined.
    """
    if not isinstance(stack, Mapping) or not all(isinstance(names, (list, tuple)) and names for names in stack.values()):
        raise RequestError(f"stack is {stack!r}: expected name → modalities, such as {{'image': ['s1', 's2']}}")
    joined = [name for names in stack.values() for name in names]
    if twice := sorted({name for name in joined if joined.count(name) > 1}):
        raise RequestError(f"stack joins {', '.join(twice)} more than once: expected each modality once")
    for names in stack.values():
        if len({sides[name] for name in names if name in sides}) > 1:
            seen = ", ".join(f"{name} has {sides[name]}" for name in names if name in sides)
            raise RequestError(f"stack joins images of several sizes ({seen} pixels): ask for them one by one, and resample")
    taken = {"patch", "present", *modalities} - set(joined)
    if clash := sorted(taken & set(stack)):
        raise RequestError(f"stack names {', '.join(clash)}, which a batch has already: choose another name")


def require_dtypes(dtypes: Any) -> None:
    """Raise ``RequestError`` unless every modality is given a type of numbers."""
    if not isinstance(dtypes, Mapping):
        raise RequestError(f"dtypes is {dtypes!r}: expected modality → type, such as {{'s2': 'float32'}}")
    for name, dtype in dtypes.items():
        try:
            known = np.dtype(dtype).kind in (*"biuf",)
        except TypeError:
            known = False
        if not known:
            raise RequestError(f"dtypes: the type of {name} is {dtype!r}: expected a type of numbers, such as 'float32'")


def require_known(name: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Raise ``TypeError``, as Python does for a function's own, for an option that there is none of, with the nearest one."""
    for option in options:
        if option not in (names := sorted(known)):
            close = get_close_matches(option, names, n=1)
            meant = f"did you mean {close[0]!r}?" if close else f"expected some of {', '.join(names)}"
            raise TypeError(f"{name}() got an unexpected keyword argument {option!r}: {meant}")


def require_one(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raise ``RequestError`` naming the option unless the value is one of some words."""
    if value not in (known := list(allowed)):
        raise RequestError(f"{name} is {value!r}: expected {' or '.join(map(repr, known))}")


def require_stream(stream: Any) -> None:
    """Raise ``RequestError`` unless a stream is its number and how many there are."""
    if not isinstance(stream, (tuple, list)) or len(stream) != 2:
        raise RequestError(f"stream is {stream!r}: expected the number of the stream and how many there are, such as (0, 1)")
    count = require_whole("stream: how many there are", stream[1], 1)
    require_whole("stream: its number", stream[0], 0, count - 1)


def read_state(state: Any, own: Mapping[str, Any], batches: int) -> tuple[int, int]:
    """Return the epoch and the consumed batches that a saved state tells.

    ``own`` are the values that must be the same as in the state of this loader, ``batches`` its batches in an epoch. Raises
    ``RequestError`` naming what is missing, impossible or of another loader.
    """
    if not isinstance(state, Mapping):
        raise RequestError(f"the state is of type {type(state).__name__}: expected the dictionary that the loader gave")
    keys = {"epoch", "batch", *own}
    if missing := sorted(keys - set(state)):
        raise RequestError(f"the state lacks {', '.join(missing)}: expected the dictionary that the loader gave")
    if different := sorted(name for name in own if state[name] != own[name]):
        raise RequestError(
            f"the state is of another loader ({', '.join(different)} differ): its samples, modalities, batch size, shuffle, "
            "seed, streams and workers must be those of this one"
        )
    return require_whole("the state's epoch", state["epoch"], 0, GREATEST), require_whole(
        "the state's batch", state["batch"], 0, batches
    )
