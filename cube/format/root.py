"""The root document of a cube, which vouches for everything else in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import CorruptError, RequestError
from cube.format.certificate import sealed
from cube.format.documents import parse_object
from cube.format.layout import FORMAT
from cube.format.originals import HEADERS
from cube.format.shape import read_specs
from cube.format.target import ROOT, Target

_DIGEST = re.compile(r"(?:blake3:)?[0-9a-f]{64}")


def read_root(target: Target) -> tuple[bytes, dict[str, Any]]:
    """Return the root document of a cube, as stored and parsed.

    Raises ``RequestError`` if there is none or it is of another format, ``CorruptError`` if it is not what was sealed.
    """
    try:
        data = target.cube.read(ROOT)
        if not sealed(data):
            data = target.cube.read(ROOT)  # it may have been damaged only on its way
    except FileNotFoundError:
        unfinished = target.build.exists("plan.json")
        hint = "its build is not finished: run the same `cube build` again" if unfinished else "there is no cube"
        raise RequestError(f"{target.url}: {hint}") from None
    return data, parse_root(target, data)


def parse_root(target: Target, data: bytes) -> dict[str, Any]:
    """Return the root document of a cube from its bytes. Raises as ``read_root`` does."""
    try:
        document = parse_object(data)
        known = document["attributes"]["cube"]["format"]
    except (ValueError, LookupError, TypeError) as error:
        raise CorruptError(f"{target.url}/{ROOT} is damaged or not of this package ({error!r})") from None
    if not sealed(data):
        raise CorruptError(f"{target.url}/{ROOT} (format {known}) is not what was sealed; nothing below it can be trusted")
    if str(known).partition(".")[0] != FORMAT.partition(".")[0]:
        raise RequestError(f"{target.url} has format {known}; this version knows {FORMAT}")
    read_specs(document, target.url)
    return document


def batch_count(root: Mapping[str, Any]) -> int:
    """Return how many batches the cube of a root document has."""
    header = root["consolidated_metadata"]["metadata"][HEADERS]
    return int(-(-header["shape"][0] // header["chunk_grid"]["configuration"]["chunk_shape"][0]))


def require_expected(url: str, root: Mapping[str, Any], expect: str, version: int | None = None) -> None:
    """Raise ``CorruptError`` unless a sealed root document has the digest that was noted: then all below it is what it was.

    Of an earlier ``version``, it is the digest that its root had.

    Raises ``RequestError`` for what is no digest.
    """
    if not isinstance(expect, str) or not _DIGEST.fullmatch(expect):
        raise RequestError(f"{expect!r} is no digest: expected 64 hexadecimal digits, as `cube info` prints them")
    attributes = root.get("attributes")
    facts = attributes.get("cube") if isinstance(attributes, Mapping) else None
    certified = facts.get("certificate") if isinstance(facts, Mapping) else None
    seen = certified.get("root") if isinstance(certified, Mapping) else None
    earlier = facts.get("versions", []) if isinstance(facts, Mapping) else []
    if version is not None and isinstance(earlier, list) and 1 <= version <= len(earlier):
        seen = earlier[version - 1].get("digest") if isinstance(earlier[version - 1], Mapping) else None
    noted = [item.get("digest") for item in earlier if isinstance(item, Mapping)] if isinstance(earlier, list) else []
    if version is None and (was := expect.removeprefix("blake3:")) in noted:
        number = noted.index(was) + 1
        raise CorruptError(f"{url} has grown since: {expect} is the digest of its version {number}; ask for version={number}")
    if seen != expect.removeprefix("blake3:"):
        raise CorruptError(f"{url} has the digest {seen}, expected {expect}: it is another cube, or one that was changed")


def consolidated(documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the metadata of all arrays and groups as the root document repeats them."""
    return {"kind": "inline", "must_understand": False, "metadata": documents}


def opening_line(seasons: NDArray[Any]) -> str:
    """Return the line that opens the first season of a cube well, by the season (patch) of every patch.

    A slice is read many times faster than the list of positions that ``sel`` makes; an index keeps its label in memory, where
    ``groupby`` needs it; without its encoding what is chunked anew can be written.
    """
    others = np.flatnonzero(seasons != seasons[0])
    first = int(others[0]) if len(others) else len(seasons)
    return f'xr.open_zarr(URL, chunks=None).isel(patch=slice(0, {first})).set_xindex("season").drop_encoding().chunk(patch=128)'
