"""Cubes that grow by the command and from Python: everything beside them follows, and what they were can still be seen."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner
from making import BANDS, Made, Scene, make_patches, write_recipe, write_tif
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine

import cube
from cube.cli.main import main
from cube.errors import CorruptError, RequestError
from cube.format.target import target_of
from cube.jobs.clean import find_leftovers
from cube.jobs.diff import difference, source_difference
from cube.read.opened import open_certified
from cube.survey.counted import COUNTED

STEPS = ("season=spring and number in (30, 31) or season=summer", "scene=15", "number>31")
"""What is added first, second and third: parts of the same scenes, and new ones."""
_STANDS = {"x.zarr/s2/c/0/0/0/0", "x.zarr/s2/c/3/0/0/0", "x.stac/items/spring-15.json", "x.stac/overviews/spring-15-s2.png"}
"""What no step but the second may write."""


def run(*arguments: Any, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def grown(recipe: Path, source: Path, to: Path, steps: tuple[str, ...] = STEPS, **options: Any) -> Path:
    for where in steps:
        built = cube.build(recipe, source, to, where=where, grow=True, **options)
        assert built.report.passed, built.report.findings
    return to


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml", shard=4)


@pytest.fixture(scope="module")
def cubes(recipe: Path, made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cube that grew, and one built at once. Read only."""
    folder = tmp_path_factory.mktemp("grown")
    once = folder / "once" / "x.zarr"
    cube.build(recipe, made.folder, once)
    return grown(recipe, made.folder, folder / "parts" / "x.zarr"), once


# What follows


def test_the_catalog_of_a_grown_cube_is_that_of_one_built_at_once(cubes: tuple[Path, Path]) -> None:
    here, there = (files_of(path.with_suffix(".stac")) for path in cubes)
    assert here.keys() == there.keys()
    same = [name for name in here if name.startswith(("items/", "overviews/"))]
    assert len(same) == 12
    for name in same:
        assert here[name] == there[name], name
    collections = [json.loads(files["collection.json"]) for files in (here, there)]
    own = {"patchcube:digest", "patchcube:versions", "patchcube:stored_bytes", "patchcube:tiles", "assets"}
    assert {name for name in collections[0] if collections[0][name] != collections[1][name]} == own
    statistics = [item["assets"]["zarr"]["bands"] for item in collections]
    assert statistics[0] == statistics[1]
    assert [state["patches"] for state in collections[0]["patchcube:versions"]] == [10, 16, 25]


def test_a_grown_cube_passes_every_check(cubes: tuple[Path, Path], made: Made) -> None:
    said = run("verify", cubes[0], "--source", made.folder, "--catalog")
    assert "FAIL" not in said
    assert "75 files" in said
    assert not difference(*(open_certified(str(path)) for path in cubes)).any
    assert not source_difference(open_certified(str(cubes[0])), str(made.folder), "sen12ms").any
    inventory = xr.Dataset.from_dataframe(
        __import__("pandas").read_parquet(cubes[0].with_suffix(".build") / "inventory.parquet")
    )
    assert inventory.sizes["index"] == 25


def test_every_reader_reads_a_grown_cube(cubes: tuple[Path, Path], made: Made) -> None:
    here, once = (cube.open_cube(str(path)) for path in cubes)
    assert here["patch"].values.tolist() != once["patch"].values.tolist()
    for name in BANDS:
        np.testing.assert_array_equal(here[name].sel(patch=made.ids).values, made.array(name))
    for key in (("spring", 1), ("spring", 15), ("summer", 1)):
        scenes = [cube.open_scene(str(path), season=key[0], scene=key[1]) for path in cubes]
        for name in BANDS:
            np.testing.assert_array_equal(scenes[0][name].values, scenes[1][name].values)
    wheres = ("season=spring and scene=15", "class:IGBP:croplands>0.1", "nan=0")
    for where in wheres:
        ids = [set(cube.Samples(str(path), where=where).ids.tolist()) for path in cubes]
        assert ids[0] == ids[1], where
        assert ids[0]
    opened = eval(here.attrs["open_with"], {"xr": xr, "URL": str(cubes[0])})
    assert set(opened["season"].values.tolist()) == {"spring"}


