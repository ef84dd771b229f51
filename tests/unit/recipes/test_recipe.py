"""Recipes: the bundled ones hold, and a mistake is answered with file, line, what was expected and the nearest word."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from cube.errors import RecipeError, RequestError
from cube.format.layout import all_arrays, tile_layouts
from cube.recipes.bundled import recipe_names
from cube.recipes.recipe import Recipe, read_recipe, with_profile

MINI = """\
format: 1
name: mini
title: Mini
catalog: demo
source:
  pattern: '(?P<season>wet|dry)_(?P<modality>sar|map)_(?P<scene>\\d+)_(?P<patch>\\d+)\\.tif'
  path: "{season}_{modality}_{scene}_{patch}.tif"
  ignore: ["*.txt"]
  georeference: file
  incomplete: reject
patch:
  id: "{season}_{scene}_{patch}"
  id_length: 24
  size: 32
seasons:
  wet: {token: wet, start: 2020-01-01, end: 2020-06-30, patches: 9}
  dry: {token: dry, start: 2020-07-01, end: 2020-12-31}
modalities:
  sar:
    token: sar
    title: Radar
    dtype: float32
    fill: nan
    units: dB
    saturated: 0.0
    typical_ratio: 2.0
    bands:
      - {name: HH}
  map:
    token: map
    title: Map
    dtype: uint8
    fill: 0
    units: "1"
    typical_ratio: 9.0
    bands:
      - {name: cover, legend: covers}
legends:
  covers:
    - {value: 1, name: Wood, color: "00ff00"}
splits:
  otherwise: train
  scenes:
    test: [wet/1, dry/2]
known_defects:
  - {patch: wet_1_1, modality: sar, note: odd}
layout:
  tile: 16
  shard: 8
  labels: 64
  header_bytes: 1024
  path_bytes: 64
  memory_limit_mb: 400
  profile: balanced
  profiles:
    fast: {sar: lz4-5-bit, map: zstd-1}
    balanced: {sar: zstd-3, map: zstd-3}
