"""Labels of patches from the names of their files: texts, numbers, dates and classes. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.recipes.recipe import Recipe
from cube.recipes.sections import EPOCH, Label

NOTHING = {"text": "", "class": "", "number": math.nan, "classes": 0, "date": -(2**31)}
"""What stands for a label that no file tells, where something can."""
BETWEEN = ";"
"""What stands between several classes of one patch."""


def labels_of(recipe: Recipe, groups: Mapping[str, str]) -> dict[str, Any]:
    """Return what the groups of one file's name tell of its patch, by label; what it does not tell is left out.

    Raises ``ValueError`` that says what is no value of a label.
    """
    told = {}
    for name, label in recipe.labels.items():
        if not (label.table or label.lists) and (text := _text(name, label, groups)) is not None:
            told[name] = value_of(name, label, text)
    return told


def _text(name: str, label: Label, groups: Mapping[str, str]) -> str | None:
    """Return a label as a name spells it; None where it does not tell it, or not all of it."""
    if not label.template:
        return groups.get(label.group or name)
    try:
        return label.template.format(**groups)
    except KeyError:
        return None


def value_of(name: str, label: Label, text: str) -> Any:
    """Return the value of a label as it is spelled; dates are days, classes the sum of their bits.

    Raises ``ValueError`` that says what is none.
    """
    if label.type == "classes":
        known, words = list(dict.fromkeys(label.classes.values())), [word.strip() for word in text.split(BETWEEN)]
        if unknown := [word for word in words if word and word not in label.classes]:
            raise ValueError(f"{name} {unknown[0]!r} is none of {', '.join(label.classes)}")
        return sum(1 << known.index(value) for value in {label.classes[word] for word in words if word})
    if label.type == "class":
        if text not in label.classes:
            raise ValueError(f"{name} {text!r} is none of {', '.join(label.classes)}")
        return label.classes[text]
    if label.type == "text":
        if len(text) > label.length:
            raise ValueError(f"{name} {text!r} has {len(text)} characters, the recipe has room for {label.length}")
        return text
    try:
        if label.type == "date":
            return _day(text, label.format)
        return int(text) if label.type == "integer" else float(text)
    except ValueError:
        expected = f"date such as {EPOCH.strftime(label.format)}" if label.type == "date" else label.type
        raise ValueError(f"{name} {text!r} is no {expected}") from None


@lru_cache(4096)
def _day(text: str, spelled: str) -> int:
    return (datetime.strptime(text, spelled).date() - EPOCH).days


@lru_cache(4096)
def natural(text: str) -> tuple[str | int, ...]:
    """Return a text in parts that sort as people count: p9 before p10."""
    return tuple(int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", text)))


def places_in(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each row among those of its group, whose rows stand together."""
    starts = np.flatnonzero(np.any(np.diff(groups, axis=0, prepend=-1), axis=1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
