"""The certificate: what the one hash of all pixels depends on, and what breaks the seal."""

from __future__ import annotations

import json

import numpy as np
import pytest
from blake3 import blake3

from cube.format.arrays import metadata_bytes
from cube.format.certificate import certificate, pixels_digest, seal, sealed

IDS = np.array(["b_2", "a_10", "a_9", "ä"])
DIGESTS = np.random.default_rng(1).integers(0, 256, (4, 3, 32)).astype("u1")


def test_the_digest_of_all_pixels_is_what_the_format_says() -> None:
    rows = sorted(range(4), key=lambda row: str(IDS[row]))
    whole = b"cube pixels 1" + b"".join(str(IDS[row]).encode() + b"\0" + DIGESTS[row].tobytes() for row in rows)
    assert pixels_digest(IDS, DIGESTS) == blake3(whole).hexdigest()


def test_the_order_of_the_patches_does_not_matter() -> None:
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(4)
        assert pixels_digest(IDS[order], DIGESTS[order]) == pixels_digest(IDS, DIGESTS)


def test_which_pixels_belong_to_which_patch_does_matter() -> None:
    assert pixels_digest(IDS[::-1], DIGESTS) != pixels_digest(IDS, DIGESTS)
    assert pixels_digest(IDS, DIGESTS[:, ::-1]) != pixels_digest(IDS, DIGESTS)
    assert pixels_digest(IDS[:3], DIGESTS[:3]) != pixels_digest(IDS, DIGESTS)


@pytest.fixture
def root() -> bytes:
    facts = certificate("ab" * 32, {"patch": "cd" * 32}, {"s/zarr.json": b"{}"})
    assert facts["metadata"] == {"s/zarr.json": blake3(b"{}").hexdigest()}
    return seal({"attributes": {"certificate": facts, "title": "ä"}})


def test_a_sealed_document_holds_its_own_hash(root: bytes) -> None:
    assert sealed(root)
    document = json.loads(root)
    own = document["attributes"]["certificate"]["root"]
    document["attributes"]["certificate"]["root"] = "0" * 64
    assert blake3(metadata_bytes(document)).hexdigest() == own


def test_any_changed_byte_breaks_the_seal(root: bytes) -> None:
    for place in range(len(root)):
        changed = bytearray(root)
        changed[place] ^= 1
        assert not sealed(bytes(changed))


def test_no_seal_or_two() -> None:
    assert not sealed(b"{}")
    assert not sealed(b"")
    line = b'"root": "' + b"0" * 64 + b'"'
    assert not sealed(line)
    assert not sealed(line + line)