"""


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    path = tmp_path / "mini.yaml"
    path.write_text(MINI, encoding="utf-8")
    return path


def changed(path: Path, old: str, new: str) -> int:
    """Change the recipe and return the line of the change."""
    assert MINI.count(old) == 1
    path.write_text(MINI.replace(old, new), encoding="utf-8")
    return MINI[: MINI.index(old)].count("\n") + 1


def refusal(path: Path | str) -> str:
    with pytest.raises(RecipeError) as caught:
        read_recipe(str(path))
    assert isinstance(caught.value, RequestError)
    return str(caught.value)


def test_the_small_recipe_is_right(mini: Path) -> None:
    recipe = read_recipe(str(mini))
    assert recipe.codec("sar", "fast").model_dump() == {"name": "lz4", "level": 5, "shuffle": "bitshuffle", "block": 0}
    assert recipe.codec("map", "fast").model_dump() == {"name": "zstd", "level": 1, "shuffle": "shuffle", "block": 0}
    assert recipe.split_of("wet", 1) == "test"
    assert recipe.split_of("wet", 2) == "train"
    assert recipe.split_of("dry", 1) == "train"
    assert recipe.modalities["sar"].numpy_dtype == np.dtype("<f4")


MISTAKES = [
    ("  size: 32", "  sise: 32", "patch.sise: unknown key 'sise'; did you mean 'size'?"),
    ("title: Mini", "titel: Mini", "titel: unknown key 'titel'; did you mean 'title'?"),
    ("title: Mini", "title: Mini\nvolume: 11", "volume: unknown key 'volume'; did you mean 'source'?"),
    ("    units: dB", "    unit: dB", "modalities.sar.unit: unknown key 'unit'; did you mean 'units'?"),
    ("{name: HH}", "{nmae: HH}", "modalities.sar.bands.0.nmae: unknown key 'nmae'; did you mean 'name'?"),
    ("dtype: float32", "dtype: flaot32", "modalities.sar.dtype: 'flaot32' is not allowed here; did you mean 'float32'?"),
    ("dtype: uint8", "dtype: complex64", "modalities.map.dtype: 'complex64' is not allowed here; expected one of uint8, int8"),
    ("georeference: file", "georeference: fiel", "source.georeference: 'fiel' is not allowed here; did you mean 'file'?"),
    ("incomplete: reject", "incomplete: rejcet", "source.incomplete: 'rejcet' is not allowed here; did you mean 'reject'?"),
    ("  tile: 16", "  tile: 12", "layout.tile: 12 does not divide patch.size 32"),
    ("  tile: 16", "  tile: 64", "layout.tile: 64 does not divide patch.size 32"),
    ("  tile: 16", "  tile: 4", "layout.tile: Input should be greater than or equal to 8, got 4"),
    ("  tile: 16", "  tile: sixteen", "layout.tile: Input should be a valid integer, got 'sixteen'"),
    ("  shard: 8", "  shard: 0", "layout.shard: Input should be greater than or equal to 1, got 0"),
    ("  shard: 8", "  shard: 70000", "layout.shard: Input should be less than or equal to 65536, got 70000"),
    ("  shard: 8", "  shard: 8.5", "layout.shard: Input should be a valid integer, got 8.5"),
    ("profile: balanced", "profile: balancd", "layout.profile: 'balancd' is not a profile; did you mean 'balanced'?"),
    ("fast: {sar: lz4-5-bit, ", "fast: {", "layout.profiles.fast: names ['map'], expected ['map', 'sar']"),
    ("fast: {sar: lz4", "fast: {optic: zstd-1, sar: lz4", "layout.profiles.fast: names ['map', 'optic', 'sar'], expected"),
    ("lz4-5-bit", "lzma-5", "codec 'lzma-5' of profile fast, modality sar: expected lz4, lz4hc or zstd, a level"),
    ("lz4-5-bit", "lz4", "codec 'lz4' of profile fast, modality sar"),
    ("lz4-5-bit", "zstd-22", "codec 'zstd-22' of profile fast"),
    ("lz4-5-bit", "zstd-0", "codec 'zstd-0' of profile fast"),
    ("legend: covers", "legend: cover", "modalities.map: legend 'cover' is not one of ['covers']"),
    ("wet/1, ", "wte/1, ", "splits.scenes.test: 'wte/1' is not season/scene with a season of ['dry', 'wet']"),
    ("wet/1, ", "wet1, ", "splits.scenes.test: 'wet1' is not season/scene"),
    ("wet/1, ", "wet/one, ", "splits.scenes.test: 'wet/one' is not season/scene"),
    ("wet/1, ", "wet/01, ", "splits.scenes.test: 'wet/01' is not season/scene"),
    ("dry/2]", "dry/2]\n    val: [wet/1]", "splits.scenes.val: 'wet/1' is of the split 'test' already"),
    ("modality: sar, note", "modality: sra, note", "known_defects: the modality 'sra' is not one of ['map', 'sar']"),
    ("fill: nan", "fill: nothing", "modalities.sar.fill: Input should be a valid integer, got 'nothing'"),
    ("fill: nan", "fill: .nan", "modalities.sar.fill: nan is no value of float32"),
    ("fill: nan", "fill: .inf", "modalities.sar.fill: inf is no value of float32"),
    ("fill: 0", "fill: nan", "modalities.map.fill: 'nan' is no value of uint8"),
    ("fill: 0", "fill: 256", "modalities.map.fill: 256 is no value of uint8"),
    ("fill: 0", "fill: 0.5", "modalities.map.fill: 0.5 is no value of uint8"),
    ("fill: 0\n", "fill: 0\n    saturated: 300\n", "modalities.map.saturated: 300 is no value of uint8"),
    ("typical_ratio: 9.0", "typical_ratio: 0", "modalities.map.typical_ratio: Input should be greater than 0, got 0"),
    ("      - {name: HH}", "      []", "modalities.sar.bands: Tuple should have at least 1 item"),
    (
        "      - {name: HH}",
        "      - {name: HH}\n      - {name: HH}",
        "modalities.sar.bands: the names ['HH', 'HH'] are not all different",
    ),
    ("    token: map", "    token: sar", "modalities: the tokens ['sar', 'sar'] are not all different"),
    ("dry: {token: dry", "dry: {token: wet", "seasons: the tokens ['wet', 'wet'] are not all different"),
    (
        "start: 2020-01-01",
        "start: 2020-13-01",
        "seasons.wet.start: Input should be a valid date in the format YYYY-MM-DD, month value is outside",
    ),
    ("start: 2020-01-01", "start: spring", "seasons.wet.start: "),
    ('color: "00ff00"', 'color: "green"', "legends.covers.0.color: String should match pattern"),
    ("(?P<patch>\\d+)", "(?P<ptach>\\d+)", "source.pattern: lacks the named groups ['patch']"),
    ("(?P<patch>\\d+)", "(?P<patch>\\d+", "source.pattern: not a regular expression: "),
    ('id: "{season}_{scene}_{patch}"', 'id: "{season}_{scne}"', "patch.id: uses ['scne'], but the pattern has"),
    ('id: "{season}_{scene}_{patch}"', 'id: "{season}_{scene"', "patch.id: not a template: "),
    ('id: "{season}_{scene}_{patch}"', 'id: "{season}_{patch:d}"', "patch.id: not a template: "),
    ('id: "{season}_{scene}_{patch}"', 'id: "{season}_{patch.__class__}"', "patch.id: uses ['patch.__class__']"),
    ('id: "{season}_{scene}_{patch}"', 'id: "{season}_{patch[0]}"', "patch.id: uses ['patch[0]']"),
    ('id: "{season}_{scene}_{patch}"', 'id: "{season}{patch:{season.__doc__[0]}}"', "patch.id: not a template: "),
    ('id: "{season}_{scene}_{patch}"', 'id: "{season}_{patch:>99999999999}"', "patch.id: not a template: "),
    ('id: "{season}_{scene}_{patch}"', 'id: "{season}_{patch!r}"', "patch.id: not a template: "),
    ('id: "{season}_{scene}_{patch}"', 'id: "{season}_{}"', "patch.id: uses ['']"),
    ('path: "{season}_', 'path: "/{season}_', "source.path: gives '/"),
    ('path: "{season}_', 'path: "a/../../{season}_', "source.path: gives 'a/../../"),
    ('path: "{season}_', 'path: "{saison}_', "source.path: uses ['saison'], but the pattern has"),
    ("  labels: 64", "  labels: 64\n  labels: 65", "the key 'labels' stands on line 50 already"),
    ("format: 1", "format: 3", "format: 3 is not allowed here"),
    ("name: mini", "name: Mini Mini", "name: String should match pattern"),
    ("name: mini", "name: [mini]", "name: Input should be a valid string"),
    ("title: Mini", "title: 5", "title: Input should be a valid string, got 5"),
    ("catalog: demo\n", "", "catalog: Field required"),
    ("  wet: {token", "  wet season: {token", "seasons.wet season.[key]: String should match pattern"),
    (
        "title: Mini",
        "title: !!python/name:os.system",
        "the tag 'tag:yaml.org,2002:python/name:os.system' is not allowed in a recipe",
    ),
    ("title: Mini", "title: !shell ls", "the tag '!shell' is not allowed in a recipe"),
    ("title: Mini", "? [a, b]\n: c", "expected a plain key"),
    ("title: Mini", "2020-01-01: c", "unknown key '2020-01-01'"),
    ("title: Mini", "title: !!int x", "invalid literal"),
    ("title: Mini", "? !!binary aGk=\n: c", "the tag 'tag:yaml.org,2002:binary' is not allowed"),
    ("title: Mini", "title: &t [*t]", "an alias within names the whole"),
]


@pytest.mark.parametrize(
    ("old", "new", "message"), MISTAKES, ids=[f"{old}→{new}".replace("\n", "⏎") for old, new, _ in MISTAKES]
)
def test_a_mistake_is_named_with_file_line_and_what_was_expected(mini: Path, old: str, new: str, message: str) -> None:
    line = changed(mini, old, new)
    said = refusal(mini)
    assert message in said
    assert said.startswith(f"{mini}")
    assert "\n" not in said
    named = re.match(re.escape(str(mini)) + r", line (\d+): ", said)
    if message != "invalid literal":
        assert named, said
        assert line - 14 <= int(named[1]) <= line + 2, said


EXACT = [
    ("  size: 32", "  sise: 32"),
    ("dtype: float32", "dtype: flaot32"),
    ("  tile: 16", "  tile: 12"),
    ("profile: balanced", "profile: balancd"),
    ("start: 2020-01-01", "start: 2020-13-01"),
    ("{name: HH}", "{nmae: HH}"),
    ("fast: {sar: lz4-5-bit, ", "fast: {"),
]


@pytest.mark.parametrize(("old", "new"), EXACT)
def test_the_line_is_that_of_the_key(mini: Path, old: str, new: str) -> None:
    line = changed(mini, old, new)
    assert refusal(mini).startswith(f"{mini}, line {line}: ")


def test_a_duplicate_key_is_named_with_both_lines(mini: Path) -> None:
    line = changed(mini, "  labels: 64", "  labels: 64\n  labels: 65")
    assert refusal(mini) == f"{mini}, line {line + 1}: the key 'labels' stands on line {line} already"


@pytest.mark.parametrize(
    "text", ["", "just words", "- a\n- b", "a: [", "a: b: c", "\x00", "name: &a\nb: *c", "a: 1\n---\nb: 2"]
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text, encoding="utf-8")
    assert str(path) in refusal(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("title: Wälder".encode("latin-1"))
    assert "not YAML" in refusal(tmp_path / "latin.yaml")
    assert refusal(tmp_path / "gone.yaml") == f"{tmp_path}/gone.yaml: no such file"
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml" in refusal(tmp_path / "folder.yaml")


def test_unknown_names_are_answered_with_the_nearest() -> None:
    assert refusal("sen12m") == "no bundled recipe is called 'sen12m'; did you mean 'sen12ms' or 'sen1-2'?"
    assert (
        "expected one of 38-cloud, bigearthnet, bigearthnet-v1, demo, dfc2020, eurosat, eurosat-rgb, "
        "sen1-2, sen1-2-terrain, sen12ms, sen12ms-cr, sen12ms-cr-ts" in refusal("landsat")
    )
    assert "no bundled recipe is called" in refusal("../recipes/sen12ms")


def extended(tmp_path: Path, text: str, name: str = "child") -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_extending_merges_replaces_and_removes(mini: Path, tmp_path: Path) -> None:
    child = extended(
        tmp_path,
        "extends: mini\nname: child\nmodalities: {map: null}\nlegends: null\nknown_defects: null\n"
        "splits: {scenes: {test: [dry/9]}}\n"
        "layout: {shard: 4, profiles: {fast: {map: null}, balanced: {map: null}}}\n",
    )
    recipe, base = read_recipe(str(child)), read_recipe(str(mini))
    assert list(recipe.modalities) == ["sar"]
    assert recipe.modalities["sar"] == base.modalities["sar"]
    assert (recipe.layout.shard, recipe.layout.tile) == (4, 16)
    assert recipe.splits is not None
    assert recipe.splits.scenes == {"test": ("dry/9",)}
    assert (recipe.legends, recipe.known_defects) == ({}, ())


def test_extending_what_extends(mini: Path, tmp_path: Path) -> None:
    extended(tmp_path, "extends: mini\nname: child\nlayout: {shard: 4}\n")
    recipe = read_recipe(str(extended(tmp_path, "extends: child\nname: grandchild\nlayout: {tile: 8}\n", "grandchild")))
    assert (recipe.name, recipe.layout.shard, recipe.layout.tile) == ("grandchild", 4, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: min\n", "line 1: extends: no recipe is called 'min'"),
        ("name: x\nextends: sen12sm\n", "line 2: extends: no recipe is called 'sen12sm'; did you mean 'sen12ms'?"),
        ("extends: ../mini\n", "line 1: extends: '../mini': expected the bare name of a recipe, without a folder"),
        ("extends: /etc/passwd\n", "line 1: extends: '/etc/passwd': expected the bare name"),
        ("extends: child\n", "line 1: extends: no recipe is called 'child'"),
        ("extends: [mini]\n", "line 1: extends: "),
        ("extends: mini\nlayout: {shrad: 4}\n", "line 2: layout.shrad: unknown key 'shrad'; did you mean 'shard'?"),
        ("extends: mini\nlayout: {shard: 4, shard: 5}\n", "line 2: the key 'shard' stands on line 2 already"),
        ("extends: mini\nlayout: 5\n", "line 2: layout: "),
    ],
)
def test_extending_wrongly(mini: Path, tmp_path: Path, text: str, message: str) -> None:
    said = refusal(extended(tmp_path, text))
    assert said.startswith(f"{tmp_path}/child.yaml, {message}")


def test_extending_in_a_circle(tmp_path: Path) -> None:
    extended(tmp_path, "extends: two\n", "one")
    extended(tmp_path, "extends: one\n", "two")
    assert "extends" in refusal(tmp_path / "one.yaml")


def test_a_mistake_in_what_is_extended_names_that_file(mini: Path, tmp_path: Path) -> None:
    line = changed(mini, "dtype: float32", "dtype: flaot32")
    assert refusal(extended(tmp_path, "extends: mini\nname: child\n")).startswith(f"{mini}, line {line}: ")


def test_another_profile(mini: Path) -> None:
    recipe = read_recipe(str(mini))
    fast = with_profile(recipe, "fast")
    assert tile_layouts(fast)["sar"].codec == "lz4"
    assert fast.digest != recipe.digest
    assert with_profile(fast, "balanced") == recipe
    with pytest.raises(RecipeError, match=r"layout.profile: 'fats' is not a profile; did you mean 'fast'\?"):
        with_profile(recipe, "fats")


@pytest.mark.parametrize("name", recipe_names())
def test_bundled_recipes(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    for profile in recipe.layout.profiles:
        assert len(tile_layouts(with_profile(recipe, profile))) == len(recipe.modalities)
    assert len({spec.path for spec in all_arrays(recipe, 10)}) == len(all_arrays(recipe, 10))
    bands = {modality: len(facts.bands) for modality, facts in recipe.modalities.items()}
    assert bands.get("s2", 13) in (3, 13)


def test_the_digest_is_of_everything_a_recipe_says(mini: Path) -> None:
    digests = {read_recipe(str(mini)).digest}
    for old, new in (("title: Mini", "title: Maxi"), ("  shard: 8", "  shard: 9"), ("name: Wood", "name: Woods")):
        changed(mini, old, new)
        digests.add(read_recipe(str(mini)).digest)
    assert len(digests) == 4


@pytest.mark.parametrize("text", ["[" * 50_000, "a: " + "{b: " * 50_000, "- " * 50_000])
def test_levels_within_each_other(tmp_path: Path, text: str) -> None:
    (tmp_path / "deep.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"deep\.yaml: (too many levels|not YAML|expected a mapping)"):
        read_recipe(str(tmp_path / "deep.yaml"))


def test_what_is_far_too_long_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text("# " + "x" * 2**22)
    with pytest.raises(RecipeError, match=r"long\.yaml: more than 4,194,304 characters"):
        read_recipe(str(tmp_path / "long.yaml"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tile", 8193),
        ("labels", 2**24 + 1),
        ("header_bytes", 2**16 + 1),
        ("path_bytes", 4097),
        ("memory_limit_mb", 2**24 + 1),
        ("shard", 65537),
    ],
)
def test_numbers_of_the_layout_have_bounds(key: str, value: int) -> None:
    layout = read_recipe("sen12ms").layout
    with pytest.raises(ValidationError, match="less than or equal"):
        type(layout).model_validate({**layout.model_dump(), key: value})


def test_texts_and_numbers_have_bounds() -> None:
    recipe = read_recipe("sen12ms")
    modality = recipe.modalities["s2"]
    for change, message in (
        ({"title": "x" * 4097}, "at most 4096 characters"),
        ({"scale": float("inf")}, "finite number"),
        ({"typical_ratio": float("nan")}, "finite number|greater than 0"),
        ({"bands": modality.bands * 100}, "at most 1024 items"),
    ):
        with pytest.raises(ValidationError, match=message):
            type(modality).model_validate({**{name: getattr(modality, name) for name in type(modality).model_fields}, **change})
