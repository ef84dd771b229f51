"""What loaders are told: options and saved states, each checked by itself and named with what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cube.errors import RequestError


def require_whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return a whole number if it lies within bounds. Raises ``RequestError`` naming the option and what it may be."""
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not whole or int(value) < least or (most is not None and int(value) > most):
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        raise RequestError(f"{name} is {value!r}: expected a whole number, {allowed}")
    return int(value)


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
    return require_whole("the state's epoch", state["epoch"], 0), require_whole("the state's batch", state["batch"], 0, batches)
