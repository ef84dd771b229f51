"""JSON documents as bytes → objects. Whoever can write to a store can write anything there, so nothing is believed of them.

``json`` alone lets through what is no object, and ends in ``RecursionError`` for what is nested a thousandfold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from cube.errors import CorruptError

_MOST = 2**28
"""Bytes of a document that are read: the largest, a plan of a million patches, has some tens of millions."""

_KINDS = {str: "text", dict: "object", list: "list"}


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Return the JSON object that bytes hold. Raises ``ValueError`` for anything else."""
    if len(data) > _MOST:
        raise ValueError(f"{len(data):,} bytes, more than {_MOST:,}")
    try:
        document = json.loads(data, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("too many levels within each other") from None
    if not isinstance(document, dict):
        raise ValueError(f"a JSON {type(document).__name__}, expected an object")
    return document


def _finite(text: str) -> float:
    """Return a number. Raises ``ValueError`` for what JSON does not know: NaN, and numbers without end."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no JSON number")
    return value


def require_object(data: bytes | str, where: str) -> dict[str, Any]:
    """Return the JSON object that bytes hold. Raises ``CorruptError``, naming where they stand, for anything else."""
    try:
        return parse_object(data)
    except ValueError as error:
        raise CorruptError(f"{where} is damaged, or no document of this package ({error})") from None


def misshapen_stac(document: Mapping[str, Any]) -> str:
    """Return what is no STAC at all of a document, if anything: readers look names up in objects, and walk along lists."""
    for name, kind in (("type", str), ("properties", dict), ("assets", dict), ("links", list)):
        if not isinstance(document.get(name, kind()), kind):
            return f"{name!r} is no {_KINDS[kind]}"
    entries = [*document.get("links", ()), *document.get("assets", {}).values()]
    if not all(isinstance(entry, dict) and isinstance(entry.get("href"), str) for entry in entries):
        return "a link or an asset is no object with a text 'href'"
    extensions = document.get("stac_extensions", [])
    known = isinstance(extensions, list) and all(isinstance(url, str) for url in extensions)
    return "" if known else "'stac_extensions' is no list of texts"
