"""Regular expressions that somebody else wrote: they neither grow without end when they are read nor run without end."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

import regex

from cube.errors import RecipeError

_SECONDS = 1.0
"""Processor time for one name; a sound pattern takes some millionths of that."""
_REPEATS = 10**6
"""Product of all counts in braces: repeated parts may be written out, those within each other again and again."""
_COUNTS = re.compile(r"\{(\d*)(?:,(\d*))?\}")


@cache
def compiled(pattern: str) -> Any:
    """Return a pattern, ready to match. Raises ``ValueError`` for what is none, or repeats too much."""
    counts = [int(count[:9]) for pair in _COUNTS.findall(pattern) for count in pair if count.strip("0")]
    if math.prod(counts) > _REPEATS:
        raise ValueError(f"its counts in braces, {counts}, multiply to more than {_REPEATS:,}")
    try:
        re.compile(pattern)  # what the standard library does not read, no reader of a recipe would expect
        return regex.compile(pattern)
    except RecursionError:
        raise ValueError("too many groups within each other") from None
    except (re.error, regex.error, OverflowError) as error:
        raise ValueError(str(error)) from None


def whole_match(pattern: str, name: str) -> Any:
    """Return the match of a whole name, or None. Raises ``RecipeError`` if that takes too long, naming both."""
    try:
        return compiled(pattern).fullmatch(name, timeout=_SECONDS)
    except TimeoutError:
        raise RecipeError(
            f"source.pattern: {pattern!r} takes more than {_SECONDS:.0f} s for the name {name!r}: "
            "write it without repeats of repeats, such as (a+)+, and without alternatives that begin alike"
        ) from None
