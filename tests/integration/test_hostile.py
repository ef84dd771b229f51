"""What others wrote (recipes, listings, patch files, cubes) runs no code and leaves no folder; nothing is ever unpickled."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
from making import Built, Made, write_recipe

import cube
from cube.catalog.collection import read_template
from cube.errors import CorruptError, RecipeError, RejectedFile, RequestError
from cube.format.target import target_of
from cube.recipes.recipe import read_recipe
from cube.source.pairing import pair
from cube.source.rasters import read_raster
from cube.store.local import LocalStore
from cube.store.protocol import Entry, Range
from cube.verify.verification import verify_cube

OUTSIDE = ["../secret", "a/../../secret", "/etc/hostname", ".."]


# Recipes


@pytest.mark.parametrize("name", ["../tiny", "/etc/passwd", "a/b", "sub\\..\\x"])
def test_a_recipe_extends_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    path = write_recipe(tmp_path / "a.yaml", base=f"'{name}'")
    with pytest.raises(RecipeError, match=r"expected the bare name of a recipe|no recipe is called"):
        read_recipe(str(path))


@pytest.mark.parametrize("name", ["../templates/demo", "/etc/passwd", "demo.json"])
def test_a_recipe_reads_no_template_elsewhere(name: str) -> None:
    with pytest.raises(RecipeError, match="no template is called"):
        read_template(name)


def test_tokens_do_not_lead_out_of_the_source(tmp_path: Path) -> None:
    more = 'seasons: {spring: {token: ".."}}\nsource: {path: "{season}/{modality}_{scene}_p{patch}.tif"}\n'
    with pytest.raises(RecipeError, match=r"source.path: gives '\.\./.*', which leads out of the source"):
        read_recipe(str(write_recipe(tmp_path / "a.yaml", more=more)))


def test_nested_aliases_are_refused_before_they_are_expanded(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    with pytest.raises(RecipeError, match="its aliases stand for more than 1,000,000 values"):
        read_recipe(str(write_recipe(tmp_path / "a.yaml", more="\n".join(rows) + "\n")))


# Listings


@pytest.mark.parametrize("key", OUTSIDE)
def test_a_folder_is_not_left(tmp_path: Path, key: str) -> None:
    (tmp_path / "secret").write_text("planted")
    (tmp_path / "inside").mkdir()
    store = LocalStore(str(tmp_path / "inside"))
    for ask in (
        lambda: store.read(key),
        lambda: store.read_range(key, 0, 1),
        lambda: store.read_ranges([Range(key, 0, 1)]),
        lambda: store.write(key, b"over"),
        lambda: store.remove(key),
        lambda: store.exists(key),
    ):
        with pytest.raises(PermissionError, match="leads out of its folder"):
            ask()
    (answer,) = store.read_many([key])
    assert isinstance(answer, PermissionError)
    assert (tmp_path / "secret").read_text() == "planted"


def test_a_listed_name_that_leads_elsewhere_is_not_read(made: Made, tiny_recipe: Path, tmp_path: Path) -> None:
    """An object store may list such a key; as a patch file it is bad like any other that cannot be read."""
    name = next(iter(made.files.values())).name
    inventory = pair(read_recipe(str(tiny_recipe)), str(tmp_path), [Entry(f"x/../../{name}", 10, "")])
    (answer,) = LocalStore(str(tmp_path)).read_many([path for path in inventory.path.flat if path] or [f"x/../../{name}"])
    assert isinstance(answer, PermissionError)


# Patch files


@pytest.mark.parametrize(
    "data",
    [
        b"<VRTDataset rasterXSize='1' rasterYSize='1'><SRS/></VRTDataset>",
        b"/etc/passwd",
        b"NETCDF:/etc/passwd:x",
        b"\x89HDF\r\n\x1a\n" + bytes(100),
    ],
    ids=["vrt", "path", "netcdf", "hdf5"],
)
def test_gdal_is_asked_for_nothing_but_tiff_png_and_jpeg(data: bytes) -> None:
    with pytest.raises(RejectedFile, match="expected a TIFF, a PNG or a JPEG"):
        read_raster(data)


# Cubes


@pytest.fixture
def hostile(tiny_cube: Built, tmp_path: Path) -> Path:
    """A copy of a cube, to be made hostile; a secret lies beside it."""
    shutil.copytree(tiny_cube.url, tmp_path / "a.zarr")
    shutil.copytree(Path(tiny_cube.url) / "season", tmp_path / "outside")
    return tmp_path / "a.zarr"


def change_root(url: Path, change: Any) -> None:
    document = json.loads((url / "zarr.json").read_text())
    change(document["consolidated_metadata"]["metadata"], document["attributes"])
    (url / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize("path", ["..", "../outside", "/etc", "."])
def test_an_array_of_a_cube_lies_in_the_cube(hostile: Path, path: str) -> None:
    def move(arrays: dict[str, Any], attributes: dict[str, Any]) -> None:
        arrays[path] = arrays.pop("season")
        attributes["coordinates"] = attributes["coordinates"].replace("season", path)

    change_root(hostile, move)
    with pytest.raises((RequestError, CorruptError, ValueError, KeyError)) as caught:
        cube.open_cube(str(hostile))[path].load()
    assert "planted" not in str(caught.value)
    report = verify_cube(target_of(str(hostile)))
    assert not report.passed


class Planted:
    """Runs when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("codec", ["pickle", "numcodecs.pickle", "json2", "numcodecs.msgpack2"])
