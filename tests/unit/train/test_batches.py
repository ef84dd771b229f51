from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
import threading
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from making import BANDS, DTYPES, MODALITIES, Built, Made, build, make_patches, write_recipe

from cube.errors import CorruptError, RequestError
from cube.read.memory import Recycler
from cube.train.batches import Batches
from cube.train.samples import Samples
from cube.train.shuffle import Shuffle

TILES = sum(16 * 16 * BANDS[name] * np.dtype(DTYPES[name]).itemsize for name in MODALITIES)
"""Decoded bytes of one tile of every modality."""


def epoch(batches: Batches) -> list[str]:
    """Run an epoch, compare every pixel, return the ids in order."""
    return [str(name) for batch in batches for name in batch["patch"]]


@pytest.mark.parametrize("shuffle", [True, False, Shuffle(block=3, lanes=2, spread=1), Shuffle(block=1, lanes=50)])
@pytest.mark.parametrize("memory", [1, 30 * TILES, 1 << 30])
def test_an_epoch_holds_every_patch_once_with_its_pixels(
    tiny_cube: Built, made: Made, shuffle: bool | Shuffle, memory: int
) -> None:
    batches = Batches(Samples(tiny_cube.url), batch_size=4, shuffle=shuffle, memory=memory)
    seen = []
    with pytest.warns(UserWarning, match="memory=1 ") if memory == 1 and shuffle else nullcontext():
        for batch in batches:
            for row, name in enumerate(batch["patch"].tolist()):
                seen.append(name)
                for modality in MODALITIES:
                    assert np.array_equal(batch[modality][row], made.pixels[name, modality], equal_nan=modality == "s1")
    assert sorted(seen) == sorted(made.ids)
    assert (seen == made.ids) == (shuffle is False)
    assert len(batches) == 7 == batches.counters.batches
    assert batches.epoch == 1


def test_enough_memory_decodes_each_tile_once(tiny_cube: Built) -> None:
    stored = sum(tiles[1] for receipt in tiny_cube.written.receipts for tiles in receipt["tiles"].values())
    batches = Batches(Samples(tiny_cube.url), batch_size=2, shuffle=Shuffle(block=1))
    for _ in batches:
        pass
    assert batches.counters.tiles == stored
    assert batches.counters.again == 0
    little = Batches(Samples(tiny_cube.url), batch_size=2, shuffle=Shuffle(block=1), memory=1)
    with pytest.warns(UserWarning, match=r"memory=1 .* decoded before\. memory=") as said:
        for _ in little:
            pass
    assert little.counters.tiles == stored + little.counters.again > stored
    for _ in little:
        pass  # it is said once
    assert len(said) == 1
    told = int(re.findall(r"memory=([\d_]+)", str(said[0].message))[1])
    enough = Batches(Samples(tiny_cube.url), batch_size=2, shuffle=Shuffle(block=1), memory=told)
    for _ in enough:
        pass
    assert enough.counters.again == 0
    less = Batches(Samples(tiny_cube.url), batch_size=2, shuffle=Shuffle(block=1), memory=told - 1)
    for _ in less:
        pass
    assert less.counters.again > 0


def test_batches_kept_by_the_consumer_are_not_overwritten(tiny_cube: Built, made: Made) -> None:
    kept = [batch for _ in range(3) for batch in Batches(Samples(tiny_cube.url, modalities="lc"), batch_size=3)]
    for batch in kept:
        for row, name in enumerate(batch["patch"].tolist()):
            assert np.array_equal(batch["lc"][row], made.pixels[name, "lc"])


def test_two_epochs_at_the_same_time_do_not_mix(tiny_cube: Built, made: Made) -> None:
    batches = Batches(Samples(tiny_cube.url), batch_size=3)
    for _ in range(2):  # the second time with the memory of the first
        for pair in zip(batches, Batches(Samples(tiny_cube.url), batch_size=3, seed=5), batches, strict=False):
            for batch in pair:
                for row, name in enumerate(batch["patch"].tolist()):
                    assert np.array_equal(batch["s2"][row], made.pixels[name, "s2"])


def test_memory_is_that_of_the_epoch_before(tiny_cube: Built) -> None:
    batches = Batches(Samples(tiny_cube.url, modalities="lc"), batch_size=25)
    places = [{batch["lc"].ctypes.data for batch in batches} for _ in range(4)]
    assert len(set.union(*places)) == 1


def test_epochs_differ_and_a_seed_repeats_them(tiny_cube: Built) -> None:
    first, second = (Batches(Samples(tiny_cube.url), batch_size=4, seed=3) for _ in range(2))
    orders = [epoch(first), epoch(first)]
    assert orders[0] != orders[1]
    assert [epoch(second), epoch(second)] == orders


@pytest.mark.parametrize("world", [1, 2, 4, 7])
def test_ranks_share_an_epoch(tiny_cube: Built, made: Made, world: int) -> None:
    seen = [epoch(Batches(Samples(tiny_cube.url), batch_size=3, stream=(rank, world))) for rank in range(world)]
    assert sorted(name for part in seen for name in part) == sorted(made.ids)


