"""Draws ``catalog/page/land.svg`` from Natural Earth: ``npm pack world-atlas@2.0.2``, unpack, then
``python docs/make_coastline.py package/land-110m.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

LAND = Path(__file__).parent.parent / "catalog/page/land.svg"
UNITS = 10
"""Steps of the drawing in a degree. The shape of a coast at 1:110 million is not known better."""
TURN, SOUTH = 360 * UNITS, 180 * UNITS
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 3600 1800">
<!-- Land of the world, ten units a degree, from 180° west and 90° north. Made with Natural Earth (naturalearthdata.com), 1:110m
physical vectors 4.1.0, public domain; by way of the npm package world-atlas 2.0.2 (ISC) and docs/make_coastline.py. -->
<path d="{path}"/>
</svg>
"""

Point = tuple[int, int]


def draw(topology: dict[str, Any]) -> str:
    """Return the land of a TopoJSON document as an SVG file."""
    arcs = [_points(arc, topology["transform"]) for arc in topology["arcs"]]
    rings = []
    for geometry in topology["objects"]["land"]["geometries"]:
        polygons = geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]
        rings += [_ring(ring, arcs) for polygon in polygons for ring in polygon]
    turned = [copy for ring in rings if len(ring) > 2 for copy in _copies(_unrolled(ring))]
    return SVG.format(path="".join(_path(ring) for ring in turned))


def _points(arc: list[list[int]], transform: dict[str, Any]) -> list[Point]:
    """Return an arc, stored as differences of whole numbers, in units of the drawing."""
    (scale_x, scale_y), (shift_x, shift_y) = transform["scale"], transform["translate"]
    x = y = 0
    points = []
    for step_x, step_y in arc:
        x, y = x + step_x, y + step_y
        points.append((round((x * scale_x + shift_x + 180) * UNITS), round((90 - y * scale_y - shift_y) * UNITS)))
    return points


def _ring(numbers: list[int], arcs: list[list[Point]]) -> list[Point]:
    """Join arcs to a ring without the points that became equal; ``~n`` is arc n backwards."""
    points: list[Point] = []
    for number in numbers:
        for point in arcs[number] if number >= 0 else reversed(arcs[~number]):
            if not points or point != points[-1]:
                points.append(point)
    return points[:-1]


def _unrolled(ring: list[Point]) -> list[Point]:
    """Return a ring without jumps at 180°; one that goes around the Earth is closed by way of the south pole."""
    turn, points = 0, [ring[0]]
    for (x, _), (next_x, next_y) in pairwise([*ring, ring[0]]):
        turn += TURN * ((x - next_x > TURN // 2) - (next_x - x > TURN // 2))
        points.append((next_x + turn, next_y))
    return points[:-1] if turn == 0 else [*points, (points[-1][0], SOUTH), (points[0][0], SOUTH)]


def _copies(ring: list[Point]) -> Iterator[list[Point]]:
    """Yield a ring at every place where some of it is seen; the edge of the picture cuts it."""
    west, east = min(x for x, _ in ring), max(x for x, _ in ring)
    for turn in (-TURN, 0, TURN):
        if west + turn < TURN and east + turn > 0:
            yield [(x + turn, y) for x, y in ring]


def _path(ring: list[Point]) -> str:
    (x, y), words = ring[0], [f"M{ring[0][0]} {ring[0][1]}l"]
    for next_x, next_y in ring[1:]:
        words.append(f"{next_x - x} {next_y - y}")
        x, y = next_x, next_y
    return f"{words[0]}{' '.join(words[1:])}z".replace(" -", "-")


if __name__ == "__main__":
    LAND.write_text(draw(json.loads(Path(sys.argv[1]).read_bytes())), encoding="utf-8")
