"""Which patches of a cube a filter and a box choose. Reads the labels they need and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import FilterError, RequestError
from cube.geo.boxes import bounds
from cube.geo.projection import numbered
from cube.query.filters import DATES, MAIN_CLASS, check_fields, is_of_classes, matching
from cube.query.grammar import clauses_of, parse

Array = NDArray[Any]
Box = tuple[float, float, float, float]
"""West, south, east and north in degrees; a box whose west is greater than its east crosses the antimeridian."""


def select_patches(  # noqa: PLR0913 (each is a keyword of its own)
    labels: Callable[[str], Array],
    names: Sequence[str],
    where: str | None = None,
    bbox: Box | None = None,
    *,
    size: int = 0,
    shares: Callable[[str], Array] | None = None,
    shown: Mapping[str, Callable[[Array], Array]] | None = None,
    seasons: Mapping[str, Mapping[str, str]] | None = None,
    among: NDArray[Any] | None = None,
) -> NDArray[np.int64]:
    """Return the positions of the chosen patches, in order; only of some, where ``among`` gives their positions.

    ``labels`` reads one label (patch, …) by name, ``names`` are those there are, ``size`` is the side of a patch in pixels,
    ``shares`` reads what part of each patch a class covers (patch), by a field such as ``class:Urban``, or by ``class`` which
    class covers most. ``shown`` makes of some labels what they stand for: dates, names of classes. ``seasons`` gives ``start``
    and ``end`` of each season, as a root document has them.

    Raises ``FilterError`` for a filter that cannot be read or names what is not there, ``RequestError`` for a box that is
    none, or patches without a place on Earth.
    """
    rows = np.arange(len(labels("patch")))
    if where is not None:
        expression = parse(where)
        asked = {clause.field for clause in clauses_of(expression)}
        of_classes = {name for name in asked - set(names) if shares is not None and is_of_classes(name)}
        of_modalities = {name for name in asked - of_classes if name.partition(":")[0] in names and ":" in name}
        more = [MAIN_CLASS] if shares is not None else []
        dated = DATES if seasons and "season" in names else {}
        check_fields(clauses_of(expression), [*names, *of_classes, *of_modalities, *dated, *more])
        read = shares or labels
        fields = {name: read(name) if name in of_classes else _column(name, labels) for name in asked - dated.keys()}
        fields |= {name: (shown or {})[name](fields[name]) for name in fields.keys() & (shown or {}).keys()}
        fields |= {name: days_of(labels("season"), seasons or {}, DATES[name]) for name in asked & dated.keys()}
        rows = rows[matching(expression, fields, {})]
    if bbox is not None:
        if "transform" not in names:
            raise RequestError("the patches of this cube have no place on Earth, so no box can choose among them")
        index = labels("crs_index") if "crs_index" in names else None
        known = [] if index is None else labels("crs_wkt").tolist()
        crs = numbered(labels("epsg"), index)[rows]
        rows = rows[meets(bounds(crs, labels("transform")[rows], size, known), bbox)]
    return rows if among is None else rows[np.isin(rows, among)]


def days_of(season: Array, seasons: Mapping[str, Mapping[str, str]], side: str) -> Array:
    """Return the first or last day (patch) of the season of each patch, as NumPy dates; ``side`` is ``start`` or ``end``."""
    names, places = np.unique(season, return_inverse=True)
    return np.array([seasons[str(name)][side] for name in names], "datetime64[D]")[places]


def as_slice(rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return positions that form a run as a slice, others as they are."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _column(name: str, labels: Callable[[str], Array]) -> Array:
    """Return a label (patch), or what it says of one modality, such as ``nan_count:s1``."""
    label, colon, modality = name.partition(":")
    values = labels(label)
    if not colon and values.ndim == 1:
        return values
    known = labels("modality").tolist() if values.ndim == 2 and label not in ("transform", "digest") else []
    if modality in known:
        return values[:, known.index(modality)]
    if known:
        raise FilterError(f"{name} holds a value for each modality: name one, such as {label}:{known[0]}")
    raise FilterError(f"{name} holds several values per patch: a filter compares one")


def _checked(bbox: Box) -> Box:
    try:
        west, south, east, north = (float(value) for value in bbox)
    except (TypeError, ValueError):
        raise RequestError(f"{bbox!r} is no box: expected four numbers: west, south, east, north in degrees") from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise RequestError(f"{bbox} is no box: expected west, south, east, north in degrees, south below north")
    return west, south, east, north


def meets(boxes: Array, bbox: Box) -> NDArray[np.bool_]:
    """Return which of ``boxes`` (patch, [west, south, east, north]) a box meets.

    Raises ``RequestError`` for a box that is none.
    """
    bbox = _checked(bbox)
    west, south, east, north = boxes.T
    inside = (south <= bbox[3]) & (north >= bbox[1])
    found = np.zeros(len(boxes), bool)
    for low, high in _spans(bbox[0], bbox[2]):
        whole = west <= east
        found |= np.where(whole, (west <= high) & (east >= low), (west <= high) | (east >= low))
    return np.asarray(inside & found)


def _spans(west: float, east: float) -> list[tuple[float, float]]:
    return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
