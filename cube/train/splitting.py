"""Splits of a cube without leaks, made, kept as a file, and read again."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RequestError
from cube.tasks.splitting import apart, blocks, deal
from cube.train.samples import Samples

OFFICIAL = "official"
"""Said of a part that is to be the one that the data set names so."""
_COLUMNS = ("patch", "split")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which part each patch is of."""

    patches: NDArray[np.str_]
    """(patch): ids, in the order of the cube."""
    names: NDArray[np.str_]
    """(patch): name of its part."""
    worst: float = float("nan")
    """Largest difference between the share of a class in a part and in all that were dealt together; NaN where nothing was
    balanced."""

    @property
    def sizes(self) -> dict[str, int]:
        """Part → patches."""
        names, counts = np.unique(self.names, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def ids(self, part: str) -> list[str]:
        """Return the ids of a part, as ``Samples(url, ids=…)`` takes them. Raises ``RequestError`` if there is no such part."""
        if part not in self.sizes:
            raise RequestError(f"the split has no part {part!r}; it has {', '.join(self.sizes)}")
        found: list[str] = self.patches[self.names == part].tolist()
        return found

    def write(self, path: str | Path) -> None:
        """Write the split as CSV: ``patch,split``, a patch a line."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows(zip(self.patches.tolist(), self.names.tolist(), strict=True))


def read_split(path: str | Path) -> Split:
    """Read a split that was written. Raises ``RequestError`` for a file that is none."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise RequestError(f"{path}: cannot be read as a split: {error}") from None
    if tuple(header) != _COLUMNS or not rows or any(len(row) != len(_COLUMNS) for row in rows):
        raise RequestError(
            f"{path}: is no split: expected the line {','.join(_COLUMNS)}, then a patch and its part in each line"
        )
    patches, names = np.array(rows, str).T
    return Split(patches=patches, names=names)


def make_split(  # noqa: PLR0913  each by its name
    samples: Samples,
    parts: Mapping[str, float | str],
    *,
    by: str | Sequence[str] = ("season", "scene"),
    balance: str | None = "",
    label: str = "split",
    block: int | None = None,
    seed: int = 0,
) -> Split:
    """Divide patches into parts that share no ground, and have classes in the same mixture.

    Patches of a scene overlap, so scenes stay whole: with 10 % random patches for validation, 97.8 % of their tiles are in
    training patches as well.

    Parameters
    ----------
    samples
        The patches, such as ``Samples(url)``.
    parts
        Name → share of the patches that are dealt, or ``"official"``: then the part is that of this name in ``label``, as the
        data set has it, and all patches of other official parts are dealt.
    by
        Labels whose values must not be divided, together. ``scene`` means the scenes of each season, as their numbers are
        unique within a season only.
    block
        Side in pixels of squares into which every scene is divided, where there are too few scenes to keep them whole. Patches
        that touch squares of two parts are in none: they are the gap.
    balance
        Name of the legend by which classes are balanced; the first that the catalog has where empty; none where None.
    seed
        Decides between equals.

    Raises ``RequestError`` for parts that cannot be made, or a label that is not there.
    """
    names = [by] if isinstance(by, str) else list(by)
    if "scene" in names and "season" in samples.known_labels and "season" not in names:
        names.insert(0, "season")
    keys = [samples.label(name).astype(str) for name in names]
    groups = np.array(["/".join(parts_of) for parts_of in zip(*keys, strict=True)])
    touched = None if block is None else blocks(groups, _corners(samples, groups), samples.size, block)
    fixed = np.full(len(samples), "", object)
    for name, share in parts.items():
        if isinstance(share, str):
            if share != OFFICIAL:
                raise RequestError(f"the part {name!r} is {share!r}: expected a share, or {OFFICIAL!r}")
            chosen = samples.label(label) == name
            if not chosen.any():
                known = ", ".join(np.unique(samples.label(label)).tolist())
                raise RequestError(f"no patch is {name!r} by its label {label!r}; known are {known}")
            fixed[chosen] = name
    dealt: dict[str, float] = {name: float(share) for name, share in parts.items() if not isinstance(share, str)}
    shares = None if balance is None else samples.fractions(balance)
    found = deal(groups if touched is None else touched[:, 0], dealt, shares, fixed=fixed.astype(str), seed=seed)
    kept = np.ones(len(samples), bool) if touched is None else apart(touched, found.names)
    worst = float("nan") if shares is None or touched is not None else found.worst
    return Split(patches=samples.ids.astype(str)[kept], names=found.names[kept], worst=worst)


def _corners(samples: Samples, groups: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return (patch, [row, column]) of the upper left pixel of patches on the grid of their group."""
    if "transform" not in samples.known_labels:
        raise RequestError(f"{samples.url}: blocks need patches with a place on Earth; these have none")
    a, b, x, d, e, y = samples.label("transform").T
    keys = np.char.add(np.char.add(groups, "/"), samples.label("epsg").astype(str))
    corners = np.zeros((len(samples), 2), np.int64)
    for key in np.unique(keys):
        rows = np.flatnonzero(keys == key)
        axes = np.array([[a[rows[0]], b[rows[0]]], [d[rows[0]], e[rows[0]]]])
        away = np.stack([x[rows] - x[rows[0]], y[rows] - y[rows[0]]], axis=1) @ np.linalg.inv(axes).T
        corners[rows] = np.rint(away - away.min(axis=0)).astype(np.int64)[:, ::-1]
    return corners


def leak_labels(split: Split, patches: NDArray[Any]) -> NDArray[np.str_]:
    """Return (patch) the parts of patches of a cube, in its order; an empty text for those of none."""
    known = dict(zip(split.patches.tolist(), split.names.tolist(), strict=True))
    return np.array([known.get(name, "") for name in patches.tolist()])
