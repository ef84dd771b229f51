"""Images of one file per band, of several sizes: BigEarthNet's own example patches, and made ones in its names and shapes."""

from __future__ import annotations

import bz2
import io
import shutil
import tarfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner
from making import write_tif
from rasterio.transform import Affine

import cube
from cube.cli.main import main
from cube.errors import RequestError
from cube.format.target import target_of
from cube.query.search import search
from cube.recipes.recipe import read_recipe, with_modalities
from cube.source.pairing import pair
from cube.source.scan import scan, whole_stacks
from cube.source.stacks import joined, packed, parted, unpacked
from cube.store.protocol import Entry

SEED = 2019
SIDES = {"s1": 120, "s2_10m": 120, "s2_20m": 60, "s2_60m": 20, "clc": 120}
AXES = {"s1": ("y", "x"), "s2_10m": ("y", "x"), "s2_20m": ("y_60", "x_60"), "s2_60m": ("y_20", "x_20"), "clc": ("y", "x")}
TABLE = "s1_s2_name_country_season.csv"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six example patches that the package ``bigearthnet-common`` brings, and its table of names."""
    folder = tmp_path_factory.mktemp("bigearthnet")
    package = files("bigearthnet_common")
    for name in ("S1", "S2"):
        data = io.BytesIO((package / f"BigEarthNet-{name}-Example.tar.bz2").read_bytes())
        with tarfile.open(fileobj=data) as archive:
            archive.extractall(folder, filter="data")
    lines = bz2.decompress((package / f"{TABLE}.bz2").read_bytes()).decode().splitlines(keepends=True)
    known = {path.name for path in folder.glob("*/*")}
    (folder / TABLE).write_text(lines[0] + "".join(line for line in lines[1:] if known & set(line.split(","))))
    return folder


@pytest.fixture(scope="module")
def built(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cubes") / "ben.zarr"
    result = cube.build("bigearthnet-v1", examples, path)
    assert result.report.passed
    assert result.rejected == []
    return path


def originals(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, group="originals", chunks=None)


def image_paths(path: Path, patch: int, place: int) -> list[str]:
    return parted(bytes(originals(path)["path"][patch, place].to_numpy()).rstrip(b"\0").decode())


def test_published_patches_are_the_same_as_rasterio_reads_them(examples: Path, built: Path) -> None:
    opened, recipe = xr.open_zarr(built, chunks=None), read_recipe("bigearthnet-v1")
    assert opened.sizes["patch"] == 6
    for patch in range(6):
        for place, (name, modality) in enumerate(recipe.modalities.items()):
            paths = image_paths(built, patch, place)
            assert [path.removesuffix(".tif").rpartition("_")[2] for path in paths] == [band.name for band in modality.bands]
            assert opened[name].dims[2:] == AXES[name]
            for band, image in enumerate(paths):
                with rasterio.open(examples / image) as file:
                    np.testing.assert_array_equal(opened[name][patch, band].to_numpy(), file.read(1))
                    assert file.width == SIDES[name]
                    assert file.crs.to_epsg() == int(opened.epsg[patch])
                    scale = SIDES[name] / 120
                    a, b, x, d, e, y = opened.transform[patch].to_numpy()
                    assert tuple(file.transform)[:6] == (a / scale, b / scale, x, d / scale, e / scale, y)


def test_every_file_comes_back_from_its_image(examples: Path, built: Path) -> None:
    kept, opened = originals(built), cube.open_cube(built)
    for patch in range(6):
        for place, name in enumerate(opened.data_vars):
            size = int(kept["header_size"][patch, place])
            headers = unpacked(kept["header"][patch, place].to_numpy()[:size].tobytes())
            assert int(kept["pixel_start"][patch, place]) == 0
            for band, (path, (header, start, whole)) in enumerate(zip(image_paths(built, patch, place), headers, strict=True)):
                pixels = opened[name][patch, band].to_numpy().tobytes()
                data = header[:start] + pixels + header[start:]
                assert len(data) == whole
                assert data == (examples / path).read_bytes()


def test_files_of_bands_are_exported_to_the_byte(examples: Path, built: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["export", str(built), "--to", str(tmp_path / "back")])
    assert "84 files as the originals, byte for byte" in result.output
    back = [path for path in (tmp_path / "back").rglob("*") if path.is_file()]
    assert len(back) == 84
    assert all(path.read_bytes() == (examples / path.relative_to(tmp_path / "back")).read_bytes() for path in back)


def test_pairs_are_those_of_the_table(built: Path) -> None:
    opened = cube.open_cube(built)
    assert set(opened.country.values.tolist()) == {"Austria", "Portugal", "Finland", "Ireland"}
    assert all(patch.startswith("S2") for patch in opened.patch.values.tolist())
    assert (opened.day.values >= np.datetime64("2017-06-01")).all()
    assert cube.open_cube(built, where="country=Austria").tile.values.tolist() == ["33UUP"]


@pytest.mark.filterwarnings("default:Use `@` matmul:PendingDeprecationWarning")  # rioxarray, on every transform
def test_each_size_has_axes_of_its_own(built: Path) -> None:
    patch = cube.open_patch(str(built), "S2A_MSIL2A_20170613T101031_87_48")
    for name, axes in AXES.items():
        if name == "clc":
            continue
        pixels = patch[name]
        assert pixels.dims[1:] == axes
        metres = 1200 / SIDES[name]
        np.testing.assert_array_equal(pixels[axes[1]], 404400 + metres * (np.arange(SIDES[name]) + 0.5))
        np.testing.assert_array_equal(pixels[axes[0]], 5342400 - metres * (np.arange(SIDES[name]) + 0.5))
        assert pixels.rio.crs.to_epsg() == 32633
        assert pixels.rio.resolution() == (metres, -metres)
        assert pixels.rio.bounds() == (404400, 5341200, 405600, 5342400)
    fine = patch.s2_20m.rio.reproject_match(patch.s2_10m)
    assert fine.shape == (6, 120, 120)


def test_a_scene_has_every_size(tmp_path: Path, examples: Path) -> None:
    cube.build("bigearthnet-v1", examples, tmp_path / "x.zarr", where="tile=33UUP")
    scene, patch = (
        cube.open_scene(str(tmp_path / "x.zarr"), scene=0),
        cube.open_patch(str(tmp_path / "x.zarr"), "S2A_MSIL2A_20170613T101031_87_48"),
    )
    for name in ("s1", "s2_10m", "s2_20m", "s2_60m"):
        np.testing.assert_array_equal(scene[name], patch[name])
        np.testing.assert_array_equal(scene[AXES[name][1]], patch[AXES[name][1]])
    assert scene.covered_20.dims == ("y_20", "x_20")
    assert bool(scene.covered.all())


def test_batches_hold_every_size_and_join_what_is_alike(built: Path) -> None:
    samples = cube.Samples(built)
    batch = next(iter(cube.Batches(samples, batch_size=4, shuffle=False)))
    opened = cube.open_cube(built)
    for name in samples.modalities:
        np.testing.assert_array_equal(batch[name], opened[name][:4])
    joined_batch = next(iter(cube.Batches(samples, batch_size=4, shuffle=False, stack={"image": ["s1", "s2_10m"]})))
    assert joined_batch["image"].shape == (4, 6, 120, 120)
    with pytest.raises(RequestError, match=r"several sizes \(s2_10m has 120, s2_20m has 60 pixels\)"):
        cube.Batches(samples, stack={"image": ["s2_10m", "s2_20m"]})


def test_the_command_tells_files_and_finds_them_again(examples: Path, built: Path) -> None:
    told = CliRunner().invoke(main, ["info", str(built)]).output
    assert "84 source files come back byte for byte" in told
    assert "\n6 patches\n" in told
    verified = CliRunner().invoke(main, ["verify", str(built), "--source", str(examples)])
    assert verified.exit_code == 0, verified.output
    assert "84 files of " in verified.output
    assert "13 other files there are no part of the cube" in verified.output


def test_a_changed_band_is_found(examples: Path, built: Path, tmp_path: Path) -> None:
    shutil.copytree(examples, tmp_path / "files")
    band = next((tmp_path / "files").glob("*/*/*_B11.tif"))
    data = bytearray(band.read_bytes())
    data[-9] ^= 1
    band.write_bytes(data)
    verified = CliRunner().invoke(main, ["verify", str(built), "--source", str(tmp_path / "files")])
    assert verified.exit_code == 1
    assert f"{band.parent.name}: " in verified.output
    assert "its pixels differ from the cube's" in verified.output


def test_archives_give_the_same_bytes(examples: Path, built: Path, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    shutil.copy(examples / TABLE, tmp_path / "files")
    for name in ("S1", "S2"):
        with tarfile.open(tmp_path / "files" / f"BigEarthNet-{name}.tar.gz", "w:gz") as archive:
            archive.add(examples / f"BigEarthNet-{name}-Example", f"BigEarthNet-{name}-Example")
    cube.build("bigearthnet-v1", tmp_path / "files", tmp_path / "x.zarr")
    shards = sorted(path.relative_to(built) for path in built.glob("s*/c/0/0/0/0"))
    assert len(shards) == 4
    assert all((built / shard).read_bytes() == (tmp_path / "x.zarr" / shard).read_bytes() for shard in shards)


def test_a_missing_band_is_told_by_its_name(examples: Path, tmp_path: Path) -> None:
    shutil.copytree(examples, tmp_path / "files")
    band = next((tmp_path / "files").glob("*/*/*_B8A.tif"))
    patch = band.parent.name
    band.unlink()
    result = cube.build("bigearthnet-v1", tmp_path / "files", tmp_path / "x.zarr")
    assert sorted((item.path, item.reason) for item in result.plan.inventory.rejected) == [(patch, "incomplete")] * 2
    assert "lacks s2_20m B8A, so the image has not all its bands" in {i.detail for i in result.plan.inventory.rejected}
    cube.build("bigearthnet-v1", tmp_path / "files", tmp_path / "kept.zarr", incomplete="keep")
    kept = cube.open_cube(tmp_path / "kept.zarr")
    assert kept.sizes["patch"] == 6
    assert kept.present.sel(patch=patch).values.tolist() == [True, True, False, True]


def test_bands_that_lie_apart_are_one_rejection(examples: Path, tmp_path: Path) -> None:
    shutil.copytree(examples, tmp_path / "files")
    band = next((tmp_path / "files").glob("*/*/*_B05.tif"))
    with rasterio.open(band, "r+") as file:
        file.transform = Affine(20, 0, 0, 0, -20, 0)
    result = cube.build("bigearthnet-v1", tmp_path / "files", tmp_path / "x.zarr")
    (rejected,) = result.rejected
    assert rejected[1] == "different georeferences"
    assert cube.open_cube(tmp_path / "x.zarr").sizes["patch"] == 6
    assert int(cube.open_cube(tmp_path / "x.zarr").present.all("modality").sum()) == 5


def test_coarse_bands_alone_make_a_cube(examples: Path, tmp_path: Path) -> None:
    recipe = with_modalities(read_recipe("bigearthnet-v1"), ["s2_20m", "s2_60m"])
    assert (recipe.patch.size, recipe.layout.tile) == (60, 60)
    cube.build("bigearthnet-v1", examples, tmp_path / "x.zarr", modalities=["s2_20m", "s2_60m"])
    opened = cube.open_cube(tmp_path / "x.zarr")
    assert opened.s2_20m.dims[2:] == ("y", "x")
    assert opened.transform[0].values.tolist()[0] == 20
    assert dict(opened.sizes)["y_20"] == 20


# Version 2: other names, reference maps, labels in one table

NAMES = {
    "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57": "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_26_57",
    "S2B_MSIL2A_20180204T094160_N9999_R036_T35VPK_00_03": "S1B_IW_GRDH_1SDV_20180205T045713_35VPK_0_3",
}
FIRST, SECOND = NAMES
LABELS = [["Arable land", "Pastures"], ["Marine waters"]]


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two made patches in the names and shapes of version 2, and their cube."""
    folder, rng = tmp_path_factory.mktemp("v2") / "files", np.random.default_rng(SEED)
    recipe = read_recipe("bigearthnet")
    for number, (patch, s1) in enumerate(NAMES.items()):
        for name, modality in recipe.modalities.items():
            side = recipe.side(name)
            for band in modality.bands:
                stem = s1 if name == "s1" else patch
                top = {"s1": "BigEarthNet-S1", "clc": "Reference_Maps"}.get(name, "BigEarthNet-S2")
                path = folder / top / stem.rsplit("_", 2)[0] / stem / f"{stem}_{band.spelled}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(1, 3000, (1, side, side)).astype(modality.dtype)
                pixels = np.full_like(pixels, (211, 231)[number]) if name == "clc" else pixels
                at = Affine(1200 / side, 0, 300000 + 1200 * number, 0, -1200 / side, 5400000)
                write_tif(path, pixels, crs="EPSG:32633", transform=at)
    columns = {
        "patch_id": list(NAMES),
        "labels": LABELS,
        "split": ["train", "test"],
        "country": ["Austria", "Finland"],
        "s1_name": list(NAMES.values()),
        "contains_seasonal_snow": [False, True],
        "contains_cloud_or_shadow": [False, False],
    }
    pq.write_table(pa.table(columns), folder / "metadata.parquet")
    path = folder.parent / "x.zarr"
    result = cube.build("bigearthnet", folder, path)
    assert result.report.passed, [check for check in result.report.checks if check.findings]
    assert result.rejected == []
    return folder, path


