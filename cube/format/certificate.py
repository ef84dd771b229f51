"""The certificate: one hash over every patch, and a root document that vouches for everything else in the cube. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cube.format.arrays import metadata_bytes

_BLANK = "0" * 64
_ROOT = re.compile(rb'"root": "([0-9a-f]{64})"')


def pixels_digest(patches: NDArray[Any], digests: NDArray[np.uint8]) -> str:
    """Roll the digests (patch, modality, byte) up into one, sorted by id: the order of the patches does not matter."""
    hasher = blake3(b"cube pixels 1")
    for row in np.argsort(patches, kind="stable"):
        hasher.update(str(patches[row]).encode() + b"\0" + digests[row].tobytes())
    return hasher.hexdigest()


def certificate(pixels: str, arrays: Mapping[str, str], metadata: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the certificate, still unsealed.

    ``arrays`` maps the small arrays to the hash of their values, ``metadata`` the metadata documents to their bytes.
    """
    return {
        "hash": "blake3",
        "pixels": pixels,
        "arrays": dict(arrays),
        "metadata": {key: blake3(data).hexdigest() for key, data in metadata.items()},
        "root": _BLANK,
    }


def seal(document: Mapping[str, Any]) -> bytes:
    """Return the root document as it is stored: its own hash in the place that was blank while it was taken."""
    data = metadata_bytes(document)
    assert data.count(_BLANK.encode()) == 1
    return data.replace(_BLANK.encode(), blake3(data).hexdigest().encode())


def sealed(data: bytes) -> bool:
    """Tell whether a stored root document is what was sealed, to the bit."""
    found = _ROOT.findall(data)
    if len(found) != 1:
        return False
    blank = data.replace(b'"root": "' + found[0] + b'"', b'"root": "' + _BLANK.encode() + b'"')
    return bool(blake3(blank).hexdigest().encode() == found[0])
