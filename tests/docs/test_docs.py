"""The documents: their blocks run, their links lead somewhere, and they name all there is."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from making import LEFT_OUT
from PIL import Image
from pydantic import BaseModel

from cube.cli.main import main
from cube.format.additions import definition_arrays, supersedes_array
from cube.format.layout import label_arrays, original_arrays, pixel_arrays
from cube.recipes import made, sections
from cube.recipes.bundled import recipe_names
from cube.recipes.recipe import Recipe, read_recipe
from cube.work.config import ClusterProfile, read_config

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "catalog/README.md"])
USER_DOCUMENTS = [path for path in DOCUMENTS if path.parent in (ROOT, ROOT / "docs")]
COMMANDS: dict[str, click.Command] = dict(main.commands)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    document: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{name_of(self.document)}, line {self.line}"


def blocks_of(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield Block(document, text.count("\n", 0, match.start(2)) + 1, match[1], match[2])


# Blocks


@pytest.mark.parametrize("document", USER_DOCUMENTS, ids=name_of)
def test_blocks_run(document: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python and console blocks of a document run one after the other, in a folder where the demo has been made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cube-demo").symlink_to(demo)
    names: dict[str, Any] = {}
    for block in blocks_of(document):
        assert block.language in RUNNERS, f"{block.place}: blocks of {block.language!r} are not checked"
        RUNNERS[block.language](block, names)


def run_python(block: Block, names: dict[str, Any]) -> None:
    if "torch" in block.text and importlib.util.find_spec("torch") is None:
        LEFT_OUT.add(f"{block.place}: PyTorch is not installed")
        return
    source = "\n" * (block.line - 1) + block.text
    exec(compile(source, str(block.document), "exec"), names)


def run_changed(block: Block, names: dict[str, Any]) -> None:
    """A difference is run as it is after the change."""
    kept = [line[1:] for line in block.text.splitlines() if not line.startswith("-")]
    assert len(kept) < len(block.text.splitlines())
    run_python(replace(block, text="\n".join(kept)), names)


def save_yaml(block: Block, names: dict[str, Any]) -> None:
    """YAML blocks are recipes or config files; their first line names them."""
    match = re.match(r"# (\w+\.yaml)\n", block.text)
    assert match, f"{block.place}: expected a first line such as `# name.yaml`"
    Path(match[1]).write_text(block.text, encoding="utf-8")
    if re.search(r"^(cluster|storage):", block.text, re.MULTILINE):
        read_config(match[1])
    elif match[1] != "wrong.yaml":
        read_recipe(match[1])


def run_console(block: Block, names: dict[str, Any]) -> None:
    """Commands follow ``$``; each line below one must be part of a line that it prints."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *expected = part.splitlines()
        words = shlex.split(command)
        assert words[0] == "cube", f"{block.place}: {command}"
        got = CliRunner().invoke(main, words[1:], prog_name="cube")
        assert got.exception is None or isinstance(got.exception, SystemExit), f"{block.place}: {command}\n{got.output}"
        missing = [line for line in expected if not any(line in seen for seen in got.output.splitlines())]
        assert not missing, f"{block.place}: {command} does not print {missing}, but\n{got.output}"