def test_version_2_is_built_with_its_labels(second: tuple[Path, Path]) -> None:
    opened = cube.open_cube(second[1])
    assert opened.patch.values.tolist() == list(NAMES)
    assert opened.split.values.tolist() == ["train", "test"]
    assert opened.snow.values.tolist() == ["no", "yes"]
    assert opened.s1_day.values.tolist() == [np.datetime64(day, "ns").astype(int) for day in ("2017-06-13", "2018-02-05")]
    assert opened.clc.shape == (2, 1, 120, 120)
    assert cube.open_cube(second[1], where="class:Pastures>0.5").patch.values.tolist() == [SECOND]


def test_several_classes_are_bits_with_names(second: tuple[Path, Path]) -> None:
    plain = xr.open_zarr(second[1], chunks=None)
    names, masks = plain.classes.attrs["class_names"], plain.classes.attrs["flag_masks"]
    assert plain.classes.attrs["flag_meanings"].split()[2] == "arable_land"
    shown = [[name for name, mask in zip(names, masks, strict=True) if int(value) & mask] for value in plain.classes]
    assert shown == LABELS
    assert cube.open_cube(second[1], where="classes=*Pastures*").patch.values.tolist() == [FIRST]
    assert len(cube.Samples(second[1], where='classes="Marine waters"')) == 1
    table = search(target_of(str(second[1])), "classes=*Arable*").table
    assert table["id"].to_pylist() == [FIRST]
    assert "classes: Arable land 1, Pastures 1, Marine waters 1" in CliRunner().invoke(main, ["info", str(second[1])]).output