@pytest.mark.parametrize("tail", ["drop", "repeat"])
def test_ranks_can_have_equally_many_batches(tiny_cube: Built, made: Made, tail: str) -> None:
    ranks = [Batches(Samples(tiny_cube.url), batch_size=3, stream=(rank, 4), tail=tail) for rank in range(4)]
    seen = [[batch["patch"].tolist() for batch in rank] for rank in ranks]
    assert {len(batches) for batches in seen} == {len(ranks[0])}
    everything = [name for batches in seen for names in batches for name in names]
    assert set(everything) <= set(made.ids)
    if tail == "repeat":
        assert set(everything) == set(made.ids)
        assert len(everything) == 4 * 7
    else:
        assert len(everything) == len(set(everything)) == 4 * 6


@pytest.mark.parametrize("stop", [0, 1, 3, 6, 7])
def test_an_epoch_is_resumed_where_it_was_left(tiny_cube: Built, stop: int) -> None:
    def fresh() -> Batches:
        return Batches(Samples(tiny_cube.url), batch_size=4, seed=1, epoch=2)

    whole = [*epoch(begun := fresh()), *epoch(begun)]
    first, seen = fresh(), []
    batches = iter(first)
    for _ in range(stop):
        seen += next(batches)["patch"].tolist()
    state = json.loads(json.dumps(first.state()))
    batches.close()
    second = fresh()
    second.resume(state)
    rest = [*epoch(second), *epoch(second)]
    assert [*seen, *rest][: len(whole)] == whole  # after the last batch of an epoch the next one begins


def test_who_counts_the_batches_gets_whole_epochs_too(tiny_cube: Built) -> None:
    """A trainer that stops after ``len(batches)`` never asks for one more."""
    batches = Batches(Samples(tiny_cube.url), batch_size=4, seed=1)
    counted = [[name for batch in islice(batches, len(batches)) for name in batch["patch"]] for _ in range(3)]
    again = Batches(Samples(tiny_cube.url), batch_size=4, seed=1)
    assert counted == [epoch(again) for _ in range(3)]


def test_a_state_of_other_batches_is_refused(tiny_cube: Built) -> None:
    state = Batches(Samples(tiny_cube.url), batch_size=4).state()
    for other in (
        Batches(Samples(tiny_cube.url), batch_size=5),
        Batches(Samples(tiny_cube.url), batch_size=4, seed=1),
        Batches(Samples(tiny_cube.url), batch_size=4, stream=(0, 2)),
        Batches(Samples(tiny_cube.url, where="season=summer"), batch_size=4),
    ):
        with pytest.raises(RequestError, match="another loader"):
            other.resume(state)


def test_modalities_and_bands_are_chosen(tiny_cube: Built, made: Made) -> None:
    samples = Samples(tiny_cube.url, modalities={"s2": ["B04", "B02"], "lc": None}, where="season=summer")
    batches = Batches(samples, batch_size=50, dtypes={"s2": "float32"}, shuffle=False)
    (batch,) = batches
    assert list(batch) == ["s2", "lc", "patch"]
    assert batch["s2"].dtype == np.float32
    for row, name in enumerate(batch["patch"].tolist()):
        assert "summer" in name
        assert np.array_equal(batch["s2"][row], made.pixels[name, "s2"][[3, 1]])
    assert "s1" not in samples.readers


def test_samples_are_read_in_any_order(tiny_cube: Built, made: Made) -> None:
    samples = Samples(tiny_cube.url)
    batch = samples.read([5, 0, 5, -1])
    assert batch["patch"].tolist() == [made.ids[at] for at in (5, 0, 5, -1)]
    for row, at in enumerate((5, 0, 5, -1)):
        assert np.array_equal(batch["s2"][row], made.pixels[made.ids[at], "s2"])
    assert np.array_equal(samples[7]["lc"], made.pixels[made.ids[7], "lc"])
    with pytest.raises(IndexError):
        samples[25]
    assert len(pickle.dumps(samples)) < 40_000
    assert np.array_equal(pickle.loads(pickle.dumps(samples))[7]["s2"], samples[7]["s2"])


def test_labels_are_read(tiny_cube: Built, made: Made) -> None:
    samples = Samples(tiny_cube.url, where="season=spring and scene=15")
    assert set(samples.label("split").tolist()) == {"test"}
    assert samples.ids.tolist() == [name for name in made.ids if "spring_15_" in name]
    with pytest.raises(RequestError, match="no label 'colour'"):
        samples.label("colour")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ["s3"]}, "no modality 's3'"),
        ({"modalities": {"s2": ["B99"]}}, r"no bands \['B99'\]"),
        ({"where": "scene=1 and scene=15"}, "no such patches"),
        ({"where": "sesaon=summer"}, "did you mean 'season'"),
    ],
)
def test_what_is_not_there_is_refused(tiny_cube: Built, options: dict, message: str) -> None:
    with pytest.raises((RequestError, ValueError), match=message):
        Samples(tiny_cube.url, **options)


