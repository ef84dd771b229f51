"""The way back: every file as it was, to the byte where that was kept, else an equal image; nothing false, none elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import Built, Made, Scene, build, make_patches, write_recipe
from PIL import Image

import cube
from cube.cli.main import main
from cube.errors import CorruptError, RequestError
from cube.format.target import target_of
from cube.jobs.export import Wanted, _planned, export_cube, stream_cube
from cube.jobs.restoring import restored
from cube.store.urls import open_store


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published(made: Made) -> dict[str, bytes]:
    """Return the files that a cube of all patches is made of."""
    return {path: data for path, data in bytes_of(made.folder).items() if path.endswith(".tif")}


def test_every_file_comes_back_to_the_byte(tiny_cube: Built, made: Made, tmp_path: Path) -> None:
    result = run("export", tiny_cube.url, "--to", tmp_path / "back", "--manifest", tmp_path / "sums", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    back = bytes_of(tmp_path / "back")
    assert facts["exact"] == len(back) > 50
    assert (facts["equal"], facts["standing"]) == (0, 0)
    originals = published(made)
    assert all(data == originals[path] for path, data in back.items())
    lines = (tmp_path / "sums").read_text().splitlines()
    assert lines == [f"{hashlib.sha256(back[path]).hexdigest()}  {path}" for path in sorted(back)]


def test_a_cube_of_what_came_back_is_the_same(tiny_cube: Built, tmp_path: Path) -> None:
    export_cube(target_of(tiny_cube.url), open_store(str(tmp_path / "back")))
    again = build(write_recipe(tmp_path / "tiny.yaml"), tmp_path / "back", tmp_path / "again.zarr")
    first, second = (xr.open_zarr(url, chunks=None) for url in (tiny_cube.url, again.url))
    xr.testing.assert_identical(first.drop_attrs(), second.drop_attrs())
    certificates = [cube_.attrs["cube"]["certificate"]["pixels"] for cube_ in (first, second)]
    assert certificates[0] == certificates[1]


def test_some_patches_and_kinds_come_back(tiny_cube: Built, made: Made, tmp_path: Path) -> None:
    result = run("export", tiny_cube.url, "--to", tmp_path / "back", "--where", "scene=15", "--modalities", "lc,s1")
    assert result.exit_code == 0, result.output
    back, originals = bytes_of(tmp_path / "back"), published(made)
    opened = cube.open_cube(tiny_cube.url, where="scene=15")
    assert len(back) == int(opened.present.sel(modality=["s1", "lc"]).sum())
    assert all(data == originals[path] for path, data in back.items())
    assert not any("s2_" in path for path in back)
    assert "has no modality 'dem'" in run("export", tiny_cube.url, "--to", tmp_path / "x", "--modalities", "dem").output
    assert "no patch of" in run("export", tiny_cube.url, "--to", tmp_path / "x", "--where", "scene>900").output
    assert not (tmp_path / "x").exists()


def test_what_stands_stays_and_what_was_cut_off_is_written_again(tiny_cube: Built, made: Made, tmp_path: Path) -> None:
    place = open_store(str(tmp_path / "back"))
    whole = export_cube(target_of(tiny_cube.url), place)
    paths = sorted(bytes_of(tmp_path / "back"))
    (tmp_path / "back" / paths[0]).write_bytes(b"cut off")
    (tmp_path / "back" / paths[1]).unlink()
    kept = (tmp_path / "back" / paths[2]).stat().st_mtime_ns
    again = export_cube(target_of(tiny_cube.url), place)
    assert again.standing == len(paths) - 2
    assert again.sums == whole.sums
    assert (tmp_path / "back" / paths[2]).stat().st_mtime_ns == kept
    originals = published(made)
    assert all(data == originals[path] for path, data in bytes_of(tmp_path / "back").items())


def test_an_archive_holds_the_same_files(tiny_cube: Built, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    told = stream_cube(target_of(tiny_cube.url), buffer)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}  # type: ignore[union-attr]
    export_cube(target_of(tiny_cube.url), open_store(str(tmp_path / "back")))
    assert members == bytes_of(tmp_path / "back")
    assert dict(told.sums) == {path: hashlib.sha256(data).hexdigest() for path, data in members.items()}
    assert run("export", tiny_cube.url, "--tar", tmp_path / "x.tar").exit_code == 0
    assert (tmp_path / "x.tar").read_bytes() == buffer.getvalue()
    piped = subprocess.run(
        [sys.executable, "-m", "cube", "export", tiny_cube.url, "--tar", "-"], capture_output=True, check=True
    ).stdout
    assert piped == buffer.getvalue()
    again = build(write_recipe(tmp_path / "tiny.yaml"), tmp_path / "x.tar", tmp_path / "again.zarr")
    assert cube.open_cube(again.url).sizes == cube.open_cube(tiny_cube.url).sizes


def test_python_does_as_the_command(tiny_cube: Built, tmp_path: Path) -> None:
    told = cube.export(tiny_cube.url, tmp_path / "python", where="scene=15", modalities=["s2"])
    words = ["--where", "scene=15", "--modalities", "s2", "--manifest", tmp_path / "sums"]
    assert run("export", tiny_cube.url, "--to", tmp_path / "command", *words).exit_code == 0
    assert bytes_of(tmp_path / "python") == bytes_of(tmp_path / "command")
    assert told.manifest() == (tmp_path / "sums").read_text()
    summed = subprocess.run(["sha256sum", "--check", "--quiet", "../sums"], cwd=tmp_path / "command", check=False)
    assert summed.returncode == 0


def test_workers_write_the_same(tiny_cube: Built, tmp_path: Path) -> None:
    assert run("export", tiny_cube.url, "--to", tmp_path / "one", "--workers", "0").exit_code == 0
    assert run("export", tiny_cube.url, "--to", tmp_path / "two", "--workers", "2").exit_code == 0
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


# Files whose bytes are not kept

KINDS = {
    "compress": [None, "deflate", "lzw"],
    "predictor": [1, 2],
    "tiled": [False, True],
    "interleave": ["pixel", "band"],
    "BIGTIFF": ["NO", "YES"],
    "ENDIANNESS": ["LITTLE", "BIG"],
}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in KINDS.items()}))
def test_any_tiff_comes_back_to_the_byte_or_is_told_to_be_equal(
    kind: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("kinds")
    profile = {name: value for name, value in kind.items() if value is not None}
    profile |= {"blockxsize": 16, "blockysize": 16} if kind["tiled"] else {}
    if kind["compress"] is None:
        profile.pop("predictor")
    made = make_patches(folder / "files", scenes=[Scene("spring", 7, rows=1, columns=2, first=30)])
    for path in made.folder.rglob("*_s2_*.tif"):
        with rasterio.open(path) as image:
            pixels, place = image.read(), {"crs": image.crs, "transform": image.transform}
        facts = {"count": pixels.shape[0], "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
        path.unlink()
        with rasterio.open(path, "w", driver="GTiff", **facts, **place, **profile) as image:
            image.write(pixels)
    cube_ = build(write_recipe(folder / "tiny.yaml"), made.folder, folder / "x.zarr")
    told = export_cube(target_of(cube_.url), open_store(str(folder / "back")))
    back, originals = bytes_of(folder / "back"), published(made)
    assert back.keys() == originals.keys()
    equal = [path for path in back if back[path] == originals[path]]
    assert told.exact <= len(equal)
    assert told.exact + told.equal == len(back)
    for path in back:
        with rasterio.open(folder / "back" / path) as here, rasterio.open(made.folder / path) as there:
            np.testing.assert_array_equal(here.read(), there.read())
            assert (here.crs, here.transform, here.dtypes) == (there.crs, there.transform, there.dtypes)


def test_pictures_come_back_with_equal_pixels(tmp_path: Path) -> None:
    rng, pixels = np.random.default_rng(12), {}
    for number in range(3):
        for kind, shape in (("s1", (256, 256)), ("s2", (256, 256, 3))):
            path = f"ROIs1158_spring/{kind}_1/ROIs1158_spring_{kind}_1_p{number}.png"
            pixels[path] = rng.integers(1, 256, shape, "uint8")
            (tmp_path / "files" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[path]).save(tmp_path / "files" / path, compress_level=1)
    cube.build("sen1-2", tmp_path / "files", tmp_path / "x.zarr")
    result = run("export", tmp_path / "x.zarr", "--to", tmp_path / "back")
    assert "6 files with equal pixels and place, other bytes" in result.stdout
    assert bytes_of(tmp_path / "back").keys() == pixels.keys()
    for path, image in pixels.items():
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "back" / path)), image)


@pytest.mark.parametrize(
    ("form", "driver", "ending"), [("gtiff", "GTiff", ".tif"), ("cog", "GTiff", ".tif"), ("png", "PNG", ".png")]
)
def test_plain_images_for_other_tools(
    tiny_cube: Built, made: Made, tmp_path: Path, form: str, driver: str, ending: str
) -> None:
    names = ["lc"] if form == "png" else ["s1", "s2"]
    told = export_cube(
        target_of(tiny_cube.url),
        open_store(str(tmp_path / "back")),
        wanted=Wanted(where="scene=15", modalities=names, form=form),
    )
    back = bytes_of(tmp_path / "back")
    assert told.exact == 0
    assert told.equal == len(back) > 0
    for path in back:
        assert path.endswith(ending)
        original = next(made.folder.rglob(f"{Path(path).stem}.tif"))
        with rasterio.open(original) as there:
            pixels, place = there.read(), (there.crs, there.transform)
        if form == "png":
            with Image.open(tmp_path / "back" / path) as picture:
                assert picture.format == driver
                np.testing.assert_array_equal(np.asarray(picture), pixels.transpose(1, 2, 0))
            continue
        with rasterio.open(tmp_path / "back" / path) as here:
            assert here.driver == driver
            np.testing.assert_array_equal(here.read(), pixels)
            assert (here.crs, here.transform) == place
            assert (here.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == (form == "cog")


def test_what_no_picture_holds_is_told_before(tiny_cube: Built, tmp_path: Path) -> None:
    told = run("export", tiny_cube.url, "--to", tmp_path / "back", "--format", "png")
    assert told.exit_code == 2
    assert "s1 has 2 bands of float32; a PNG takes one to 4 of 8 or 16 bits" in told.output
    told = run("export", tiny_cube.url, "--to", tmp_path / "back", "--manifest", tmp_path / "none" / "sums")
    assert told.exit_code == 2
    assert "no such folder for the manifest" in told.output
    assert not (tmp_path / "back").exists()


# Nothing false, nothing elsewhere


def test_a_damaged_cube_gives_nothing_false_back(tiny_cube: Built, made: Made, tmp_path: Path) -> None:
    shutil.copytree(tiny_cube.url, tmp_path / "x.zarr")
    shard = tmp_path / "x.zarr" / "s2" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptError):
        export_cube(target_of(str(tmp_path / "x.zarr")), open_store(str(tmp_path / "back")))
    originals = published(made)
    assert all(data == originals[path] for path, data in bytes_of(tmp_path / "back").items())
    assert run("export", tmp_path / "x.zarr", "--to", tmp_path / "again").exit_code == 1


def test_a_damaged_header_is_told(tiny_cube: Built, tmp_path: Path) -> None:
    shutil.copytree(tiny_cube.url, tmp_path / "x.zarr")
    chunk = tmp_path / "x.zarr" / "originals" / "header" / "c" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(CorruptError, match="originals/header"):
        export_cube(target_of(str(tmp_path / "x.zarr")), open_store(str(tmp_path / "back")))


@pytest.mark.parametrize("path", ["../x.tif", "/tmp/x.tif", "a/../../x.tif", ""])
def test_a_path_that_leads_elsewhere_is_refused(tiny_cube: Built, path: str) -> None:
    origin, labels = _planned(target_of(tiny_cube.url), Wanted())
    moved = labels.path.copy()
    moved[0, :] = path
    with pytest.raises(CorruptError, match="leads elsewhere"):
        list(restored(origin, replace(labels, path=moved)))


def test_where_to_is_said_once(tiny_cube: Built, tmp_path: Path) -> None:
    assert "--to DIR or --tar FILE, one of them" in run("export", tiny_cube.url).output
    assert run("export", tiny_cube.url, "--to", tmp_path / "x", "--tar", tmp_path / "x.tar").exit_code == 2
    (tmp_path / "there.tar").write_bytes(b"mine")
    assert run("export", tiny_cube.url, "--tar", tmp_path / "there.tar").exit_code != 0
    assert (tmp_path / "there.tar").read_bytes() == b"mine"
    with pytest.raises(RequestError):
        export_cube(target_of(str(tmp_path / "none.zarr")), open_store(str(tmp_path / "x")))
