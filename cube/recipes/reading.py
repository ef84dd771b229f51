"""YAML with line numbers: reading recipe files, extending one by another, and explaining what is wrong with them."""

from __future__ import annotations

import io
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cube.errors import RecipeError
from cube.recipes.bundled import folder, locate, nearest, recipe_names


class _Loader(yaml.SafeLoader):
    """YAML without dates: they stay the text they are, and the recipe says which texts must be dates."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if not tag.endswith(":timestamp")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "merge")}
_MOST_CHARACTERS = 2**22
_MOST_NODES = 1_000_000
"""Values in a recipe: far more than any needs, far fewer than a few nested aliases can stand for."""


class _Named(io.StringIO):
    """A text with the name of its file, which messages of YAML give."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


@dataclass(frozen=True)
class Document:
    """A recipe file as plain data, with the place of every node."""

    name: str
    data: dict[str, Any]
    node: yaml.MappingNode | None = None

    @classmethod
    def of(cls, name: str, data: dict[str, Any]) -> Document:
        """Return a document made in memory; its places are the name alone."""
        return cls(name, data)

    def explain(self, error: ValidationError, model: type[BaseModel]) -> RecipeError:
        """Return the first problem of a failed validation, with its place and the nearest valid word."""
        problem = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        place: list[Any] = [part for part in problem["loc"] if not str(part).startswith(("function-", "literal["))]
        if place and problem["type"] in ("int_type", "float_type") and place[-1] in ("int", "float"):
            place.pop()
        message = problem["msg"].removeprefix("Value error, ")
        if not place and (named := re.match(r"([\w.-]+): ", message)):
            place, message = list(named[1].split(".")), message[named.end() :]
        if problem["type"] == "extra_forbidden":
            message = f"unknown key {place[-1]!r}{nearest(str(place[-1]), _keys_at(model, place[:-1]))}"
        elif "expected" in problem.get("ctx", {}):
            allowed = re.findall(r"'([^']*)'", str(problem["ctx"]["expected"]))
            message = f"{problem['input']!r} is not allowed here{nearest(str(problem['input']), allowed)}"
        elif problem["type"] != "value_error" and not isinstance(problem.get("input"), Mapping):
            message = f"{message}, got {problem.get('input')!r}"
        path = ".".join(str(part) for part in place)
        return RecipeError(f"{self._where(place)}: {path + ': ' if path else ''}{message}")

    def _where(self, place: list[Any]) -> str:
        node: yaml.Node | None = self.node
        mark = node.start_mark if node else None
        for part in place:
            found = _step(node, part)
            if found is None:
                break
            key, node = found
            mark = key.start_mark
        return f"{mark.name}, line {mark.line + 1}" if mark and place else self.name


def load_document(name_or_path: str) -> Document:
    """Read a bundled recipe by name or a file by path, following ``extends``."""
    path = locate(name_or_path)
    node = _extended(path, ())
    try:
        data = _Loader("").construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{path}: {getattr(error, 'problem', error)}") from error
    return Document(str(path), data, node)


def _extended(path: Path, above: tuple[Path, ...]) -> yaml.MappingNode:
    """Return a recipe file's node, merged over those of the recipes it extends."""
    node = _compose(path)
    base = _step(node, "extends")
    if base is None:
        return node
    other = _sibling(path, base[1])
    if other.resolve() in above:
        raise RecipeError(f"{path}, line {base[0].start_mark.line + 1}: extends: {base[1].value!r} extends this recipe itself")
    return _merge(_extended(other, (*above, path.resolve())), _without(node, "extends"))


def _sibling(path: Path, node: yaml.Node) -> Path:
    value = str(node.value)
    where = f"{path}, line {node.start_mark.line + 1}"
    if Path(value).name != value:
        raise RecipeError(f"{where}: extends: {value!r}: expected the bare name of a recipe, without a folder")
    for candidate in (path.parent / f"{value}.yaml", folder("recipes") / f"{value}.yaml"):
        if candidate.is_file() and candidate.resolve() != path.resolve():
            return candidate
    raise RecipeError(f"{where}: extends: no recipe is called {value!r}{nearest(value, recipe_names())}")


