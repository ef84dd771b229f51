"""Draw the rooms of the package and what they import, as ``docs/rooms.svg``: ``python docs/make_rooms.py``.

Layers come from the import contract in ``pyproject.toml``, arrows and their widths from the code.
"""

from __future__ import annotations

import tomllib
from itertools import permutations
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
WIDTH, ROW, BOX, HEIGHT = 960, 92, 132, 44
STYLE = """
  .room { fill: #eef3f8; stroke: #4a6785; } .name { font: 600 15px system-ui, sans-serif; fill: #16324f; }
  .size { font: 11px system-ui, sans-serif; fill: #54687c; } .use { fill: none; stroke: #4a6785; stroke-opacity: .28; }
  @media (prefers-color-scheme: dark) {
    .room { fill: #1d2a37; stroke: #8fb0d0; } .name { fill: #e3edf7; } .size { fill: #a9bccf; } .use { stroke: #8fb0d0; }
  }"""


def layers() -> list[list[str]]:
    """Return the rooms of each layer, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[room.strip() for room in row.replace("|", ":").split(":")] for row in rows[1:]]


def uses(graph: grimp.ImportGraph, rooms: list[str]) -> dict[tuple[str, str], int]:
    """Return how many imports lead from a room to another, for each pair where there are any."""
    found: dict[tuple[str, str], int] = {}
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            pair = (importer.split(".")[1] if "." in importer else "", imported.split(".")[1] if "." in imported else "")
            if pair[0] != pair[1] and set(pair) <= set(rooms):
                found[pair] = found.get(pair, 0) + 1
    return found


def ordered(rows: list[list[str]], arrows: dict[tuple[str, str], int]) -> list[list[str]]:
    """Return rows in which rooms stand near those that they use."""
    placed: list[list[str]] = []
    for row in rows:

        def cost(order: tuple[str, ...], above: list[list[str]] = placed) -> float:
            at = {name: _column(index, len(order)) for index, name in enumerate(order)}
            high = {name: _column(index, len(there)) for there in above for index, name in enumerate(there)}
            return sum(count * abs(high[a] - at[b]) for (a, b), count in arrows.items() if a in high and b in at)

        placed.append(list(min(permutations(row), key=cost)))
    return placed


def _column(index: int, count: int) -> float:
    return WIDTH * (index + 1) / (count + 1)


def draw() -> str:
    """Return the picture."""
    graph = grimp.build_graph("cube", cache_dir=None)
    rows = layers()
    arrows = uses(graph, [room for row in rows for room in row if room != "errors"])
    rows = ordered(rows, arrows)
    at = {
        room: (_column(index, len(row)), 30 + ROW * level) for level, row in enumerate(rows) for index, room in enumerate(row)
    }
    parts = []
    for (here, there), count in sorted(arrows.items()):
        (x, y), (to_x, to_y) = at[here], at[there]
        bend = 46 if abs(x - to_x) < 1 and to_y - y > ROW else 0
        middle = (y + HEIGHT + to_y) / 2
        curve = f"M{x:.0f} {y + HEIGHT} C{x + bend * 4:.0f} {middle:.0f} {to_x + bend * 4:.0f} {middle:.0f} {to_x:.0f} {to_y}"
        told = f"{here} uses {there}: {count} imports"
        width = min(1 + count / 6, 7)
        parts.append(f'<path class="use" d="{curve}" stroke-width="{width:.1f}"><title>{told}</title></path>')
    for room, (x, y) in at.items():
        inside = len(graph.find_descendants(f"cube.{room}"))
        count = f"{inside} modules" if inside else "1 module"
        parts.append(f'<rect class="room" x="{x - BOX / 2:.0f}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="6"/>')
        parts.append(f'<text class="name" x="{x:.0f}" y="{y + 20}" text-anchor="middle">{room}</text>')
        parts.append(f'<text class="size" x="{x:.0f}" y="{y + 36}" text-anchor="middle">{count}</text>')
    height = 30 + ROW * len(rows)
    told = "The rooms of the package: each uses some of those below it"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{told}">'
    return "\n".join([head, f"<style>{STYLE}", "</style>", *parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