def test_a_class_that_is_none_is_one_rejection(second: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(second[0], tmp_path / "files")
    table = pq.read_table(second[0] / "metadata.parquet").to_pydict() | {"labels": [["Moon"], ["Pastures"]]}
    pq.write_table(pa.table(table), tmp_path / "files" / "metadata.parquet")
    found = scan(read_recipe("bigearthnet"), str(tmp_path / "files"))
    assert found.patch.tolist() == [SECOND]
    assert "classes 'Moon' is none of Urban fabric" in found.rejected[0].detail


# Paths and headers


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        (["a/x_B02.tif", "a/x_B03.tif", "a/x_B8A.tif"], "a/x_{B02,B03,B8A}.tif"),
        (["B02/x.tif", "B03/x.tif"], "{B02,B03}/x.tif"),
        (["B2/x_B2.tif", "B03/x_B03.tif"], "{B2/x_B2,B03/x_B03}.tif"),
        (["a/x_VV.tif", "a/x_VH.tiff"], "a/x_{VV.tif,VH.tiff}"),
        (["a.tif"], "a.tif"),
        (["a_1.tif", "a_11.tif"], "a_{1,11}.tif"),
        (["1.tif", "11.tif"], "{1,11}.tif"),
    ],
)
def test_paths_are_joined_and_parted(paths: list[str], text: str) -> None:
    assert joined(paths) == text
    assert parted(text) == paths