def test_gaps_are_never_filled_silently(tmp_path: Path) -> None:
    made = make_patches(tmp_path / "files", missing=[("ROIs1868_summer_1_p33", "s2")])
    cube = build(write_recipe(tmp_path / "tiny.yaml"), made.folder, tmp_path / "x.zarr", incomplete="keep")
    with pytest.raises(RequestError, match="1 of 25 chosen patches lack"):
        Samples(cube.url)
    assert len(Samples(cube.url, modalities=["s1", "lc"])) == 25
    assert len(Samples(cube.url, incomplete="leave out")) == 24
    kept = Samples(cube.url, incomplete="keep")
    batches = list(Batches(kept, batch_size=8))
    rows = {name: batch["present"][row] for batch in batches for row, name in enumerate(batch["patch"].tolist())}
    assert [name for name, present in rows.items() if not present.all()] == ["ROIs1868_summer_1_p33"]
    pixels = np.concatenate([batch["s2"] for batch in batches])
    names = [name for batch in batches for name in batch["patch"].tolist()]
    assert not pixels[names.index("ROIs1868_summer_1_p33")].any()


def test_an_error_reaches_the_consumer(tiny_cube: Built, tmp_path: Path) -> None:
    url = tmp_path / "x.zarr"
    shutil.copytree(tiny_cube.url, url)
    shard = url / "s2/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 4
    shard.write_bytes(data)
    with pytest.raises(CorruptError, match="s2/c/0/0/0/0"):
        epoch(Batches(Samples(str(url)), batch_size=4))
    shard.unlink()
    with pytest.raises(FileNotFoundError):
        epoch(Batches(Samples(str(url)), batch_size=4))


def test_a_consumer_that_leaves_stops_the_threads(tiny_cube: Built) -> None:
    before = set(threading.enumerate())
    batches = iter(Batches(Samples(tiny_cube.url), batch_size=1))
    next(batches)
    assert "cube-assemble" in {thread.name for thread in set(threading.enumerate()) - before}
    batches.close()
    assert not set(threading.enumerate()) - before


def test_a_slow_consumer_is_named(tiny_cube: Built) -> None:
    batches = Batches(Samples(tiny_cube.url), batch_size=5)
    for _ in batches:
        threading.Event().wait(0.2)
    assert batches.counters.limit == "consumer"


def test_memory_is_used_again_only_when_nobody_holds_it() -> None:
    recycler = Recycler(2)
    first = recycler.empty((4, 4), np.dtype("u2"))
    part, place = first[1:], first.ctypes.data
    del first
    assert recycler.empty((4, 4), np.dtype("u2")).ctypes.data != place
    del part
    assert place in {recycler.empty((2, 4), np.dtype("u4")).ctypes.data}


def test_no_more_memory_is_kept_than_was_said() -> None:
    recycler = Recycler(4, most=100_000)
    for size in (90_000, 200_000, 60_000, 50_000, 30_000):
        array = recycler.empty((size,), np.dtype("u1"))
        array[:] = 1
        del array
        assert sum(base.nbytes for free in recycler._free.values() for base in free) <= 100_000
    kept = {base.ctypes.data for free in recycler._free.values() for base in free}
    assert recycler.empty((30_000,), np.dtype("u1")).ctypes.data in kept


def test_modalities_are_joined_while_they_are_copied(tiny_cube: Built, made: Made) -> None:
    batches = Batches(Samples(tiny_cube.url), batch_size=7, stack={"image": ("s2", "s1")}, dtypes={"s2": "float32"})
    for batch in batches:
        assert list(batch) == ["lc", "image", "patch"]
        for row, name in enumerate(batch["patch"].tolist()):
            both = np.concatenate([made.pixels[name, "s2"].astype("f4"), made.pixels[name, "s1"]])
            assert np.array_equal(batch["image"][row], both, equal_nan=True)
    with pytest.raises(RequestError, match="s3"):
        Batches(Samples(tiny_cube.url), stack={"image": ("s1", "s3")})


LEFT_OPEN = """
import atexit, os, sys, threading
atexit.register(lambda: print([thread.name for thread in threading.enumerate() if thread.name.startswith("cube-")]))
from cube import Batches, Samples
epoch = iter(Batches(Samples(sys.argv[1]), batch_size=1, prefetch=1))
next(epoch)
if "fork" in sys.argv and (child := os.fork()):
    assert os.waitpid(child, 0)[1] == 0
print(any(thread.name == "cube-assemble" for thread in threading.enumerate()))
"""


@pytest.mark.parametrize("how", [[], ["fork"]], ids=["alone", "with a fork"])
def test_a_program_that_leaves_an_epoch_open_ends_its_threads(tiny_cube: Built, how: list[str]) -> None:
    """A thread that is at work when the interpreter ends is torn out of compiled code, which may abort the process."""
    command = [sys.executable, "-c", LEFT_OPEN, tiny_cube.url, *how]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    told = [line for line in ended.stderr.splitlines() if "fork()" not in line]  # Python 3.12 warns of what is tried here
    assert (ended.returncode, told) == (0, [])
    assert ended.stdout.split()[-2:] == ["True", "[]"]
    assert ended.stdout.count("[]") == 1 + len(how)
