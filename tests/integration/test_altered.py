"""Cubes whose root was altered and sealed anew, as anybody can: verification names what readers would be told wrongly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from making import Built

from cube import Batches, Samples, open_cube, open_patch, open_scene
from cube.errors import CorruptError, RequestError
from cube.format.arrays import metadata_bytes
from cube.format.certificate import seal
from cube.format.target import target_of
from cube.verify.verification import verify_cube

Document = dict[str, Any]


@pytest.fixture
def copy(tiny_cube: Built, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_cube.url, tmp_path / "copy.zarr"))


def alter(url: Path, change: Callable[[Document], None]) -> None:
    """Change the root and seal it anew."""
    root = url / "zarr.json"
    document = json.loads(root.read_bytes())
    change(document)
    document["attributes"]["cube"]["certificate"]["root"] = "0" * 64
    root.write_bytes(seal(document))


def failed(url: Path, expect: str | None = None) -> dict[str, list[str]]:
    report = verify_cube(target_of(str(url)), expect=expect)
    return {check.name: [f"{f.where}: {f.what}" for f in check.findings] for check in report.checks if not check.passed}


def array(document: Document, path: str) -> Document:
    found: Document = document["consolidated_metadata"]["metadata"][path]
    return found


def facts(document: Document) -> Document:
    found: Document = document["attributes"]["cube"]
    return found


CHANGES: dict[str, tuple[Callable[[Document], Any], str]] = {
    "bands reversed": (lambda d: facts(d)["modalities"]["s2"].reverse(), "statements"),
    "modalities in another order": (
        lambda d: facts(d).update(modalities=dict(reversed(facts(d)["modalities"].items()))),
        "statements",
    ),
    "another tile": (lambda d: facts(d).update(tile=facts(d)["tile"] // 2), "statements"),
    "seasons renamed": (
        lambda d: facts(d).update(seasons={"monsoon": {"start": "2017-06-01", "end": "2017-09-01"}}),
        "statements",
    ),
    "a season without days": (lambda d: facts(d).update(seasons={"monsoon": {}}), "root"),
    "a label that is none": (lambda d: d["attributes"].update(coordinates="s2"), "statements"),
    "scale_factor": (lambda d: array(d, "s2")["attributes"].update(scale_factor=0.5), "metadata"),
    "fill_value": (lambda d: array(d, "s2").update(fill_value=7), "metadata"),
    "dimension_names": (lambda d: array(d, "s2").update(dimension_names=["patch", "s2_band", "x", "y"]), "root"),
    "chunk shape": (
        lambda d: array(d, "scene")["chunk_grid"]["configuration"].update(chunk_shape=[1]),
        "metadata",
    ),
    "an array left out": (lambda d: d["consolidated_metadata"]["metadata"].pop("lon"), "metadata"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_reader_would_be_told_wrongly_is_named(copy: Path, name: str) -> None:
    assert failed(copy) == {}
    change, check = CHANGES[name]
    alter(copy, change)
    assert check in failed(copy)


@pytest.mark.parametrize("key", ["scale_factor", "add_offset", "_FillValue", "missing_value"])
def test_what_would_change_values_is_named_even_where_all_documents_agree(copy: Path, key: str) -> None:
    path = copy / "s2/zarr.json"
    document = json.loads(path.read_bytes())
    document["attributes"][key] = 2
    path.write_bytes(metadata_bytes(document))

    def change(root: Document) -> None:
        array(root, "s2")["attributes"][key] = 2
        facts(root)["certificate"]["metadata"]["s2/zarr.json"] = blake3(path.read_bytes()).hexdigest()

    alter(copy, change)
    (found,) = failed(copy)["statements"]
    assert key in found


def test_a_digest_that_was_noted_is_held_against_the_cube(copy: Path, made: Any) -> None:
    known = json.loads((copy / "zarr.json").read_bytes())["attributes"]["cube"]["certificate"]["root"]
    url = str(copy)
    assert failed(copy, known) == {}
    readers: list[Callable[[str], Any]] = [
        lambda expect: open_cube(url, expect=expect),
        lambda expect: Samples(url, expect=expect),
        lambda expect: open_patch(url, made.ids[0], expect=expect),
        lambda expect: open_scene(url, season="spring", scene=1, expect=expect),
    ]
    for reader in readers:
        reader(known)
        reader(f"blake3:{known}")
    alter(copy, lambda root: root["attributes"].update(title="Another"))
    assert failed(copy) == {}  # sound in itself, which is all that a seal says
    assert "root" in failed(copy, known)
    for reader in readers:
        with pytest.raises(CorruptError, match="another cube, or one that was changed"):
            reader(known)


@pytest.mark.parametrize("expect", ["abc", "", 5, "g" * 64])
def test_what_is_no_digest_is_a_mistake_of_the_caller(copy: Path, expect: Any) -> None:
    for read in (lambda: open_cube(str(copy), expect=expect), lambda: failed(copy, expect)):
        with pytest.raises(RequestError, match="is no digest: expected 64 hexadecimal digits"):
            read()


def test_labels_are_held_against_the_certificate_when_they_are_read(tiny_cube: Built, copy: Path) -> None:
    chunk = copy / "scene/c/0"
    shutil.copy(copy / "number/c/0", chunk)
    with pytest.raises(CorruptError, match="scene: its values are not those certified"):
        open_cube(str(copy))["scene"].load()


def entry(copy: Path, offset: int, length: int) -> None:
    """Let the first tile of s2 lie elsewhere; the index gets its checksum anew."""
    import google_crc32c

    shard = copy / "s2/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    slots, tiles = 16, 4
    index = len(data) - 4 - slots * tiles * 16
    data[index : index + 16] = np.array([offset, length], "<u8").tobytes()
    data[-4:] = google_crc32c.value(bytes(data[index:-4])).to_bytes(4, "little")
    shard.write_bytes(data)


READERS: dict[str, Callable[[str, str], Any]] = {
    "engine": lambda url, patch: open_cube(url)["s2"].isel(patch=0).load(),
    "samples": lambda url, patch: Samples(url, modalities=["s2"])[0],
    "batches": lambda url, patch: list(Batches(Samples(url, modalities=["s2"]), batch_size=4)),
    "patch": lambda url, patch: open_patch(url, patch)["s2"].load(),
    "scene": lambda url, patch: open_scene(url, season="spring", scene=1)["s2"].load(),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_tile_that_is_absent_of_an_image_that_is_there_is_no_fill_value(copy: Path, made: Any, reader: str) -> None:
    entry(copy, 2**64 - 1, 2**64 - 1)
    with pytest.raises(CorruptError, match="absent, but `present` says that the image is there"):
        READERS[reader](str(copy), made.ids[0])


@pytest.mark.parametrize("length", [2**31, 2**62, 2**63, 2**64 - 2])
@pytest.mark.parametrize("place", ["offset", "length"])
def test_numbers_of_an_index_are_not_believed(copy: Path, made: Any, length: int, place: str) -> None:
    entry(copy, *((length, 100) if place == "offset" else (0, length)))
    for read in READERS.values():
        with pytest.raises(CorruptError, match="s2/c/0/0/0/0"):
            read(str(copy), made.ids[0])
    assert "shards" in failed(copy)
