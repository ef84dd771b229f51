"""Whatever changes in a cube, ``cube verify`` fails and names the object that changed or a patch that shows it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import making
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from making import BANDS, DTYPES, Made, Scene, make_patches

from cube.cli.main import main
from cube.format.tiles import ABSENT, TileLayout

SEED = 20190607
FLIPS = 300
SWAPS = 300
SHARD = 4
SCENES = (
    Scene("spring", 1, rows=2, columns=3, gaps=((0, 1),)),
    Scene("summer", 1, rows=2, columns=3, epsg=32633),
)
MISSING = (("ROIs1158_spring_1_p33", "s2"), ("ROIs1868_summer_1_p31", "lc"))
"""Files that are not there, so that shards have gaps."""
LAYOUT = f"tile: 16, shard: {SHARD}, labels: 16, header_bytes: 1024, path_bytes: 64"


@dataclass
class Cube:
    """A cube of incompressible pixels in memory and on disk, to be damaged and mended."""

    path: Path
    made: Made
    objects: dict[str, bytes] = field(default_factory=dict)
    """Key → bytes as they were written."""

    def write(self, key: str, data: bytes) -> None:
        (self.path / key).parent.mkdir(parents=True, exist_ok=True)
        (self.path / key).write_bytes(data)

    def mend(self, *keys: str) -> None:
        for key in keys:
            if key in self.objects:
                self.write(key, self.objects[key])
            else:
                (self.path / key).unlink()

    def shards(self) -> list[Shard]:
        return [Shard.of(self, key) for key in sorted(self.objects) if key.split("/")[:2] in [[name, "c"] for name in BANDS]]


@dataclass
class Shard:
    """One shard, its index and who uses its tiles."""

    key: str
    data: bytes
    index: np.ndarray
    """(slot, tile, [offset, length])"""
    ids: list[str]
    """Patch of each slot; fewer in the last shard."""

    @classmethod
    def of(cls, cube: Cube, key: str) -> Shard:
        name, _, place = key.split("/")[:3]
        layout = layout_of(name)
        data = cube.objects[key]
        index = np.frombuffer(data[-layout.index_bytes : -4], "<u8").reshape(SHARD, layout.across**2, 2)
        return cls(key, data, index, cube.made.ids[int(place) * SHARD :][:SHARD])

    @property
    def tiles(self) -> list[tuple[int, int]]:
        """Offset and length of every stored tile, in order."""
        used = self.index[self.index[..., 0] != ABSENT]
        return [(int(offset), int(length)) for offset, length in np.unique(used, axis=0)]

    def users(self, offset: int) -> set[str]:
        """Return the patches that use the tile stored at ``offset``."""
        return {self.ids[slot] for slot in np.flatnonzero((self.index[..., 0] == offset).any(axis=1))}

    def with_index(self, index: np.ndarray) -> bytes:
        """Return the shard with another index, its checksum right again."""
        table = index.astype("<u8").tobytes()
        return self.data[: -len(table) - 4] + table + google_crc32c.value(table).to_bytes(4, "little")


def layout_of(name: str) -> TileLayout:
    dtype = np.dtype(DTYPES[name]).str.replace("|", "<")
    return TileLayout(size=32, tile=16, bands=BANDS[name], dtype=dtype, slots=SHARD, codec="zstd", level=3, shuffle="shuffle")


def noise(scene: Scene, modality: str, size: int = 32) -> np.ndarray:
    """Return a scene of random bits: every tile of a modality is stored in equally many bytes."""
    shape = BANDS[modality], (scene.rows + 1) * size // 2, (scene.columns + 1) * size // 2
    rng = np.random.default_rng([making.SEEDS[scene.season], scene.number, BANDS[modality]])
    bits = rng.integers(0, 256, (*shape, np.dtype(DTYPES[modality]).itemsize), np.uint8)
    if modality == "s1":
        bits[..., 3] = 0x41
    return bits.view(DTYPES[modality])[..., 0]


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    folder = tmp_path_factory.mktemp("certificate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "scene_image", noise)
        made = make_patches(folder / "files", SCENES, missing=MISSING)
    recipe = folder / "tiny.yaml"
    recipe.write_text(f"extends: sen12ms\nname: tiny\npatch: {{size: 32}}\nlayout: {{{LAYOUT}}}\n", encoding="utf-8")
    path = folder / "tiny.zarr"
    making.build(recipe, made.folder, path, incomplete="keep")
    objects = {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    return Cube(path, made, objects)


@pytest.fixture(autouse=True)
def _sound_again(cube: Cube) -> Iterator[None]:
    """Every test leaves the cube as it found it."""
    yield
    left = {str(file.relative_to(cube.path)): file.read_bytes() for file in cube.path.rglob("*") if file.is_file()}
    assert left == cube.objects


def verify(cube: Cube) -> tuple[int, list[dict[str, Any]]]:
    """Run the command; return its exit code and what it found, each with the name of its check."""
    result = CliRunner().invoke(main, ["verify", str(cube.path), "--workers", "0", "--json"])
    assert isinstance(result.exception, SystemExit | None), result.exception
    document = json.loads(result.stdout)
    assert document["passed"] is (result.exit_code == 0)
    return result.exit_code, [{"check": check["name"], **found} for check in document["checks"] for found in check["findings"]]


def assert_named(cube: Cube, names: set[str], what: str) -> list[dict[str, Any]]:
    """Verify, and assert that it fails and that every name is the whole object or the whole patch of some finding."""
    code, findings = verify(cube)
    said = {word.strip() for found in findings for part in found["where"].split(" in ") for word in part.split(",")}
    assert code == 1, f"{what}: not noticed"
    assert names & said, f"{what}: expected one of {sorted(names)} to be named, found {findings}"
    return findings


def test_the_cube_is_sound_and_as_these_tests_need_it(cube: Cube) -> None:
    assert verify(cube) == (0, [])
    assert len(cube.shards()) == 9
    assert all(len(shard.tiles) > 4 for shard in cube.shards())
    gaps = [shard.key for shard in cube.shards() if (shard.index[: len(shard.ids), :, 0] == ABSENT).any()]
    assert gaps == ["lc/c/1/0/0/0", "s2/c/0/0/0/0"]
    assert all(len(shard.users(offset)) <= SHARD for shard in cube.shards() for offset, _ in shard.tiles)


def kinds(cube: Cube) -> dict[str, Callable[[np.random.Generator], tuple[str, int]]]:
    """Return, by kind of object, how to choose an object and a byte of it."""

    def anywhere(keys: list[str]) -> Callable[[np.random.Generator], tuple[str, int]]:
        def choose(rng: np.random.Generator) -> tuple[str, int]:
            key = keys[rng.integers(len(keys))]
            return key, int(rng.integers(len(cube.objects[key])))

        return choose

    def in_tiles(rng: np.random.Generator) -> tuple[str, int]:
        shard = shards[rng.integers(len(shards))]
        return shard.key, int(rng.integers(len(shard.data) - layout_of(shard.key.split("/")[0]).index_bytes))

    def in_checksums(rng: np.random.Generator) -> tuple[str, int]:
        shard = shards[rng.integers(len(shards))]
        at, length = shard.tiles[rng.integers(len(shard.tiles))]
        return shard.key, at + length - 1 - int(rng.integers(4))

    def in_index(rng: np.random.Generator) -> tuple[str, int]:
        shard = shards[rng.integers(len(shards))]
        length = layout_of(shard.key.split("/")[0]).index_bytes
        return shard.key, len(shard.data) - 1 - int(rng.integers(length))

    shards = cube.shards()
    chunks = [key for key in cube.objects if "/c/" in key and key.split("/")[0] not in BANDS]
    return {
        "tile bytes": in_tiles,
        "tile checksum": in_checksums,
        "shard index": in_index,
        "coordinate chunk": anywhere([key for key in chunks if not key.startswith("originals/")]),
        "headers": anywhere([key for key in chunks if key.startswith("originals/header/")]),
        "paths": anywhere([key for key in chunks if key.startswith("originals/path/")]),
        "records": anywhere([key for key in chunks if key.startswith("originals/") and "/header/" not in key]),
        "metadata": anywhere([key for key in cube.objects if key.endswith("/zarr.json")]),
        "root": anywhere(["zarr.json"]),
    }


def test_one_flipped_bit_anywhere_is_named(cube: Cube) -> None:
    rng = np.random.default_rng(SEED)
    choices, shards, done = kinds(cube), {shard.key: shard for shard in cube.shards()}, Counter[str]()
    for number in range(FLIPS):
        kind = list(choices)[number % len(choices)]
        key, place = choices[kind](rng)
        bit = int(rng.integers(8))
        data = bytearray(cube.objects[key])
        data[place] ^= 1 << bit
        names = {key}
        if kind.startswith("tile"):
            names = next(shards[key].users(at) for at, length in shards[key].tiles if at <= place < at + length)
        cube.write(key, bytes(data))
        assert_named(cube, names, f"seed {SEED}, flip {number} ({kind}): bit {bit} of byte {place} of {key}")
        cube.mend(key)
        done[kind] += 1
    assert sum(done.values()) == FLIPS
    assert min(done.values()) >= FLIPS // len(choices)


def swap_bytes(shard: Shard, rng: np.random.Generator) -> tuple[bytes, set[str]]:
    """Swap the bytes of two stored tiles of equal length in place, checksums and all."""
    while True:
        (one, length), (two, other) = (shard.tiles[i] for i in rng.choice(len(shard.tiles), 2, replace=False))
        if length == other:
            data = bytearray(shard.data)
            data[one : one + length], data[two : two + length] = data[two : two + length], data[one : one + length]
            return bytes(data), shard.users(one) | shard.users(two)


def swap_entries(shard: Shard, rng: np.random.Generator) -> tuple[bytes, set[str]]:
    """Swap two entries of the index that name different tiles of equal length, and mend the index's checksum."""
    stored = np.argwhere(shard.index[..., 0] != ABSENT)
    while True:
        one, two = (tuple(stored[i]) for i in rng.choice(len(stored), 2, replace=False))
        if shard.index[one][0] != shard.index[two][0] and shard.index[one][1] == shard.index[two][1]:
            index = shard.index.copy()
            index[one], index[two] = shard.index[two], shard.index[one]
            return shard.with_index(index), {shard.ids[one[0]], shard.ids[two[0]]}


