"""What is kept of a finished batch: which objects it wrote, and what was learnt of each patch on the way.

A receipt begins with the hash of all that follows, so that a damaged one is known; and it is looked through before it is used,
for whoever can write beside a cube can seal one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from blake3 import blake3

from cube.format.documents import parse_object
from cube.format.tiles import DIGEST_SIZE

Receipt = dict[str, Any]

_TEXTS = ("batch", "stamp")
_COUNTS = ("index", "start", "stop", "peak_bytes", "files", "bytes_in", "taken_over")
_PER_IMAGE = ("nan_count", "zero_count", "saturated_count", "constant", "masked", "header_size", "pixel_start", "size", "kept")
"""Columns (patch, modality) of whole numbers."""
_DIGESTS = ("digest", "header_digest")
"""Columns (patch, modality, byte), in hexadecimal digits."""
_AFFINE = 6


def receipt_key(digest: str) -> str:
    """Return the key of a batch's receipt in the build store."""
    return f"receipts/{digest}.json"


def receipt_bytes(receipt: Receipt) -> bytes:
    """Return a receipt as it is stored: a JSON object that begins with the hash of all that follows."""
    body = json.dumps(receipt).encode()
    return _seal(body[1:]) + body[1:]


def _seal(body: bytes) -> bytes:
    return f'{{"seal": "{blake3(body).hexdigest()}", '.encode()


def read_receipt(data: bytes) -> Receipt | None:
    """Return a stored receipt; None for one that is damaged, of another version, or none at all."""
    length = len(_seal(b""))
    if data[:length] != _seal(data[length:]):
        return None
    try:
        receipt = parse_object(b"{" + data[length:])
        whole = _is_summary(receipt) and _are_columns(receipt["columns"], receipt["stop"] - receipt["start"], receipt["tiles"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return receipt if whole else None


def _is_summary(receipt: Mapping[str, Any]) -> bool:
    statements = [item for items in receipt["statements"].values() for item in items]
    return (
        all(isinstance(receipt[name], str) for name in _TEXTS)
        and all(_whole(receipt[name], 0) for name in _COUNTS)
        and all(_whole(size, 0) for size in receipt["objects"].values())
        and all(len(pair) == 2 and all(_whole(count, 0) for count in pair) for pair in receipt["tiles"].values())
        and all(len(row) == 3 and all(isinstance(text, str) for text in row) for row in receipt["rejected"])
        and receipt["statements"].keys() == receipt["tiles"].keys()
        and all(_whole(count, 0) and all(isinstance(word, str) for word, _ in said) for said, count in statements)
        and len(repr(statements)) < 2**20
    )


def _are_columns(columns: Mapping[str, Any], patches: int, tiles: Mapping[str, Any]) -> bool:
    """Tell whether all columns are there, as long as there are patches and as wide as there are modalities."""
    kinds = len(tiles)
    definitions, pointing = columns["crs"]
    affine = [row for row in columns["transform"] if row is not None]
    return (
        patches > 0
        and all(isinstance(text, str) for text in definitions)
        and len(pointing) == len(columns["epsg"]) == len(columns["transform"]) == patches
        and all(_whole(row, -1) and row < len(definitions) for row in pointing)
        and all(_whole(code, 0) and code < 2**31 for code in columns["epsg"])
        and all(len(row) == _AFFINE and all(isinstance(value, int | float) for value in row) for row in affine)
        and all(_is_table(columns[name], patches, kinds) for name in _PER_IMAGE)
        and all(len(bytes.fromhex(columns[name])) == patches * kinds * DIGEST_SIZE for name in _DIGESTS)
    )


def _is_table(rows: Any, patches: int, kinds: int) -> bool:
    return len(rows) == patches and all(len(row) == kinds and all(_whole(value, -1) for value in row) for row in rows)


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < 2**63
