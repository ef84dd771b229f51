"""Where ``recipes/`` and ``catalog/`` lie: inside the wheel, or beside the package in a checkout."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from cube.errors import RecipeError

_PACKAGE = Path(__file__).parents[1]


def folder(name: str) -> Path:
    """Return the folder ``recipes`` or ``catalog`` that came with this installation."""
    for candidate in (_PACKAGE / "_bundled" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}/ came neither with the wheel nor with a checkout: reinstall the package")


def recipe_names() -> list[str]:
    """Return the names of the bundled recipes."""
    return sorted(path.stem for path in folder("recipes").glob("*.yaml"))


def recipe_titles() -> dict[str, str]:
    """Return name → title of the bundled recipes, without checking them."""
    texts = {name: (folder("recipes") / f"{name}.yaml").read_text(encoding="utf-8") for name in recipe_names()}
    return {name: re.findall(r"^title: (.+)$", text, re.MULTILINE)[0] for name, text in texts.items()}


def locate(name_or_path: str) -> Path:
    """Return the file of a bundled recipe by its name, or of any recipe by its path.

    Raises ``RecipeError`` naming the nearest recipes where there is none.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if path.is_file():
            return path
        raise RecipeError(f"{name_or_path}: no such file")
    if name_or_path in recipe_names():
        return folder("recipes") / f"{name_or_path}.yaml"
    raise RecipeError(f"no bundled recipe is called {name_or_path!r}{nearest(name_or_path, recipe_names(), most=2)}")


def nearest(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return a clause naming the nearest known words, or all of them; empty where none is known."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=most, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; expected one of {', '.join(known)}" if known else ""
