"""Labels of patches as training takes them: their values, and the classes that these may be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RequestError
from cube.format.layout import CLASS_NAMES
from cube.query.filters import is_of_classes
from cube.read.opened import OpenedCube

Array = NDArray[Any]


def label_values(source: OpenedCube, name: str) -> Array:
    """Return a label (patch): of several classes as texts with semicolons, all others as they are stored.

    Raises ``RequestError`` if there is none of that name, ``FilterError`` for a label by classes that the catalog has not.
    """
    if name in source.labels:
        values = source.value(name)
        return source.shown[name](values) if CLASS_NAMES in source.specs[name].attributes else values
    if is_of_classes(name):
        return source.shares(name)
    raise RequestError(f"{source.url} has no label {name!r}; it has {', '.join(source.labels)}")


def is_several(source: OpenedCube, name: str) -> bool:
    """Tell whether a patch may have several classes of a label."""
    if name in source.labels:
        return CLASS_NAMES in source.specs[name].attributes
    return name.startswith("labels")


def label_classes(source: OpenedCube, name: str) -> list[str]:
    """Return the classes of a label, in the order of their codes."""
    if name in source.labels and (known := source.specs[name].attributes.get(CLASS_NAMES)):
        return list(known)
    if name not in source.labels and (number := re.fullmatch(r"labels?([0-9]+)", name)):
        found = next((names for names in _ways(source) if len(names) == int(number[1])), None)
        if found is None:
            counts = ", ".join(str(len(names)) for names in _ways(source)) or "none"
            raise RequestError(f"{source.url} has no legend of {number[1]} classes; those it has are of {counts}")
        return found
    return sorted(set(np.unique(label_values(source, name)).astype(str).tolist()) - {""})


def _ways(source: OpenedCube) -> Iterator[list[str]]:
    """Yield the classes of every legend, and its wider ones."""
    for path in source.specs:
        if path.endswith("_code") and (stem := path.removesuffix("_code")) and f"{stem}_name" in source.specs:
            yield source.value(f"{stem}_name").tolist()
            if f"{stem}_group" in source.specs:
                yield list(dict.fromkeys(filter(None, source.value(f"{stem}_group").tolist())))