def _compose(path: Path) -> yaml.MappingNode:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MOST_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not YAML: {error}") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > _MOST_CHARACTERS:
        raise RecipeError(f"{path}: more than {_MOST_CHARACTERS:,} characters, so it is no recipe")
    return _parsed(str(path), text)


@lru_cache(maxsize=16)
def _parsed(path: str, text: str) -> yaml.MappingNode:
    """Return the node of a recipe's text. It is kept, as many recipes extend the same one: nobody changes a node."""
    try:
        node = yaml.compose(_Named(text, path), Loader=_Loader)
    except RecursionError:
        raise RecipeError(f"{path}: too many levels within each other") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {error}") from error
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{path}: expected a mapping of keys to values")
    if _expanded(node, {}) > _MOST_NODES:
        raise RecipeError(f"{path}: its aliases stand for more than {_MOST_NODES:,} values")
    _check(node, ())
    return node


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many nodes there are once every alias is replaced by what it stands for."""
    if id(node) not in known:
        known[id(node)] = 1
        below = [item for pair in node.value for item in pair] if isinstance(node, yaml.MappingNode) else node.value
        if not isinstance(node, yaml.ScalarNode):
            known[id(node)] += sum(_expanded(item, known) for item in below)
    return known[id(node)]


def _step(node: yaml.Node | None, part: Any) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _without(node: yaml.MappingNode, name: str) -> yaml.MappingNode:
    pairs = [(key, value) for key, value in node.value if key.value != name]
    return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)


def _merge(base: yaml.MappingNode, over: yaml.MappingNode) -> yaml.MappingNode:
    """Return ``base`` with the keys of ``over``: mappings merge, everything else replaces, null removes."""
    replaced = {key.value: (key, value) for key, value in over.value}
    pairs = []
    for key, value in base.value:
        new = replaced.pop(key.value, (key, value))
        if isinstance(new[1], yaml.MappingNode) and isinstance(value, yaml.MappingNode) and new[1] is not value:
            new = (new[0], _merge(value, new[1]))
        pairs.append(new)
    kept = [pair for pair in (*pairs, *replaced.values()) if pair[1].tag != "tag:yaml.org,2002:null"]
    return yaml.MappingNode(base.tag, kept, over.start_mark, over.end_mark)


def _check(node: yaml.Node, above: tuple[yaml.Node, ...]) -> None:
    """Refuse keys that stand twice or are no plain texts, tags, and aliases of what they stand in."""
    where = f"{node.start_mark.name}, line {node.start_mark.line + 1}"
    if node in above:
        raise RecipeError(f"{where}: an alias within names the whole")
    if node.tag not in _TAGS:
        raise RecipeError(f"{where}: the tag {node.tag!r} is not allowed in a recipe")
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check(value, (*above, node))
    elif isinstance(node, yaml.MappingNode):
        _check_keys([key for key, _ in node.value])
        for _, value in node.value:
            _check(value, (*above, node))


def _check_keys(keys: list[yaml.Node]) -> None:
    seen: dict[str, int] = {}
    for key in keys:
        line = key.start_mark.line + 1
        where = f"{key.start_mark.name}, line {line}"
        if not isinstance(key, yaml.ScalarNode):
            raise RecipeError(f"{where}: expected a plain key, not a list or a mapping")
        if key.value in seen:
            raise RecipeError(f"{where}: the key {key.value!r} stands on line {seen[key.value]} already")
        seen[key.value] = line
        _check(key, ())


def _keys_at(model: Any, place: list[Any]) -> list[str]:
    """Return the keys a model allows at a place."""
    for part in place:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[part].annotation
        else:
            model = typing.get_args(model)[0 if isinstance(part, int) else -1]
        choices = [arg for arg in typing.get_args(model) if isinstance(arg, type) and issubclass(arg, BaseModel)]
        if type(None) in typing.get_args(model) and choices:
            model = choices[0]
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
