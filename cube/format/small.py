"""Whole small arrays of a cube: labels, constants and the originals' records, to and from a store."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import CorruptError
from cube.format.arrays import ArraySpec, decode_chunk, encode_chunk
from cube.store.failures import undamaged
from cube.store.protocol import Readable, Store


def read_array(store: Readable, spec: ArraySpec) -> NDArray[Any]:
    """Return the values of one small array of a cube.

    Raises ``CorruptError`` naming the chunk if one is damaged or cannot be read.
    """
    parts, left = [], spec.shape[0]
    keys = list(spec.object_keys())
    for key, data in zip(keys, store.read_many(keys), strict=True):
        if isinstance(data, OSError):
            raise CorruptError(f"{key}: cannot be read: {data}") from data
        try:
            chunk = undamaged(partial(decode_chunk, spec), data, partial(store.read, key))
        except CorruptError as error:
            raise CorruptError(f"{key}: {error}") from None
        parts.append(chunk[:left])  # the last chunk is stored whole
        left -= len(parts[-1])
    return np.concatenate(parts)


def write_array(store: Store, spec: ArraySpec, values: NDArray[Any]) -> list[str]:
    """Write every chunk of one small array; return their keys."""
    length, keys = spec.chunks[0], list(spec.object_keys())
    for place, key in enumerate(keys):
        store.write(key, encode_chunk(spec, values[place * length : (place + 1) * length]))
    return keys
