"""Documents bent at random: JSON values that are other than they were, and bytes flipped."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from cube.format.arrays import metadata_bytes
from cube.format.certificate import seal

JUNK: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 2**31, 2**53, 2**62, 2**63, 2**64, 10**40, -(2**63), 0.5, -0.0, 1e308, float("nan")),
    *("", "x", "../x", "/etc/hostname", "NaN", "0", "\0", "\ud800", "é" * 300, "a/b", "patch", "s1", "zstd", "uint8", "<U4"),
    *([], {}, [[]], [None], [1], ["x"], [2**62], [0, 0, 0, 0], {"a": 1}, {"name": "bytes"}, {"configuration": {}}),
)
"""What stands in place of a value."""


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value below a document."""
    below = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in below:
        yield (*path, key)
        yield from places(value, (*path, key))


def bent(document: Any, rng: random.Random) -> Any:
    """Return a document with one to three values gone, changed, renamed or in another order."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        # Levels are as likely as each other: most values lie deep down, where they do little harm.
        found = list(places(document))
        if not found:
            break
        depth = rng.choice(sorted({len(path) for path in found}))
        *above, key = rng.choice([path for path in found if len(path) == depth])
        holder = document
        for part in above:
            holder = holder[part]
        _bend(holder, key, rng)
    return document


def _bend(holder: Any, key: Any, rng: random.Random) -> None:
    value = holder[key]
    kind = rng.choice(("junk", "junk", "near", "near", "gone", "name"))
    if kind == "gone":
        del holder[key]
    elif kind == "name" and isinstance(holder, dict):
        holder[rng.choice((f"{key}x", "", "x", key.upper()))] = holder.pop(key)
    elif kind == "near":
        holder[key] = _near(value, rng)
    else:
        holder[key] = copy.deepcopy(rng.choice(JUNK))


def _near(value: Any, rng: random.Random) -> Any:
    """Return what is much like a value."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return rng.choice((-value, value + 1, value - 1, value * 2, value * 1000, str(value), float(value), [value]))
    if isinstance(value, str):
        return rng.choice((value[::-1], value[:-1], value + "x", value.upper(), f"{value}/{value}", [value], "0" * len(value)))
    if isinstance(value, list):
        return rng.choice((value[::-1], value[:-1], value + value[:1], [value], dict.fromkeys(map(str, value)), value[:1] * 9))
    return rng.choice(([value], list(value), {**value, "x": 1}, dict(list(value.items())[:-1]), str(value)))


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Return bytes of which some are changed, cut off, doubled or left out."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        place = rng.randrange(len(changed))
        kind = rng.choice(("bit", "byte", "byte", "cut", "double", "out"))
        if kind == "bit":
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            changed[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == "cut" and rng.random() < 0.2:
            del changed[place:]
        elif kind == "double":
            changed[place:place] = changed[place : place + rng.randrange(1, 9)]
        else:
            del changed[place : place + rng.randrange(1, 5)]
    return bytes(changed)


def as_text(document: Any) -> bytes:
    """Return a document as JSON, whatever it holds."""
    return json.dumps(document).encode()


def sealed_anew(document: Any) -> bytes:
    """Return a root document that says of itself that it was sealed, where that can be said of it."""
    try:
        document["attributes"]["cube"]["certificate"]["root"] = "0" * 64
        return seal(document)
    except (KeyError, TypeError, IndexError, AssertionError, ValueError):
        try:
            return metadata_bytes(document)
        except ValueError:
            return as_text(document)