@pytest.mark.parametrize("data_type", ["object", "O", "string", {"name": "numpy.object"}])
def test_metadata_cannot_have_a_reader_unpickle(hostile: Path, codec: str, data_type: Any, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    planted = np.empty(1, object)
    planted[0] = Planted(proof)
    (hostile / "season/c/0").write_bytes(numcodecs.Pickle().encode(planted))

    def bend(arrays: dict[str, Any], attributes: dict[str, Any]) -> None:
        arrays["season"] |= {"data_type": data_type, "codecs": [{"name": codec}]}

    change_root(hostile, bend)
    with pytest.raises((RequestError, CorruptError)):
        cube.open_cube(str(hostile))["season"].load()
    assert not verify_cube(target_of(str(hostile))).passed
    assert not proof.exists()


@pytest.mark.parametrize("data_type", ["object", "O", "V8", "M8[s]", "f4,f4"])
def test_a_data_type_is_a_number_or_a_text(hostile: Path, data_type: str) -> None:
    change_root(hostile, lambda arrays, _: arrays["scene"].update(data_type=data_type))
    with pytest.raises((CorruptError, ValueError)):
        cube.open_cube(str(hostile))["scene"].load()


def test_a_group_of_zarr_2_is_not_opened(tmp_path: Path) -> None:
    """There an array may say that it is pickled; zarr itself would obey."""
    proof, url = tmp_path / "ran", tmp_path / "a.zarr"
    planted = np.empty(1, object)
    planted[0] = Planted(proof)
    (url / "x").mkdir(parents=True)
    (url / ".zgroup").write_text('{"zarr_format": 2}')
    described = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None, "fill_value": None}
    (url / "x/.zarray").write_text(json.dumps({**described, "order": "C", "filters": [{"id": "pickle"}]}))
    (url / "x/0").write_bytes(numcodecs.Pickle().encode(planted))
    with pytest.raises(FileNotFoundError):
        xr.open_dataset(str(url), engine="cube").load()
    (url / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
    with pytest.raises(RequestError, match="no consolidated metadata"):
        xr.open_dataset(str(url), engine="cube").load()
    assert not proof.exists()
    pickle.loads((url / "x/0").read_bytes())
    assert proof.exists(), "the trap is no trap"


# The package


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_no_module_unpickles_or_evaluates() -> None:
    """Objects travel between processes in Dask's own messages and nowhere else."""
    unpickling = {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib", "jsonpickle", "subprocess", "ctypes"}
    package = Path(cube.__file__).parent
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # Published labels are pickles: they are read by an unpickler that makes numbers and texts, and refuses all else.
        restricted = {"pickle"} if path == package / "tasks" / "published.py" else set()
        assert unpickling & set(imported(tree)) == restricted, path
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"}
        assert used <= {"Unpickler", "UnpicklingError"}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, path
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", path
