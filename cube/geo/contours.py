"""What covered cells of a grid look like from outside: rings around them and around their holes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.int64]
"""(point, [column, row]) closed, with a point at every corner of a cell. Seen with rows going up, rings turn left."""
Point = tuple[int, int]


def contours(covered: NDArray[np.bool_]) -> list[list[Ring]]:
    """Return the polygons that covered cells (row, column) make, each a ring around it and rings around its holes.

    Cells that touch at a corner only are two polygons. No ring passes a point twice.
    """
    rings = list(_rings(covered))
    shells = sorted((ring for ring in rings if _area(ring) > 0), key=_area)
    polygons = [[shell] for shell in shells]
    for hole in (ring for ring in rings if _area(ring) < 0):
        beside = _left_of(hole)
        next(polygon for polygon in polygons if _holds(polygon[0], beside)).append(hole)
    return polygons


def _rings(covered: NDArray[np.bool_]) -> Iterator[Ring]:
    """Walk along all edges, covered cells to the left; a path that meets itself has closed a ring."""
    follows = _edges(covered)
    while follows:
        path: list[Point] = [next(iter(follows))]
        came = path[0]
        while path[-1] in follows:
            here, step = path[-1], _take(follows, came, path[-1])
            came = here
            if step in path:
                start = path.index(step)
                yield np.array([*path[start:], step])
                del path[start + 1 :]
            else:
                path.append(step)


def _take(follows: dict[Point, list[Point]], came: Point, here: Point) -> Point:
    """Return the next corner and strike out its edge; of two, the one to the left, which stays at the same cell."""
    steps = follows[here]
    steps.sort(key=lambda step: (here[0] - came[0]) * (step[1] - here[1]) - (here[1] - came[1]) * (step[0] - here[0]))
    step = steps.pop()
    if not steps:
        del follows[here]
    return step


def _edges(covered: NDArray[np.bool_]) -> dict[Point, list[Point]]:
    """Return, for each corner of the outline, the corners that follow it."""
    padded = np.pad(covered, 1)
    inside = padded[1:-1, 1:-1]
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    follows: dict[Point, list[Point]] = {}
    for beyond, start, stop in sides:
        for row, column in np.argwhere(inside & ~beyond).tolist():
            follows.setdefault((column + start[0], row + start[1]), []).append((column + stop[0], row + stop[1]))
    return follows


def _area(ring: Ring) -> int:
    x, y = ring.T
    return int(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def _left_of(ring: Ring) -> NDArray[np.float64]:
    """Return the middle of the cell to the left of a ring's first edge."""
    along = ring[1] - ring[0]
    return np.asarray((ring[0] + ring[1]) / 2 + np.array([-along[1], along[0]]) / 2)


def _holds(ring: Ring, point: NDArray[np.float64]) -> bool:
    """Tell whether a ring goes around a point that is the middle of a cell."""
    x, y = ring.T
    crossed = ((y[:-1] > point[1]) != (y[1:] > point[1])) & (x[:-1] > point[0])
    return bool(crossed.sum() % 2)
