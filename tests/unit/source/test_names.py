"""Names: extensions in any spelling, equal copies, and which recipe a folder's names tell."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from making import Scene, make_patches

from cube.cli.main import main
from cube.errors import RequestError
from cube.recipes.recipe import Recipe, read_recipe
from cube.source.names import Names, likely_recipes
from cube.source.scan import recognise, scan


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe("sen12ms")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_patches(tmp_path / "files", [Scene("spring", 7, rows=1, columns=2, first=30)]).folder


@pytest.mark.parametrize("extension", ["tif", "TIF", "tiff", "TIFF", "Tif", "tIfF"])
def test_extensions_are_read_in_any_spelling(recipe: Recipe, folder: Path, extension: str) -> None:
    for path in list(folder.rglob("*.tif")):
        path.rename(path.with_suffix(f".{extension}"))
    inventory = scan(recipe, str(folder))
    assert len(inventory) == 2
    assert inventory.complete.all()
    assert not inventory.rejected


@pytest.mark.parametrize(("name", "as_png"), [("PNG", True), ("png", True), ("jpg", False)])
def test_of_pictures_too(name: str, as_png: bool) -> None:
    names = Names(read_recipe("sen1-2"))
    assert (names.read(f"a/ROIs1158_spring_s1_1_p1.{name}") is not None) == as_png


def test_a_recipe_can_say_otherwise(recipe: Recipe) -> None:
    source = recipe.source.model_copy(update={"exact_extensions": True})
    names = Names(recipe.model_copy(update={"source": source}))
    assert names.read("ROIs1158_spring_s1_7_p30.tif")
    assert names.read("ROIs1158_spring_s1_7_p30.TIF") is None


def test_of_equal_files_one_is_used_and_the_others_are_counted(recipe: Recipe, folder: Path) -> None:
    before = scan(recipe, str(folder))
    first = next(folder.rglob("*_s1_*p30.tif"))
    for place in ("again", "and/again"):
        (folder / place).mkdir(parents=True)
        shutil.copy(first, folder / place / first.name)
    shutil.copy(first, first.with_suffix(".TIF"))
    inventory = scan(recipe, str(folder))
    assert inventory.copies == 3
    assert not inventory.rejected
    assert inventory.complete.all()
    assert inventory.size.tolist() == before.size.tolist()


def test_of_different_files_none_is_used(recipe: Recipe, folder: Path) -> None:
    first = next(folder.rglob("*_s1_*p30.tif"))
    (folder / "again").mkdir()
    (folder / "again" / first.name).write_bytes(first.read_bytes()[:-1] + b"x")
    inventory = scan(recipe, str(folder))
    assert (inventory.copies, inventory.reasons()) == (0, {"duplicate": 2})


def test_a_folder_of_other_names_is_told_a_name_and_the_recipe_it_looks_like(folder: Path) -> None:
    with pytest.raises(RequestError) as caught:
        scan(read_recipe("sen1-2"), str(folder))
    assert str(caught.value).endswith(
        "expected names such as ROIs1158_spring/s1_1/ROIs1158_spring_s1_1_p30.png; these look like sen12ms"
    )
    assert "?P<" not in str(caught.value)


@pytest.mark.parametrize("name", ["sen12ms", "sen1-2", "sen12ms-cr"])
def test_every_recipe_has_a_name_to_show(name: str) -> None:
    recipe = read_recipe(name)
    assert Names(recipe).read(Names(recipe).example())
    assert "?P<" not in Names(recipe).example()


def test_the_recipe_is_found_by_the_names(folder: Path, tmp_path: Path) -> None:
    assert recognise(str(folder)) == "sen12ms"
    assert likely_recipes(["x/ROIs1158_spring_s2_cloudy_1_p1.tif", "x/ROIs1158_spring_s1_1_p1.tif"]) == ["sen12ms-cr"]
    for path in [*folder.rglob("*_s2_*.tif"), *folder.rglob("*_lc_*.tif")]:
        path.unlink()
    with pytest.raises(RequestError, match="its files fit sen12ms and sen12ms-cr alike: say which"):
        recognise(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="fit no bundled recipe"):
        recognise(str(tmp_path / "empty"))
    with pytest.raises(RequestError, match="no such folder"):
        recognise(str(tmp_path / "nowhere"))


def test_plan_without_a_recipe_says_which_it_took(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "--source", str(folder)])
    said = capsys.readouterr()
    assert "its files are named as recipe 'sen12ms' says" in said.err
    assert said.out.startswith("SEN12MS from ")