def parse_shell(block: Block, names: dict[str, Any]) -> None:
    """Shell blocks are not run, but every command in them exists with these options."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "cube":
            command = COMMANDS[words[1]]
            command.make_context(words[1], list(words[2:]))
        elif words and words[0] == "python":
            assert (ROOT / words[1]).is_file(), f"{block.place}: no script {words[1]!r}"
        elif words and words[0] == "make":
            assert words[1] in targets, f"{block.place}: no target {words[1]!r}"
        else:
            assert not words or words[0] in ("pip", "export"), f"{block.place}: {line}"


RUNNERS = {"python": run_python, "diff": run_changed, "yaml": save_yaml, "console": run_console, "sh": parse_shell}


def test_extras_that_readme_installs_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = re.findall(r'pip install "\.\[(\w+)\]"', (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(asked) == {"torch"}
    assert set(asked) <= project["optional-dependencies"].keys()


# Links


def anchors_of(document: Path) -> set[str]:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), f"{name_of(document)}: {target}"
        assert not anchor or anchor in anchors_of(file), f"{name_of(document)}: {target}: no such heading"


def test_every_document_is_linked_from_the_first() -> None:
    linked = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name_of(path) for path in DOCUMENTS if path.parts[-2] in ("docs", "design") and name_of(path) not in linked] == []


# All there is, is named


def all_text() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in USER_DOCUMENTS)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_explained(name: str) -> None:
    command, text = COMMANDS[name], all_text()
    assert command.help
    assert re.search(rf"`cube {name}\b|^cube {name}\b|^\$ cube {name}\b", text, re.MULTILINE)
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"cube {name} {option.opts[0]} has no help"
            assert re.search(rf"{option.opts[0]}\b", text), f"no document mentions {option.opts[0]}"


def test_recipes_are_named() -> None:
    for document in ("README.md", "docs/recipes.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        assert [name for name in recipe_names() if not re.search(rf"[` ]{name}[` ]", text)] == []


def rows_of(document: str) -> Iterator[list[str]]:
    for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_every_key_of_a_recipe_is_explained() -> None:
    models: dict[str, type[BaseModel]] = {
        "": Recipe,
        "source.": sections.Naming,
        "patch.": sections.Patch,
        "seasons.*.": sections.Season,
        "period.": sections.Period,
        "labels.*.": sections.Label,
        "modalities.*.": sections.Modality,
        "bands.": sections.Band,
        "legends.*.": sections.LegendClass,
        "splits.": sections.Splits,
        "known_defects.": sections.Defect,
        "layout.": sections.Layout,
        "demo.": made.Demo,
    }
    keys = {f"{place}{field}" for place, model in models.items() for field in model.model_fields}
    lines = (ROOT / "docs/recipes.md").read_text(encoding="utf-8").partition("## Every key")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in lines.splitlines() if line.startswith("| ")]
    explained = {key for row in rows for key in re.findall(r"`([\w.*]+)`", row[0])}
    assert explained == keys | {"extends"}
    nested = {field for model in (made.DemoScene, made.DemoFile) for field in model.model_fields}
    assert {field for field in nested if f"`{field}`" not in lines} == set()


def test_every_key_of_a_cluster_is_explained() -> None:
    keys = {field.alias or name for name, field in ClusterProfile.model_fields.items()}
    assert keys <= {row[0].strip("`") for row in rows_of("docs/clusters.md")}


def test_every_reason_to_reject_is_explained() -> None:
    explained = {reason for row in rows_of("docs/recipes.md") for reason in re.findall(r"`([a-zA-Z ]+)`", row[0])}
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "cube").rglob("*.py"))
    raised = set(re.findall(r'RejectedFile\(\s*"([^"]+)"', sources))
    named = set(re.findall(r'Rejected\([^\n]*?, "([^"]+)", ', sources))
    assert {"truncated", "duplicate", "incomplete"} <= raised | named
    assert raised | named <= explained


def test_exit_codes_are_explained() -> None:
    codes = {row[0] for row in rows_of("docs/operations.md")}
    assert {"0", "1", "2", "3", "130"} <= codes


# The format


def test_arrays_are_as_the_format_says() -> None:
    recipe = read_recipe("sen12ms")
    said: dict[str, tuple[list[str], str, str]] = {}
    for names, *cells in rows_of("docs/format.md"):
        if len(cells) >= 3 and cells[0].startswith("`patch`"):
            dimensions = re.findall(r"`(\w+)`", cells[0])
            said |= {name: (dimensions, cells[1], cells[2].strip("`").lower()) for name in re.findall(r"`([\w/]+)`", names)}
    label, _ = definition_arrays(recipe, 9, ["a definition"])
    labels = [*label_arrays(recipe, 9), label, supersedes_array(recipe, 9)]
    specs = [*pixel_arrays(recipe, 9), *labels, *original_arrays(recipe, 9)]
    written = {}
    for spec in specs:
        kind = np.dtype(spec.dtype)
        fill = '""' if spec.fill == "" else str(spec.fill).lower()
        written[spec.path] = (list(spec.dimensions), "text" if kind.kind == "U" else kind.name, fill)
    assert said == written


def test_root_attributes_are_as_the_format_says(demo: Path) -> None:
    import xarray as xr

    attributes = xr.open_zarr(demo / "demo.zarr").attrs
    text = (ROOT / "docs/format.md").read_text(encoding="utf-8").partition("## Root attributes")[2].partition("\n## ")[0]
    assert [key for key in (*attributes, *attributes["cube"]) if f"`{key}`" not in text] == []
    certified = (ROOT / "docs/format.md").read_text(encoding="utf-8").partition("## Certificate")[2]
    keys = attributes["cube"]["certificate"].keys() - {"hash"}
    assert [key for key in keys if f"`certificate.{key}`" not in certified] == []


def test_the_picture_is_of_the_demo(demo: Path) -> None:
    picture = ROOT / "docs/scene.png"
    assert picture.stat().st_size < 400_000
    drawn = runpy.run_path(str(ROOT / "docs/make_pictures.py"))["draw"](str(demo / "demo.zarr")).convert("RGB")
    with Image.open(picture) as image:
        kept = image.convert("RGB")
    assert kept.size == drawn.size
    difference = np.abs(np.asarray(kept, float) - np.asarray(drawn, float))
    assert difference.mean() < 3


# The house


def test_every_room_is_explained_in_the_order_of_the_imports() -> None:
    contract = re.search(
        r'name = "Imports point one way".*?layers = \[(.*?)\]', (ROOT / "pyproject.toml").read_text("utf-8"), re.DOTALL
    )
    assert contract
    layers = [set(re.split(r" [:|] ", layer)) for layer in re.findall(r'"([^"]+)"', contract[1])][1:]
    rows = [row[0].strip("`") for row in rows_of("docs/architecture.md")]
    rooms = rows[rows.index("cli") : rows.index("errors") + 1]
    place = {room: number for number, layer in enumerate(layers) for room in layer}
    assert sorted(rooms) == sorted(place)
    assert [place[room] for room in rooms] == sorted(place[room] for room in rooms)


def test_every_room_says_what_it_is_for() -> None:
    for room in {path.parent for path in (ROOT / "cube").glob("*/__init__.py")}:
        text = (room / "__init__.py").read_text(encoding="utf-8")
        assert text.startswith('"""')
        assert len(text.split('"""')[1].splitlines()) >= 4, room.name
