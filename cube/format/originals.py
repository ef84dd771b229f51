"""What a cube keeps of its source files besides pixels, both directions: how much of each file, in chunks of one length.

The headers of a batch are an array (patch, modality, byte) that is cut along its bytes: the first chunk of each batch is
always stored, a further one only where a header reaches into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cube.format.arrays import ArraySpec, chunk_key, encode_chunk

ORIGINALS = "originals"
"""Group that keeps what the source files hold besides pixels."""
HEADERS = f"{ORIGINALS}/header"
KEPT = ("nothing", "pixels", "tags", "header", "bytes")
"""What comes back of a file: nothing; its pixels and place; these and its tags; these and its whole header; every byte."""
NOTHING, PIXELS, TAGS, HEADER, BYTES = range(len(KEPT))


def kept(header: bytes, tags: bytes | None, pixel_start: int) -> tuple[bytes, int]:
    """Return the bytes that are stored of a header, and what comes back by them.

    ``tags`` are those of a header that is too long to be kept, empty where they are too long as well. What is left out is
    certified: the stored bytes end with its BLAKE3.
    """
    if tags is None:
        return header, HEADER if pixel_start < 0 else BYTES
    digest = blake3(header).digest()
    return (tags + digest, TAGS) if tags else (digest, PIXELS)


def header_spec(spec: ArraySpec, longest: int) -> ArraySpec:
    """Return the array of headers with room for the longest."""
    chunk = spec.chunks[-1]
    return replace(spec, shape=(*spec.shape[:-1], max(1, -(-longest // chunk)) * chunk))


def pack_headers(
    spec: ArraySpec, index: int, headers: Mapping[tuple[int, int], bytes], before: Sequence[NDArray[np.uint8]] = ()
) -> Iterator[tuple[str, bytes]]:
    """Yield key and bytes of every chunk of a batch's headers, by (patch, modality).

    ``before`` are the first chunks as they stand, with the headers (patch, modality, byte) of earlier patches.
    """
    length = spec.chunks[-1]
    for place in range(max(len(before), _chunks(spec, map(len, headers.values())))):
        chunk = np.zeros(spec.chunks, np.uint8)
        if place < len(before):
            chunk[: len(before[place])] = before[place]
        for slot, header in headers.items():
            part = header[place * length : (place + 1) * length]
            chunk[slot][: len(part)] = np.frombuffer(part, np.uint8)
        yield chunk_key(spec.path, (index, 0, place)), encode_chunk(spec, chunk)


def header_keys(spec: ArraySpec, index: int, sizes: Iterable[int]) -> list[str]:
    """Return the keys of a batch's headers, by their lengths."""
    return [chunk_key(spec.path, (index, 0, place)) for place in range(_chunks(spec, sizes))]


def _chunks(spec: ArraySpec, sizes: Iterable[int]) -> int:
    return max(1, -(-max(sizes, default=0) // spec.chunks[-1]))
