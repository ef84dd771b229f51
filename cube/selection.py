"""Which patches of a cube a filter and a box choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.filters import parse, select


def select_patches(
    labels: Callable[[str], NDArray[Any]],
    names: Sequence[str],
    where: str | None,
    bbox: tuple[float, float, float, float] | None,
) -> NDArray[np.int64]:
    """Return the positions of the chosen patches, in order."""
    if where is None:
        return np.arange(len(labels("patch")))
    fields = {clause.field for clause in parse(where)}
    return np.flatnonzero(select(where, {name: labels(name) for name in names if name in fields}))
