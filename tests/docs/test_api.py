"""The page of the public API and the code name the same things, and all of them say what they do."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from making import require_torch

from cube import errors

PAGE = Path(__file__).parents[2] / "docs/api.md"
ROW = re.compile(r"^\|(?: `([\w.]+)`)? \| `(\w+)` \| (.+) \|$", re.MULTILINE)
MODULES = (
    "cube",
    "cube.torch",
    "cube.torchgeo",
    "cube.lightning",
    "cube.scenes",
    "cube.placements",
    "cube.splits",
    "cube.tasks",
    "cube.accessor",
    "cube.errors",
)


def listed() -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    module = ""
    for begins, name, _ in ROW.findall(PAGE.read_text(encoding="utf-8")):
        module = begins or module
        names.setdefault(module, []).append(name)
    return names


def public(module: str) -> list[str]:
    if module == "cube.errors":
        return [name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.CubeError)]
    return list(import_module(module).__all__)


def test_the_page_names_every_module() -> None:
    assert set(listed()) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_the_page_names_what_is_public_and_nothing_else(module: str) -> None:
    if module in ("cube.torch", "cube.torchgeo", "cube.lightning"):
        require_torch()
    assert sorted(listed()[module]) == sorted(public(module))
    for name in public(module):
        assert inspect.getdoc(getattr(import_module(module), name)), name
