"""Where the patches of a scene lie: from their georeference, or rebuilt where equal tiles prove it.

Positions are whole pixels from the upper left corner of a part. Patches of one part lie on one grid; how two parts lie to each
other is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import xarray as xr
from blake3 import blake3
from numpy.typing import NDArray

from cube.errors import RequestError
from cube.geo.projection import numbered

_AT_ONCE = 256
"""Patches that are read at once to compare their tiles."""
_CLOSE = 0.05
"""Pixels by which a patch may be off its grid; files round their coordinates."""

Ints = NDArray[np.int64]
Offset = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Placements:
    """Where some patches lie, in the order in which they were asked for."""

    rows: Ints
    """(patch): positions in the cube."""
    top: Ints
    """(patch): pixels from the upper edge of the part to that of the patch."""
    left: Ints
    """(patch): pixels from the left edge of the part to that of the patch."""
    part: Ints
    """(patch): 0 is the part with most patches. Every patch of which nothing is known is a part of its own."""
    epsg: int = 0
    """EPSG code of part 0; 0 where there is none."""
    wkt: str = ""
    """Definition of the CRS of part 0 where it has no EPSG code."""
    affine: tuple[float, float, float, float, float, float] | None = None
    """Affine of part 0 at its upper left corner, as in the label ``transform``; None where it was rebuilt."""

    def resampled(self, side: int, of: int) -> Placements:
        """Return the places in pixels of images of ``side`` pixels, where these are of images of ``of``."""
        if side == of:
            return self
        affine = self.affine
        if affine is not None:
            a, b, c, d, e, f = affine
            affine = (a * of / side, b * of / side, c, d * of / side, e * of / side, f)
        return replace(self, top=self.top * side // of, left=self.left * side // of, affine=affine)

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return int(self.part.max(initial=-1)) + 1


def patch_side(cube: xr.Dataset) -> int:
    """Return the side of a patch in pixels, of the modality that has the most."""
    facts = cube.attrs["cube"]
    return int(facts["size"]) if "size" in facts else int(cube.sizes["x"])  # cubes of earlier versions have one size alone


def placements(cube: xr.Dataset, rows: Iterable[int]) -> Placements:
    """Return where patches of a cube lie; ``rows`` are their positions along ``patch``.

    With the labels ``epsg`` and ``transform`` no pixel is read. Without them, patches are placed where equal tiles prove
    how they lie to each other, by whole tiles; all pixels of these patches are read.

    Raises ``RequestError`` if the patches have several CRSs or pixel sizes, lie fractions of a pixel apart, or if equal tiles
    contradict each other.
    """
    rows = np.asarray(list(rows), np.int64)
    if "transform" in cube.coords:
        return _georeferenced(cube, rows)
    return _rebuilt(cube, rows)


def _georeferenced(cube: xr.Dataset, rows: Ints) -> Placements:
    index = cube["crs_index"].values if "crs_index" in cube.coords else None
    crs, transform = numbered(cube["epsg"].values, index)[rows], cube["transform"].values[rows]
    ids = cube["patch"].values[rows]
    known = np.isfinite(transform).all(axis=1)
    top, left, part = np.zeros_like(rows), np.zeros_like(rows), np.zeros_like(rows)
    part[~known] = np.arange((~known).sum()) + known.any()
    if not known.any():
        return Placements(rows=rows, top=top, left=left, part=part)
    first = int(np.flatnonzero(known)[0])
    for values, name in ((crs[:, None], "CRS"), (transform[:, [0, 1, 3, 4]], "pixel size")):
        if (strange := known & ~np.isclose(values, values[first], rtol=1e-7, atol=1e-9).all(axis=1)).any():
            other = int(np.flatnonzero(strange)[0])
            seen = f"{ids[first]} has {values[first].tolist()}, {ids[other]} has {values[other].tolist()}"
            raise RequestError(f"these patches have more than one {name}, so they make no raster: {seen}")
    offsets = _offsets(transform, first, ids, known)
    corner = offsets[known].min(axis=0)
    left[known], top[known] = (offsets[known] - corner).T
    a, b, c, d, e, f = transform[first].tolist()
    moved = c + a * corner[0] + b * corner[1], f + d * corner[0] + e * corner[1]
    affine = (a, b, float(moved[0]), d, e, float(moved[1]))
    number = int(crs[first])
    wkt = str(cube["crs_wkt"].values[-1 - number]) if number < 0 else ""
    return Placements(rows=rows, top=top, left=left, part=part, epsg=max(number, 0), wkt=wkt, affine=affine)


def _offsets(transform: NDArray[np.float64], first: int, ids: NDArray[np.str_], known: NDArray[np.bool_]) -> Ints:
    """Return (patch, [column, row]) in pixels from the patch ``first``; 0 where nothing is known."""
    axes = transform[first, [0, 1, 3, 4]].reshape(2, 2)
    distances = transform[:, [2, 5]] - transform[first, [2, 5]]
    pixels: NDArray[np.float64] = np.where(known[:, None], distances, 0.0) @ np.linalg.inv(axes).T
    whole = np.rint(pixels)
    off = np.abs(pixels - whole).max(axis=1)
    if off.max() > _CLOSE:
        worst = int(off.argmax())
        raise RequestError(f"{ids[worst]} lies {off[worst]:.2f} pixels off the grid of {ids[first]}: a raster needs resampling")
    return np.asarray(whole, np.int64)


@dataclass(frozen=True)
class _Contents:
    """What the tiles of some patches hold, compared by hash."""

    content: Ints
    """(patch, row, column): equal numbers are equal tiles; -1 where there is none."""
    telling: NDArray[np.bool_]
    """(patch, row, column): there are at least two values in the tile, and no content is found where it cannot be."""


def _rebuilt(cube: xr.Dataset, rows: Ints) -> Placements:
    tile = int(cube.attrs["cube"]["tile"])
    names = [str(name) for name in cube.data_vars]
    contents = max((_contents(cube, name, rows, tile) for name in names), key=lambda item: int(item.telling.sum()))
    links = [link for link in dict.fromkeys(_links(contents)) if _agrees(contents.content, *link)]
    position = _walk(len(rows), links, cube["patch"].values[rows])
    sizes: dict[int, int] = {}
    for start, _ in position:
        sizes[start] = sizes.get(start, 0) + 1
    order = {start: place for place, start in enumerate(sorted(sizes, key=lambda start: (-sizes[start], start)))}
    part = np.array([order[start] for start, _ in position], np.int64)
    offsets = np.array([offset for _, offset in position], np.int64).reshape(-1, 2)
    for number in range(len(order)):
        offsets[part == number] -= offsets[part == number].min(axis=0)
    _check(contents.content, part, offsets, cube["patch"].values[rows])
    return Placements(rows=rows, top=offsets[:, 0] * tile, left=offsets[:, 1] * tile, part=part)


def _contents(cube: xr.Dataset, name: str, rows: Ints, tile: int) -> _Contents:
    """Compare the tiles of one modality."""
    modalities = list(cube.attrs["cube"]["modalities"])
    present = cube["present"].values[rows, modalities.index(name)]
    across = patch_side(cube) // tile
    tile = cube[name].shape[-1] // across
    content, varied = np.full((len(rows), across, across), -1, np.int64), np.zeros((len(rows), across, across), bool)
    numbers: dict[bytes, int] = {}
    for start in range(0, len(rows), _AT_ONCE):
        pixels = cube[name].isel(patch=rows[start : start + _AT_ONCE]).values
        for patch, image in enumerate(pixels, start):
            if not present[patch]:
                continue
            for row, column in np.ndindex(across, across):
                part = np.ascontiguousarray(image[:, row * tile : (row + 1) * tile, column * tile : (column + 1) * tile])
                digest = blake3(part.reshape(-1).view(np.uint8).data).digest()
                content[patch, row, column] = numbers.setdefault(digest, len(numbers))
                varied[patch, row, column] = bool((part != part[:, :1, :1]).any())
    return _Contents(content, varied & ~np.isin(content, _impossible(content)))


def _impossible(content: Ints) -> list[int]:
    """Return contents found twice in one patch, or at one place of two: ground lies at another place in each patch."""
    places = np.broadcast_to(np.arange(content[0].size if len(content) else 1), (len(content), content[0].size))
    flat = content.reshape(len(content), -1)
    patches = np.broadcast_to(np.arange(len(content))[:, None], flat.shape)
    repeated: set[int] = set()
    for other in (places, patches):
        pairs, counts = np.unique(np.stack([flat.ravel(), other.ravel()]), axis=1, return_counts=True)
        repeated |= set(pairs[0, counts > 1].tolist())
    return sorted(repeated)


def _links(contents: _Contents) -> Iterator[tuple[tuple[int, int], Offset]]:
    """Yield pairs of patches that share a telling tile, and how many tiles down and right the second lies from the first."""
    seen: dict[int, list[tuple[int, int, int]]] = {}
    for patch, row, column in np.argwhere(contents.telling).tolist():
        seen.setdefault(int(contents.content[patch, row, column]), []).append((patch, row, column))
    for uses in seen.values():
        for (first, row, column), (second, other_row, other_column) in combinations(uses, 2):
            yield (first, second), (row - other_row, column - other_column)


def _agrees(content: Ints, pair: tuple[int, int], offset: Offset) -> bool:
    """Tell whether all tiles are equal where two patches would overlap."""
    first, second = content[pair[0]], content[pair[1]]
    size = len(first)
    ranges = [(max(0, shift), min(size, size + shift)) for shift in offset]
    (top, bottom), (left, right) = ranges
    here = first[top:bottom, left:right]
    there = second[top - offset[0] : bottom - offset[0], left - offset[1] : right - offset[1]]
    return bool(np.array_equal(here, there))


def _walk(patches: int, links: list[tuple[tuple[int, int], Offset]], ids: NDArray[np.str_]) -> list[tuple[int, Offset]]:
    """Return for each patch the first of its part and its place in tiles from that one.

    Raises ``RequestError`` where two ways lead one patch to two places.
    """
    ways: dict[int, list[tuple[int, Offset]]] = {}
    for (first, second), (down, right) in links:
        ways.setdefault(first, []).append((second, (down, right)))
        ways.setdefault(second, []).append((first, (-down, -right)))
    found: dict[int, tuple[int, Offset]] = {}
    for start in range(patches):
        if start in found:
            continue
        found[start] = start, (0, 0)
        waiting = [start]
        while waiting:
            patch = waiting.pop()
            row, column = found[patch][1]
            for other, (down, right) in ways.get(patch, ()):
                place = start, (row + down, column + right)
                if other not in found:
                    found[other] = place
                    waiting.append(other)
                elif found[other] != place:
                    raise RequestError(
                        f"equal tiles contradict each other: {ids[other]} would lie {found[other][1]} and {place[1]} tiles "
                        f"(down, right) from {ids[start]}"
                    )
    return [found[patch] for patch in range(patches)]


def _check(content: Ints, part: Ints, offsets: Ints, ids: NDArray[np.str_]) -> None:
    """Raise ``RequestError`` if two patches of one part have different tiles at one place."""
    ground: dict[tuple[int, int, int], tuple[int, int]] = {}
    for patch, row, column in np.argwhere(content >= 0).tolist():
        place = int(part[patch]), int(offsets[patch, 0]) + row, int(offsets[patch, 1]) + column
        other, seen = ground.setdefault(place, (patch, int(content[patch, row, column])))
        if seen != content[patch, row, column]:
            raise RequestError(f"equal tiles contradict each other: {ids[other]} and {ids[patch]} would overlap but differ")