@pytest.mark.parametrize("swap", [swap_bytes, swap_entries])
def test_swapped_tiles_are_named_though_every_checksum_is_right(
    cube: Cube, swap: Callable[[Shard, np.random.Generator], tuple[bytes, set[str]]]
) -> None:
    rng = np.random.default_rng([SEED, len(swap.__name__)])
    shards, done = cube.shards(), Counter[str]()
    for number in range(SWAPS // 2):
        shard = shards[number % len(shards)]
        data, names = swap(shard, rng)
        assert len(data) == len(shard.data)
        cube.write(shard.key, data)
        what = f"seed {SEED}, {swap.__name__} {number} in {shard.key}"
        findings = assert_named(cube, names, what)
        pixels = {found["where"] for found in findings if found["check"] == "pixels"}
        assert pixels == {f"{name} in {shard.key}" for name in names}, what
        assert "shards" not in {found["check"] for found in findings}, f"{what}: some checksum is wrong"
        cube.mend(shard.key)
        done[shard.key.split("/")[0]] += 1
    assert sum(done.values()) == SWAPS // 2
    assert set(done) == set(BANDS)


def test_an_entry_that_is_moved_hidden_or_invented_is_named(cube: Cube) -> None:
    shard = next(shard for shard in cube.shards() if shard.key == "s2/c/0/0/0/0")
    absent = next(slot for slot, name in enumerate(shard.ids) if (name, "s2") in MISSING)
    taken = next(slot for slot in range(SHARD) if slot != absent)
    hidden, invented, short, beyond = (shard.index.copy() for _ in range(4))
    hidden[taken, 0] = ABSENT
    invented[absent] = shard.index[taken]
    short[taken, 0, 1] -= np.uint64(1)
    beyond[taken, 0, 0] += np.uint64(2**40)
    for index, name in (
        (hidden, shard.ids[taken]),
        (invented, shard.ids[absent]),
        (short, shard.ids[taken]),
        (beyond, shard.key),
    ):
        cube.write(shard.key, shard.with_index(index))
        assert_named(cube, {name}, "a changed entry of the index")
        cube.mend(shard.key)


def test_a_missing_object_is_named(cube: Cube) -> None:
    for key in cube.objects:
        if key != "zarr.json":
            (cube.path / key).unlink()
            findings = assert_named(cube, {key}, f"{key} is missing")
            assert {"check": "objects", "where": key, "what": "it is missing"} in findings
            cube.mend(key)


def test_without_its_root_there_is_no_cube(cube: Cube) -> None:
    (cube.path / "zarr.json").unlink()
    result = CliRunner().invoke(main, ["verify", str(cube.path), "--workers", "0", "--json"])
    cube.mend("zarr.json")
    assert result.exit_code == 2
    assert str(cube.path) in result.stderr


@pytest.mark.parametrize("key", [".DS_Store", "s2/c/7/0/0/0", "s3/zarr.json", "scene/c/0.partial", "originals/note.txt"])
def test_a_stranger_is_named(cube: Cube, key: str) -> None:
    cube.write(key, b"no part of it")
    findings = assert_named(cube, {key}, f"{key} is a stranger")
    assert {"check": "objects", "where": key, "what": "it is no part of the cube"} in findings
    cube.mend(key)
    folder = (cube.path / key).parent
    while folder != cube.path and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


@pytest.mark.parametrize("keep", ["nothing", "half", "all but one byte", "and one byte more"])
def test_an_object_of_another_length_is_named(cube: Cube, keep: str) -> None:
    for key, data in cube.objects.items():
        lengths = {"nothing": 0, "half": len(data) // 2, "all but one byte": len(data) - 1}
        cube.write(key, data[: lengths[keep]] if keep in lengths else data + b"\0")
        assert_named(cube, {key}, f"{keep} of {key}")
        cube.mend(key)


@pytest.mark.parametrize("name", BANDS)
def test_two_shards_exchanged_are_named(cube: Cube, name: str) -> None:
    one, two = f"{name}/c/0/0/0/0", f"{name}/c/1/0/0/0"
    cube.write(one, cube.objects[two])
    cube.write(two, cube.objects[one])
    for key in (one, two):
        ids = set(next(shard for shard in cube.shards() if shard.key == key).ids)
        findings = assert_named(cube, ids, f"{one} and {two} exchanged")
        assert any(found["where"].endswith(key) for found in findings)
    cube.mend(one, two)


def test_objects_of_two_arrays_exchanged_are_named(cube: Cube) -> None:
    pairs = [
        ("lon/c/0", "lat/c/0"),
        ("nan_count/c/0/0", "zero_count/c/0/0"),
        ("originals/header/c/0/0/0", "originals/header/c/1/0/0"),
        ("s1/zarr.json", "s2/zarr.json"),
        ("originals/size/c/0/0", "originals/pixel_start/c/0/0"),
    ]
    for one, two in pairs:
        assert cube.objects[one] != cube.objects[two]
        cube.write(one, cube.objects[two])
        cube.write(two, cube.objects[one])
        for key in (one, two):
            ids = cube.made.ids if "header" in key else ()
            assert_named(cube, {key, key.partition("/c/")[0], *ids}, f"{one} and {two} exchanged")
        cube.mend(one, two)


@pytest.mark.parametrize("name", BANDS)
def test_a_shard_rewritten_without_sharing_is_named(cube: Cube, name: str) -> None:
    key = f"{name}/c/0/0/0/0"
    array = zarr.open_group(str(cube.path), mode="r+")[name]
    before = array[:]
    array[:SHARD] = before[:SHARD]
    grown = (cube.path / key).stat().st_size
    assert np.array_equal(array[:], before, equal_nan=True), "the pixels are as they were"
    findings = assert_named(cube, {key}, f"{key} rewritten")
    cube.mend(key)
    assert grown > len(cube.objects[key])
    assert key in [found["where"] for found in findings if found["check"] == "sharing"]
    assert not [found for found in findings if found["check"] in ("pixels", "shards", "counts")]


def test_a_whole_cube_copied_elsewhere_is_as_sound(cube: Cube, tmp_path: Path) -> None:
    copy = Cube(tmp_path / "copy.zarr", cube.made)
    shutil.copytree(cube.path, copy.path)
    assert verify(copy) == (0, [])
