"""Documents bent at random, roots sealed anew: commands and readers take them, or end in an error that is ours."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from blake3 import blake3
from click.testing import CliRunner
from making import Scene, make_patches, write_recipe
from mutations import as_text, bent, flipped, sealed_anew

import cube
from cube.cli.main import main
from cube.errors import CubeError
from cube.format.arrays import metadata_bytes
from cube.read.opened import opened_cube, read_root
from cube.records.receipts import receipt_bytes
from cube.train.batches import Batches

SEED = 2017
EACH = 20
EACH_OF_JUDGES = int(os.environ.get("CUBE_MUTATIONS", "150"))
"""10,000 take hours: once in a while, not each time."""
SECONDS = 10
"""Nothing takes longer, on a machine that does other things beside it."""
BYTES = 3 * 2**30
"""Memory that may be asked for beyond what there is: a number that is believed asks for more."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    made = make_patches(folder / "files", [Scene("spring", 7, rows=1, columns=3), Scene("fall", 2, rows=1, columns=2)])
    words = ["--source", str(made.folder), "--to", str(folder / "x.zarr"), "--workers", "0", "--sample", "0"]
    result = CliRunner().invoke(main, ["build", str(write_recipe(folder / "tiny.yaml")), *words])
    assert result.exit_code == 0, result.output
    return folder