def test_headers_are_packed_and_unpacked() -> None:
    files_of = [(b"abc", 2, 100), (b"", -1, 0), (bytes(70000), 8, 2**40)]
    assert unpacked(packed(files_of)) == files_of
    for cut in (1, 19, 21):
        with pytest.raises(ValueError, match="it ends within"):
            unpacked(packed(files_of)[:cut])


def test_signs_of_joined_paths_are_refused_in_names() -> None:
    recipe = read_recipe("bigearthnet-v1")
    stem = "S2A_MSIL2A_20170613T101031_87_48"
    found = whole_stacks(pair(recipe, "x", [Entry(f"a,b/{stem}_B02.tif", 29192), Entry(f"{{/{stem}_B03.tif", 29192)]))
    assert {(item.reason, item.path) for item in found.rejected} == {
        ("wrong name", f"a,b/{stem}_B02.tif"),
        ("wrong name", f"{{/{stem}_B03.tif"),
    }


@pytest.mark.judges
def test_every_published_patch_is_planned() -> None:
    """All 590,326 pairs of version 1 by their true names; 8.3 million files."""
    from cube.convert.deciding import make_plan

    recipe = read_recipe("bigearthnet-v1")
    text = bz2.decompress((files("bigearthnet_common") / f"{TABLE}.bz2").read_bytes()).decode()
    rows = [line.split(",") for line in text.splitlines()[1:]]
    pairs = {s1: s2 for s1, s2, *_ in rows}
    sizes = {120: 29192, 60: 7560, 20: 1160}
    entries = (
        Entry(f"{pairs[s1] if name != 's1' else s1}_{band.spelled}.tif", sizes[recipe.side(name)] * (2 if name == "s1" else 1))
        for s1 in pairs
        for name, band in recipe.files
        if band is not None
    )
    inventory = pair(recipe, "x", entries, otherwise=pairs)
    plan = make_plan(recipe, inventory, incomplete="fail", software={})
    assert plan.patches == 590_326
    assert inventory.rejected == ()
