"""Labels of whole patches from the shares of classes in them, and tables that make masks of codes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RequestError

LEAST = 0.1
"""Share from which on a class is a label of a patch that may have several."""
IGNORED = 255
"""Value of a mask that no loss counts."""

Shares = NDArray[np.floating[Any]]


def merged(shares: Shares, groups: Sequence[str]) -> tuple[list[str], Shares]:
    """Return wider classes, in the order in which they first appear, and their shares (patch, class).

    ``shares`` is (patch, class) and ``groups`` names the wider class of each; those without one (an empty text) are left out.
    NaN stays NaN.
    """
    if len(groups) != shares.shape[1]:
        raise RequestError(f"there are {len(groups)} groups for the shares of {shares.shape[1]} classes")
    names = list(dict.fromkeys(name for name in groups if name))
    of_group = np.array([[name == group for name in names] for group in groups], shares.dtype).reshape(len(groups), len(names))
    return names, shares @ of_group


def single_label(shares: Shares) -> NDArray[np.int64]:
    """Return (patch): position of the class with the largest share, the first of equals; -1 where the shares are NaN.

    For wider classes, merge the shares first: the wider class of the most frequent class is another one for some patches.
    Source: Schmitt and Wu (2021), https://arxiv.org/abs/2104.00704, and the code published with it.
    """
    known = np.isfinite(shares).all(axis=1) & (shares.sum(axis=1) > 0)
    return np.where(known, np.argmax(np.where(known[:, None], shares, 0), axis=1), -1)


def several_labels(shares: Shares, least: float = LEAST) -> NDArray[np.bool_]:
    """Return (patch, class): which classes have a share of at least ``least``; none where the shares are NaN.

    Source: as :func:`single_label`; 0.1 is the published threshold.
    """
    return np.asarray(np.nan_to_num(shares, nan=0.0) >= least)


def patch_labels(names: Sequence[str], groups: Sequence[str], shares: Shares) -> dict[str, tuple[list[str], Shares]]:
    """Return the ways in which patches are labelled by a legend: name → classes and their shares (patch, class).

    A name is ``label`` and the number of classes: those of the legend, and the wider ones where it has any.
    """
    ways = {f"label{len(names)}": (list(names), shares)}
    if any(groups):
        wider = merged(shares, groups)
        ways.setdefault(f"label{len(wider[0])}", wider)
    return ways


def label_texts(names: Sequence[str], shares: Shares) -> tuple[list[str], list[str]]:
    """Return the label of each patch, and all labels of those that may have several, with semicolons between them.

    Texts are empty where there are none.
    """
    single = [names[place] if place >= 0 else "" for place in single_label(shares).tolist()]
    several = ["; ".join(name for name, has in zip(names, row, strict=True) if has) for row in several_labels(shares).tolist()]
    return single, several


def mask_table(
    codes: Sequence[int], groups: Sequence[str] | None = None, *, leave_out: Iterable[str] = (), ignored: int = IGNORED
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the classes of a mask and a table (256) that makes its values, 0 and up, of codes of 8 bits.

    ``codes`` are those of a legend, in order, and ``groups`` the class of each (its code as a text where None). Classes in
    ``leave_out``, and codes that the legend does not know, become ``ignored``; the classes after them move down. A mask is
    ``table[pixels]``. Source: the baseline of DFC2020 (https://github.com/lukasliebel/dfc2020_baseline), which ignores 255 and
    may leave savanna out.
    """
    names = [str(code) for code in codes] if groups is None else list(groups)
    left_out = set(leave_out)
    if unknown := sorted(left_out - set(names)):
        raise RequestError(f"no class is {unknown[0]!r}; there are {', '.join(dict.fromkeys(filter(None, names)))}")
    classes = [name for name in dict.fromkeys(names) if name and name not in left_out]
    table = np.full(256, ignored, np.int64)
    for code, name in zip(codes, names, strict=True):
        if name in classes and 0 <= code < len(table):
            table[code] = classes.index(name)
    return classes, table