def test_what_grew_comes_back_as_files(cubes: tuple[Path, Path], made: Made, recipe: Path, tmp_path: Path) -> None:
    cube.export(str(cubes[0]), tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(made.folder)
    run("copy", cubes[0], tmp_path / "part.zarr", "--where", "scene=1")
    assert not json.loads((tmp_path / "part.zarr/zarr.json").read_bytes())["attributes"]["cube"].get("versions")
    run("verify", tmp_path / "part.zarr")
    built = cube.build(recipe, made.folder, tmp_path / "part.zarr", grow=True)
    assert built.plan.patches == 6
    assert not difference(open_certified(str(tmp_path / "part.zarr")), open_certified(str(cubes[1]))).any
    assert "subset" not in json.loads((tmp_path / "part.zarr/zarr.json").read_bytes())["attributes"]


@pytest.mark.parametrize("lost", ["gone", "damaged", "of another cube", "a picture is gone", "a picture is damaged"])
def test_what_was_counted_before_may_be_lost(
    made: Made, recipe: Path, cubes: tuple[Path, Path], tmp_path: Path, lost: str
) -> None:
    to = tmp_path / "x.zarr"
    grown(recipe, made.folder, to, STEPS[:2])
    kept, picture = to.with_suffix(".build") / COUNTED, to.with_suffix(".stac") / "overviews/spring-1-s2.png"
    if lost == "gone":
        kept.unlink()
    elif lost == "damaged":
        kept.write_bytes(kept.read_bytes()[:-9])
    elif lost == "of another cube":
        shutil.copy(cubes[1].with_suffix(".build") / COUNTED, kept)
    elif lost == "a picture is gone":
        picture.unlink()
    else:
        picture.write_bytes(picture.read_bytes()[:-40])
    report = cube.build(recipe, made.folder, to, grow=True).report
    assert next(check.seen for check in report.checks if check.name == "pixels").startswith("75 images of 25 patches")
    assert (
        files_of(to.with_suffix(".stac"))["items/spring-1.json"]
        == files_of(cubes[1].with_suffix(".stac"))["items/spring-1.json"]
    )


def test_only_what_is_new_is_looked_at(cubes: tuple[Path, Path], made: Made, recipe: Path, tmp_path: Path) -> None:
    to = tmp_path / "x.zarr"
    grown(recipe, made.folder, to, STEPS[:2])
    before = {path: path.stat().st_mtime_ns for kind in ("zarr", "stac") for path in to.with_suffix(f".{kind}").rglob("*")}
    report = cube.build(recipe, made.folder, to, grow=True).report
    seen = {check.name: check.seen for check in report.checks}
    assert seen["pixels"] == "27 images of 9 patches, decoded and hashed; 16 were when they were written"
    stands = {
        str(path.relative_to(tmp_path)) for path, when in before.items() if path.is_file() and path.stat().st_mtime_ns == when
    }
    assert {
        "x.zarr/s2/c/0/0/0/0",
        "x.zarr/s2/c/3/0/0/0",
        "x.stac/items/summer-1.json",
        "x.stac/overviews/summer-1-s2.png",
    } <= stands
    assert not {"x.zarr/zarr.json", "x.stac/items/spring-1.json"} & stands


def test_nothing_to_add_writes_nothing(cubes: tuple[Path, Path], made: Made, recipe: Path) -> None:
    before = files_of(cubes[0])
    said = run("build", recipe, "--source", made.folder, "--to", cubes[0], "--grow", "--workers", "0")
    assert "has all 25 patches that were asked for: nothing to add" in said
    assert files_of(cubes[0]) == before


def test_a_catalog_that_was_not_written_is_made_by_the_same_command(made: Made, recipe: Path, tmp_path: Path) -> None:
    to = tmp_path / "x.zarr"
    grown(recipe, made.folder, to)
    wanted = files_of(to.with_suffix(".stac"))
    shutil.rmtree(to.with_suffix(".stac"))
    cube.build(recipe, made.folder, to, grow=True)
    assert files_of(to.with_suffix(".stac")) == wanted


def test_a_growth_killed_before_its_catalog_counts_on_from_there(
    cubes: tuple[Path, Path], made: Made, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "x.zarr"
    grown(recipe, made.folder, to, STEPS[:2])

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cube.jobs.build.publish", fail)
        with pytest.raises(KeyboardInterrupt):
            cube.build(recipe, made.folder, to, grow=True)
    assert cube.open_cube(str(to)).sizes["patch"] == 25
    said = run("build", recipe, "--source", made.folder, "--to", to, "--grow", "--workers", "0")
    assert "27 images of 9 patches, decoded and hashed; 16 were when they were written" in said
    for name, data in files_of(cubes[1].with_suffix(".stac")).items():
        if name.startswith(("items/", "overviews/")):
            assert (to.with_suffix(".stac") / name).read_bytes() == data
    run("verify", to, "--catalog")


def test_patches_without_a_place_grow_too(tmp_path: Path) -> None:
    """Their pictures lie side by side, and move where more of a scene come."""
    rng = np.random.default_rng(5)
    for number in range(1, 12):
        for kind in ("s1", "s2"):
            pixels = rng.integers(0, 255, (1 if kind == "s1" else 3, 32, 32)).astype("uint8")
            path = tmp_path / f"files/ROIs1158_spring/{kind}_1/ROIs1158_spring_{kind}_1_p{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[0] if kind == "s1" else pixels.transpose(1, 2, 0)).save(path)
    recipe = write_recipe(tmp_path / "tiny.yaml", base="sen1-2", shard=4)
    cube.build(recipe, tmp_path / "files", tmp_path / "once/x.zarr")
    grown(recipe, tmp_path / "files", tmp_path / "parts/x.zarr", ("number<=2", "number<=7", "number>0"))
    here, there = (files_of(tmp_path / name / "x.stac") for name in ("parts", "once"))
    assert here["overviews/spring-1-s2.png"] == there["overviews/spring-1-s2.png"]
    assert here["items/spring-1.json"] == there["items/spring-1.json"]


def test_a_scene_that_turns_out_to_lie_on_no_grid_is_counted_again(tmp_path: Path, recipe: Path) -> None:
    made = make_patches(tmp_path / "files", (Scene("spring", 1, rows=2, columns=2),))
    crooked = next(path for (name, kind), path in made.files.items() if name.endswith("_p33") and kind == "s2")
    for kind in BANDS:
        path = Path(str(crooked).replace("s2", kind))
        with rasterio.open(path) as image:
            pixels = image.read()
        path.unlink()
        write_tif(path, pixels, crs="EPSG:32632", transform=Affine(10, 0, 600003.25, 0, -10, 5400000.5))
    cube.build(recipe, made.folder, tmp_path / "once/x.zarr")
    grown(recipe, made.folder, tmp_path / "parts/x.zarr", ("number<33", "number=33"))
    here, there = (files_of(tmp_path / name / "x.stac") for name in ("parts", "once"))
    assert here["items/spring-1.json"] == there["items/spring-1.json"]


# What is refused


def test_what_does_not_fit_is_refused(cubes: tuple[Path, Path], made: Made, tmp_path: Path) -> None:
    before = files_of(cubes[0])
    text = "extends: sen12ms\nname: {}\npatch: {{size: 32}}\nlayout: {{tile: 16, shard: 4, labels: 64}}\n{}"
    for name, more, said in (
        ("other", "", "was built by recipe 'tiny', not 'other'"),
        ("tiny", "seasons: {spring: {start: 2016-12-02}}\n", r"has seasons .* a cube that grows keeps them"),
        ("tiny", "splits: null\n", "differ in split: a cube that grows keeps its labels"),
    ):
        (tmp_path / "x.yaml").write_text(text.format(name, more))
        with pytest.raises(RequestError, match=said):
            cube.build(tmp_path / "x.yaml", made.folder, cubes[0], grow=True)
    assert files_of(cubes[0]) == before
    said = run("build", "sen12ms", "--source", made.folder, "--to", cubes[0], "--workers", "0", code=2)
    assert "cube" in said


def test_other_chunks_and_codecs_of_a_recipe_change_nothing(made: Made, tmp_path: Path) -> None:
    first = write_recipe(tmp_path / "first.yaml", shard=4)
    to = tmp_path / "x.zarr"
    cube.build(first, made.folder, to, where="season=spring", profile="fast", modalities="s1,s2")
    second = write_recipe(tmp_path / "second.yaml", shard=64)
    cube.build(second, made.folder, to, grow=True)
    cube.build(first, made.folder, tmp_path / "once.zarr", profile="fast", modalities="s1,s2")
    assert not difference(open_certified(str(to)), open_certified(str(tmp_path / "once.zarr"))).any
    assert json.loads((to / "s2/zarr.json").read_bytes())["chunk_grid"]["configuration"]["chunk_shape"][0] == 4
    assert sorted(path.name for path in (to / "s2/c").iterdir()) == [str(number) for number in range(7)]


@pytest.mark.parametrize("first", ["EPSG", "no EPSG"])
def test_new_patches_may_have_a_crs_of_their_own(tmp_path: Path, recipe: Path, first: str) -> None:
    own = [CRS.from_proj4(f"+proj=laea +lat_0={lat} +lon_0=9 +datum=WGS84") for lat in (50, 51)]
    scenes = {"EPSG": None, "no EPSG": own[0]}
    for season, scene, crs in (("spring", 1, scenes[first]), ("summer", 2, own[1]), ("fall", 3, None)):
        made = make_patches(tmp_path / "files", (Scene(season, scene, rows=1, columns=2),))
        for path in made.files.values() if crs is not None else ():
            with rasterio.open(path) as image:
                pixels, transform = image.read(), image.transform
            path.unlink()
            write_tif(path, pixels, crs=crs, transform=transform)
    once = cube.build(recipe, tmp_path / "files", tmp_path / "once.zarr")
    assert once.rejected == []
    to = grown(recipe, tmp_path / "files", tmp_path / "x.zarr", ("season=spring", "season=summer", "season=fall"))
    run("verify", to, "--catalog", "--source", tmp_path / "files")
    here, there = cube.open_cube(str(to)), cube.open_cube(str(tmp_path / "once.zarr"))
    for name in here["patch"].values.tolist():
        told = [
            str(of["crs_wkt"].values[of["crs_index"].sel(patch=name).item()]) if of["epsg"].sel(patch=name) == 0 else "EPSG"
            for of in (here, there)
        ]
        assert told[0] == told[1]
        np.testing.assert_array_equal(here["lon"].sel(patch=name), there["lon"].sel(patch=name))
    assert here["crs_wkt"].size == (1 if first == "EPSG" else 2)


@pytest.mark.parametrize(("first", "then"), [(0, 0), (0, None), (None, 0), (0, 7)])
def test_what_all_files_say_is_what_old_and_new_ones_say(
    tmp_path: Path, recipe: Path, first: int | None, then: int | None
) -> None:
    for season, nodata in (("spring", first), ("summer", then)):
        made = make_patches(tmp_path / "files", (Scene(season, 1, rows=1, columns=2),))
        for (name, kind), path in made.files.items():
            if kind == "s2" and nodata is not None:
                path.unlink()
                write_tif(path, made.pixels[name, kind], crs="EPSG:32632", transform=made.transforms[name], nodata=nodata)
    cube.build(recipe, tmp_path / "files", tmp_path / "once.zarr")
    to = grown(recipe, tmp_path / "files", tmp_path / "x.zarr", ("season=spring", "season=summer"))
    here, there = (json.loads((path / "s2/zarr.json").read_bytes())["attributes"] for path in (to, tmp_path / "once.zarr"))
    assert here == there
    assert ("file_nodata" in here) is (first == then)
    run("verify", to)
    reports = [json.loads((tmp_path / name / "report.json").read_bytes())["statements"] for name in ("x.build", "once.build")]
    assert reports[0] == reports[1]


# Files that were published again


@pytest.fixture
def again(made: Made, tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder in which three patches were published again, two of them with other pixels, one with a damaged image."""
    folder, names = tmp_path / "again", made.ids[:4]
    for name in names:
        for kind in BANDS:
            path = folder / made.files[name, kind].relative_to(made.folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            data = bytearray(made.files[name, kind].read_bytes())
            if (name, kind) in ((names[0], "s2"), (names[2], "lc")):
                data[-7] ^= 1
            path.write_bytes(data[:-900] if (name, kind) == (names[3], "s1") else data)
    return folder, names


def test_patches_that_changed_take_the_place_of_old_ones(
    again: tuple[Path, list[str]], made: Made, recipe: Path, tmp_path: Path
) -> None:
    to, (folder, names) = tmp_path / "x.zarr", again
    cube.build(recipe, made.folder, to)
    digest = json.loads((to / "zarr.json").read_bytes())["attributes"]["cube"]["certificate"]["root"]
    opened = cube.open_cube(str(to))
    built = cube.build(recipe, folder, to, replace_patches=True)
    assert built.report.passed
    assert built.plan.inventory.patch.tolist() == [names[0], names[2]]
    bad = f"ROIs1158_spring_s1_1_p{made.numbers[names[3]]}.tif"
    told = {(path.rpartition("/")[2], reason) for path, reason, _ in built.rejected}
    assert told == {(bad, "truncated"), (names[3], "incomplete")}
    now, was = cube.open_cube(str(to)), cube.open_cube(str(to), version=1)
    assert sorted(now["patch"].values) == sorted(made.ids)
    assert was["patch"].values.tolist() == made.ids
    with rasterio.open(next(folder.rglob(f"*_s2_1_p{made.numbers[names[0]]}.tif"))) as image:
        np.testing.assert_array_equal(now["s2"].sel(patch=names[0]).values, image.read())
    for seen in (was, opened):
        np.testing.assert_array_equal(seen["s2"].sel(patch=names[0]).values, made.pixels[names[0], "s2"])
    np.testing.assert_array_equal(now["s2"].sel(patch=names[1]).values, made.pixels[names[1], "s2"])
    plain = xr.open_zarr(to, chunks=None)
    assert plain.sizes["patch"] == 27
    assert plain["supersedes"].values.tolist() == [*[-1] * 25, 0, 2]
    # Everything else leaves the old ones out.
    samples = cube.Samples(str(to))
    assert sorted(samples.ids) == sorted(made.ids)
    np.testing.assert_array_equal(samples[samples.ids.tolist().index(names[0])]["s2"], now["s2"].sel(patch=names[0]).values)
    np.testing.assert_array_equal(cube.open_patch(str(to), names[0])["s2"].values, now["s2"].sel(patch=names[0]).values)
    assert len(cube.Samples(str(to), where="class:IGBP:croplands>=0")) == 25
    assert run("search", to, "--where", f"patch={names[0]}").count(names[0]) == 1
    assert json.loads(run("info", to, "--json"))["replaced"] == 2
    cube.export(str(to), tmp_path / "back")
    assert len(files_of(tmp_path / "back")) == 75
    run("verify", to, "--catalog")
    run("verify", to, "--source", folder, "--where", f"patch in ({names[0]}, {names[1]}, {names[2]})")
    # A subset holds what readers see, and nothing is left of what was replaced.
    run("copy", to, tmp_path / "now.zarr", "--where", "number>=0")
    assert "supersedes" not in xr.open_zarr(tmp_path / "now.zarr").coords
    assert not difference(open_certified(str(to)), open_certified(str(tmp_path / "now.zarr"))).any
    # It may grow, and be replaced, once more.
    cube.build(recipe, made.folder, to, replace_patches=True)
    last = cube.open_cube(str(to))
    np.testing.assert_array_equal(last["s2"].sel(patch=names[0]).values, made.pixels[names[0], "s2"])
    assert not difference(open_certified(str(to), version=1), open_certified(str(to))).any
    assert cube.open_cube(str(to), version=1, expect=digest).sizes["patch"] == 25
    with pytest.raises(CorruptError, match="is the digest of its version 1; ask for version=1"):
        cube.open_cube(str(to), expect=digest)
    run("verify", to, "--catalog", "--source", made.folder)


def test_only_classes_that_are_known_are_given(again: tuple[Path, list[str]], made: Made, recipe: Path, tmp_path: Path) -> None:
    to = tmp_path / "x.zarr"
    grown(recipe, made.folder, to)
    whole = cube.Samples(str(to), where="class:IGBP:croplands>=0")
    first = cube.Samples(str(to), where="class:IGBP:croplands>=0", version=1)
    assert first.ids.tolist() == whole.ids[:10].tolist()
    with pytest.raises(RequestError, match="statistics are counted of the newest version only"):
        first.statistics("s2")
    opened = open_certified(str(to))
    cube.build(recipe, again[0], to, replace_patches=True)
    with pytest.raises(RequestError, match="classes are known of patches that still stand; 1 of these were replaced since"):
        cube.Samples(str(to), where="class:IGBP:croplands>=0", version=1)
    with pytest.raises(RequestError, match="2 of these were replaced since"):
        opened.shares("class:IGBP:croplands")


# Versions


def test_every_version_is_as_it_was(recipe: Path, made: Made, tmp_path: Path) -> None:
    to, kept = tmp_path / "x.zarr", []
    for where in STEPS:
        cube.build(recipe, made.folder, to, where=where, grow=True)
        opened = cube.open_cube(str(to))
        kept.append((opened["patch"].values.tolist(), opened.attrs["cube"]["certificate"], opened["s1"].values))
    for number, (ids, certified, pixels) in enumerate(kept, 1):
        seen = cube.open_cube(str(to), version=number, expect=certified["root"])
        assert seen["patch"].values.tolist() == ids
        assert {name: seen.attrs["cube"]["certificate"][name] for name in ("root", "pixels")} == {
            name: certified[name] for name in ("root", "pixels")
        }
        np.testing.assert_array_equal(seen["s1"].values, pixels)
        assert xr.open_dataset(to, engine="cube", version=number).sizes["patch"] == len(ids)
        samples = cube.Samples(str(to), version=number)
        np.testing.assert_array_equal(samples.read(np.arange(len(samples)))["s1"], pixels)
        again = pickle.loads(pickle.dumps(samples))
        assert len(again) == len(ids)
    for wrong in (0, 4, -1, "2", True):
        with pytest.raises(RequestError, match=r"has no version .*; it has versions 1 to 3"):
            cube.open_cube(str(to), version=wrong)
    cube.build(recipe, made.folder, tmp_path / "y.zarr")
    with pytest.raises(RequestError, match="it has only version 1"):
        cube.open_cube(str(tmp_path / "y.zarr"), version=2)
    assert "Versions: 1 of 10 patches, 2 of 16 patches, 3 of 25 patches" in run("info", to)


def test_a_growth_is_seen_and_undone_by_the_command(
    made: Made, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "x.zarr"
    cube.build(recipe, made.folder, to, where=STEPS[0])
    before = files_of(to)

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cube.jobs.build.replace_root", fail)
        with pytest.raises(KeyboardInterrupt):
            cube.build(recipe, made.folder, to, grow=True)
    assert files_of(to) != before
    assert "more patches are being added, or were" in run("verify", to, "--catalog")
    assert "finished cube, and an unfinished growth" in run("clean", tmp_path)
    assert cube.open_cube(str(to)).sizes["patch"] == 10
    run("clean", to, "--yes")
    assert files_of(to) == before
    assert find_leftovers(str(to)) == []


# Defects


def test_defects_are_labels(tmp_path: Path) -> None:
    made = make_patches(tmp_path / "files", (Scene("spring", 1, rows=3, columns=3, first=1),))
    names = made.ids

    def change(name: str, kind: str, pixels: np.ndarray, **profile: Any) -> None:
        path = made.files[name, kind]
        path.unlink()
        write_tif(path, pixels, crs="EPSG:32632", transform=made.transforms[name], **profile)

    s2 = np.random.default_rng(3).integers(1, 9000, (13, 32, 32)).astype("uint16")
    s1 = np.random.default_rng(3).normal(-12, 3, (2, 32, 32)).astype("float32")
    for name in names:
        change(name, "s1", s1)
        change(name, "s2", s2)
    gaps = s1.copy()
    gaps[0, :2, :5] = np.nan
    change(names[0], "s1", gaps)
    change(names[1], "s1", np.full_like(s1, np.nan))
    flat = s2.copy()
    flat[4] = 77
    change(names[2], "s2", flat)
    change(names[3], "s2", np.zeros_like(s2))
    bright = s2.copy()
    bright[5, 3, 3] = 65535
    change(names[4], "s2", bright)
    change(names[5], "s2", s2, nodata=int(s2[0, 0, 0]))
    change(names[6], "s2", s2, nodata=65000)
    recipe = write_recipe(
        tmp_path / "tiny.yaml", more=f"known_defects:\n- {{patch: {names[7]}, modality: s2, note: a bad one}}\n"
    )
    to = tmp_path / "x.zarr"
    built = cube.build(recipe, made.folder, to)
    assert built.report.passed, built.report.findings
    seen = xr.open_zarr(to, chunks=None)
    told = {
        name: dict(enumerate(seen[name].values.tolist()))
        for name in ("nan", "saturated", "constant", "empty", "masked", "known_defect")
    }
    counted = {name: {row: count for row, count in of.items() if count} for name, of in told.items()}
    assert counted == {
        "nan": {0: 10, 1: 2048},
        "saturated": {4: 1},
        "constant": {1: 2, 2: 1, 3: 13},
        "empty": {1: 1, 3: 1},
        "masked": {5: 1},
        "known_defect": {7: 1},
    }
    sound = [names[row] for row in (4, 5, 6, 8)]
    where = "nan=0 and constant=0 and empty=0 and known_defect=0"
    assert cube.Samples(str(to), where=where).ids.tolist() == sound
    assert [line for line in run("search", to, "--where", where).splitlines() if line.startswith("ROIs")] == sound
    assert cube.open_cube(str(to), where="nan=0 and constant=0").sizes["patch"] == 5
    run("copy", to, tmp_path / "sound.zarr", "--drop-defects", "--where", "number<9")
    assert cube.open_cube(str(tmp_path / "sound.zarr"))["patch"].values.tolist() == sound[:3]
    said = run("info", to)
    assert "Patches with defects: nan 2, saturated 1, constant 3, empty 2, masked 1, known_defect 1" in said
    item = json.loads((tmp_path / "x.stac/items/spring-1.json").read_bytes())
    assert item["properties"]["patchcube:patches_with"]["constant"] == 3
    page = (tmp_path / "x.stac/index.html").read_text()
    assert '"defects":[2,1,3,2,1,1]' in page
    run("verify", to, "--catalog")


def test_labels_of_defects_are_held_against_pixels(tiny_cube: Any, tmp_path: Path) -> None:
    """A label that says nothing of a NaN, certified by whoever sealed the cube, is found by its pixels."""
    from cube.format.arrays import encode_chunk, values_digest
    from cube.format.certificate import seal
    from cube.format.root import read_root
    from cube.format.shape import read_specs
    from cube.format.small import read_array
    from cube.verify.verification import verify_cube

    shutil.copytree(tiny_cube.url, to := tmp_path / "x.zarr")
    target = target_of(str(to))
    _, root = read_root(target)
    for name in ("nan", "saturated", "constant", "empty"):
        spec = read_specs(root, "x")[name]
        values = read_array(target.cube, spec).copy()
        values[3] += 1
        (key,) = spec.object_keys()
        target.cube.write(key, encode_chunk(spec, values))
        certified = root["attributes"]["cube"]["certificate"]
        certified["arrays"][name] = values_digest(values)
        certified["root"] = "0" * 64
        (to / "zarr.json").write_bytes(seal(root))
        found = verify_cube(target).findings
        assert [finding.check for finding in found] == ["counts"], name
        assert f"{name} " in found[0].what
        shutil.rmtree(to)
        shutil.copytree(tiny_cube.url, to)
        _, root = read_root(target)