def command(*words: str) -> Callable[[Path], None]:
    """Return what runs a command in a folder and raises what it does not handle."""

    def run(folder: Path) -> None:
        result = CliRunner().invoke(main, [word.replace("HERE", str(folder)) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code in (0, 1, 2, 3), result.output

    return run


def train(folder: Path) -> None:
    for batch in Batches(cube.Samples(str(folder / "x.zarr"), incomplete="keep"), batch_size=2):
        assert len(batch["patch"]) <= 2


ALONE = ("--workers", "0")
USES: dict[str, Callable[[Path], Any]] = {
    "open_cube": lambda folder: cube.open_cube(str(folder / "x.zarr")).load(),
    "open_cube where": lambda folder: cube.open_cube(str(folder / "x.zarr"), where="season=spring and scene=7").load(),
    "by the catalog": lambda folder: cube.open_cube(str(folder / "x.stac" / "collection.json")),
    "by a class": lambda folder: cube.open_cube(str(folder / "x.zarr"), where="class:Urban>0"),
    "engine": lambda folder: xr.open_dataset(str(folder / "x.zarr"), engine="cube", chunks={}).isel(patch=[0]).load(),
    "Samples": lambda folder: cube.Samples(str(folder / "x.zarr"), incomplete="keep").read([0, 1]),
    "open_scene": lambda folder: cube.open_scene(str(folder / "x.zarr"), season="spring", scene=7).load(),
    "open_patch": lambda folder: cube.open_patch(str(folder / "x.zarr"), "ROIs1158_spring_7_p30").load(),
    "train": train,
    "info": command("info", "HERE/x.zarr"),
    "search": command("search", "HERE/x.zarr", "--where", "scene=7"),
    "verify": command("verify", "HERE/x.zarr", *ALONE),
    "verify --catalog": command("verify", "HERE/x.zarr", "--catalog", *ALONE),
    "copy": command("copy", "HERE/x.zarr", "HERE/whole.zarr", *ALONE),
    "copy where": command("copy", "HERE/x.zarr", "HERE/part.zarr", "--where", "number>30", *ALONE),
    "clean": command("clean", "HERE"),
    "build": command(
        *("build", "HERE/tiny.yaml", "--source", "HERE/files", "--to", "HERE/x.zarr", "--sample", "0", *ALONE),
    ),
    "plan": command("plan", "HERE/tiny.yaml", "--source", "HERE/files"),
}
WRITING = ("copy", "copy where", "build")
BESIDE = ("receipt", "claim", "plan", "report")
READING = ("open_cube", "open_cube where", "engine", "Samples", "open_scene", "open_patch", "train")
CATALOG = ("by the catalog", "by a class", "search", "verify --catalog", "copy", "copy where", "build")


def bend_root(folder: Path, rng: random.Random) -> None:
    path = folder / "x.zarr" / "zarr.json"
    path.write_bytes(sealed_anew(bent(json.loads(path.read_bytes()), rng)))


def bend_array(folder: Path, rng: random.Random) -> None:
    """Bend an array's document alike below the root and in it, with the certificate as it would be."""
    root = json.loads((folder / "x.zarr" / "zarr.json").read_bytes())
    listed = root["consolidated_metadata"]["metadata"]
    name = rng.choice(sorted(listed))
    listed[name] = bent(listed[name], rng)
    stored = as_text(listed[name])
    with suppress(ValueError):
        stored = metadata_bytes(listed[name])
    (folder / "x.zarr" / name / "zarr.json").write_bytes(stored)
    root["attributes"]["cube"]["certificate"]["metadata"][f"{name}/zarr.json"] = blake3(stored).hexdigest()
    (folder / "x.zarr" / "zarr.json").write_bytes(sealed_anew(root))


def bend_json(pattern: str) -> Callable[[Path, random.Random], None]:
    def bend(folder: Path, rng: random.Random) -> None:
        path = rng.choice(sorted(folder.glob(pattern)))
        path.write_bytes(as_text(bent(json.loads(path.read_bytes()), rng)))

    return bend


def bend_receipt(folder: Path, rng: random.Random) -> None:
    path = rng.choice(sorted(folder.glob("x.build/receipts/*.json")))
    receipt = json.loads(path.read_bytes())
    receipt.pop("seal")
    changed = bent(receipt, rng)
    path.write_bytes(receipt_bytes(changed) if isinstance(changed, dict) and changed else as_text(changed))


def flip(pattern: str) -> Callable[[Path, random.Random], None]:
    def bend(folder: Path, rng: random.Random) -> None:
        path = rng.choice(sorted(folder.glob(pattern)))
        path.write_bytes(flipped(path.read_bytes(), rng))

    return bend


DOCUMENTS: dict[str, tuple[Callable[[Path, random.Random], None], tuple[str, ...]]] = {
    "root": (bend_root, (*READING, "info", "verify", "verify --catalog", "copy", "copy where", "build", "search")),
    "array": (bend_array, (*READING, "info", "verify", "copy", "copy where", "build")),
    "collection": (bend_json("x.stac/collection.json"), CATALOG),
    "catalog": (bend_json("x.stac/catalog.json"), CATALOG),
    "item": (bend_json("x.stac/items/*.json"), CATALOG),
    "table": (flip("x.stac/items.parquet"), CATALOG),
    "plan": (bend_json("x.build/plan.json"), ("build", "copy", "copy where", "clean", "info")),
    "receipt": (bend_receipt, ("build", "clean", "verify", "info")),
    "claim": (bend_json("x.build/claims/*.json"), ("build", "clean", "copy")),
    "report": (bend_json("x.build/report.json"), ("build", "info", "copy")),
    "recipe": (flip("tiny.yaml"), ("plan", "build")),
}


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let this process ask for no more than so much memory beyond what it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def run(whole: Path, scratch: Path, name: str, count: int, seed: int) -> list[str]:
    """Bend a document so many times, use each somehow, and return what came of it that should not."""
    bend, uses = DOCUMENTS[name]
    found: list[str] = []
    place = scratch / name
    shutil.copytree(whole, place)
    with bounded_memory():
        for number in range(count):
            rng = random.Random(f"{seed} {name} {number}")
            use = rng.choice(uses)
            bend(place, rng)
            if use == "build" and name in BESIDE and rng.random() < 0.5:
                (place / "x.zarr" / "zarr.json").unlink()
            started = time.monotonic()
            try:
                USES[use](place)
            except (CubeError, FileNotFoundError):
                pass
            except ValueError as error:
                if not left_to_zarr(place):
                    found.append(f"{name} {number}, {use}: {type(error).__name__}: {str(error)[:200]}")
            except Exception as error:  # noqa: BLE001  whatever else comes is what is looked for
                found.append(f"{name} {number}, {use}: {type(error).__name__}: {str(error)[:200]}")
            if time.monotonic() - started > SECONDS:
                found.append(f"{name} {number}, {use}: {time.monotonic() - started:.0f} s")
            restore(whole, place, clean=use in WRITING)
    return found


def left_to_zarr(place: Path) -> bool:
    """Tell whether what is bent says of itself that it is no cube: zarr reads it then, and says what it says."""
    return opened_cube(read_root(str(place / "x.zarr"))) is None


def restore(whole: Path, place: Path, *, clean: bool) -> None:
    """Bring a folder back to what it was; only documents were bent, and only some uses write."""
    if clean:
        shutil.rmtree(place)
        shutil.copytree(whole, place)
    else:
        for path in (*whole.rglob("*.json"), *whole.rglob("*.parquet"), *whole.rglob("*.yaml")):
            shutil.copyfile(path, place / path.relative_to(whole))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_bent_document_ends_in_no_traceback(whole: Path, tmp_path: Path, name: str) -> None:
    found = run(whole, tmp_path, name, EACH, SEED)
    assert not found, "\n".join(found)


@pytest.mark.judges
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_bent_document_ends_in_a_traceback(whole: Path, tmp_path: Path, name: str) -> None:
    found = run(whole, tmp_path, name, EACH_OF_JUDGES, SEED + 1)
    assert not found, "\n".join(found)
