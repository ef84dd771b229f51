"""A first recipe from the files of a source: what their names have in common, and what one file of each kind says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cube.errors import RejectedFile, RequestError
from cube.source.files import Files, open_source
from cube.source.rasters import read_raster
from cube.store.protocol import Entry

_EXTENSIONS = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
_MOST = 200_000
"""Files that are looked at."""
_DEEPEST = 3
"""Folders of a path that are looked at."""
_FEW = 12
"""Values of a part of the names that are written out."""
_PAIRED = 0.5
"""Share of patches that must have a file of every kind."""
_SPLIT = re.compile(r"([_\-./ ])")
_KINDS = {"image", "images", "img", "imgs", "mask", "masks", "label", "labels", "target", "targets", "gt", "s1", "s2"}
"""Words that tell files of one patch apart, even where all files are of one type."""
_BAND = re.compile(r"B\d{1,2}A?|band_?\d{1,2}|[VH][VH]|red|green|blue|nir|swir[12]?|rededge\d?|pan|cirrus", re.IGNORECASE)
"""Words that tell which band a file is of."""
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class Seen:
    """What one file says."""

    dtype: str
    size: tuple[int, int]
    """Height and width in pixels."""
    bands: int
    placed: bool
    """Whether it carries a CRS and a transform."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What is written into a recipe."""

    pattern: str
    id: str
    labels: Mapping[str, Mapping[str, Any]]
    kinds: Mapping[str, Seen]
    """How names spell each modality, or each band → what one of its files says; an empty text where there is one kind alone."""
    by_band: bool
    """Whether these are bands, each a file of its own."""
    files: int
    others: tuple[str, ...]
    """Some files whose names are built otherwise."""


@dataclass(frozen=True)
class _Part:
    """A place in the names at which they differ."""

    place: int
    values: tuple[str, ...]
    """Of every file."""

    @property
    def distinct(self) -> list[str]:
        return sorted(set(self.values))


def draft(source: str, options: Mapping[str, Any] | None = None) -> Draft:
    """Find out how the files of a source are named and what is in them.

    Raises ``RequestError`` where there are no images, or no two of them are named alike.
    """
    files = open_source(source, options)
    entries = [entry for entry in files.listed() if isinstance(entry, Entry) and entry.size > 0]
    images = [entry for entry in entries if entry.key.lower().endswith(_EXTENSIONS) and not _hidden(entry.key)]
    images = sorted(images, key=lambda entry: entry.key)[:_MOST]
    if not images:
        raise RequestError(f"{source}: no file ends in {', '.join(_EXTENSIONS)}")
    depth = min(_DEEPEST, *(entry.key.count("/") for entry in images)) + 1
    split = {entry.key: tuple(_SPLIT.split("/".join(entry.key.split("/")[-depth:]))) for entry in images}
    (shape, count), *_ = Counter(_shape(parts) for parts in split.values()).most_common(1)
    alike = [entry for entry in images if _shape(split[entry.key]) == shape]
    if count < 2:
        raise RequestError(f"{source}: no two of its {len(images):,} images are named alike")
    rows = [split[entry.key] for entry in alike]
    parts = [_Part(place, values) for place, values in enumerate(zip(*rows, strict=True)) if len(set(values)) > 1]
    modality = next((part for part in parts if _tells_apart(part, parts, files, alike)), None)
    kinds = _kinds(files, alike, modality)
    by_band = bool(modality) and all(map(_BAND.fullmatch, kinds)) and all(seen.bands == 1 for seen in kinds.values())
    names = _names(parts, modality, rows[0], "band" if by_band else "modality")
    pattern, told = _pattern(rows[0], parts, names)
    others = tuple(entry.key for entry in images if _shape(split[entry.key]) != shape)[:5]
    return Draft(
        pattern=pattern,
        id="_".join(f"{{{name}}}" for name in told if name not in ("modality", "band")) or "{modality}",
        labels=_labels(parts, names),
        kinds=kinds,
        by_band=by_band,
        files=len(alike),
        others=others,
    )


def _hidden(key: str) -> bool:
    return any(part.startswith(("._", "__MACOSX", ".")) for part in key.split("/"))


def _shape(parts: Sequence[str]) -> tuple[str, ...]:
    """Return what names built alike have in common: the signs between their parts."""
    return tuple(part for part in parts if _SPLIT.fullmatch(part))


def _tells_apart(part: _Part, parts: list[_Part], files: Files, alike: list[Entry]) -> bool:
    """Tell whether a part is that of the modality: most patches have a file for each of its values, which differ in kind."""
    words = {value.lower() for value in part.distinct}
    if not 2 <= len(words) <= _FEW or words <= _SPLITS:
        return False
    rest = [other for other in parts if _meaning(other) != _meaning(part)]
    counts = list(Counter(zip(*(other.values for other in rest), strict=True)).values())
    if not rest or np.mean([count == len(words) for count in counts]) < _PAIRED:
        return False
    if all(map(_BAND.fullmatch, part.distinct)):
        return True
    return bool(words & _KINDS) or len({(seen.dtype, seen.bands) for seen in _kinds(files, alike, part).values()}) > 1


def _meaning(part: _Part) -> tuple[int, ...]:
    """Return which files have equal values: parts that repeat each other, or tell the same in other words, mean the same."""
    seen: dict[str, int] = {}
    return tuple(seen.setdefault(value, len(seen)) for value in part.values)


def _names(parts: list[_Part], modality: _Part | None, first: Sequence[str], called_so: str) -> dict[int, str]:
    """Return a name for each part that differs; a part that repeats an earlier one, letter by letter, has its name."""
    names: dict[int, str] = {}
    values: dict[tuple[str, ...], str] = {} if modality is None else {modality.values: called_so}
    below = len(first) - list(reversed(first)).index("/") if "/" in first else 0
    numbers = list(dict.fromkeys(part.values for part in parts if _prefix(part) is not None and not _days(part)))
    numbers = [of_files for of_files in numbers if of_files not in values]
    called = dict(zip(reversed(numbers), ("patch", "scene"), strict=False))
    for part in parts:
        if part.values not in values:
            words = {value.lower() for value in part.distinct}
            name = (
                "split"
                if words <= _SPLITS
                else "day"
                if _days(part)
                else f"{'folder' if part.place < below else 'part'}{len(values) + 1}"
            )
            values[part.values] = called.get(part.values, name)
        names[part.place] = values[part.values]
    return names


def _prefix(part: _Part) -> str | None:
    """Return the letters before a number, where every value is the same letters and a number; None otherwise."""
    found = [re.fullmatch(r"([A-Za-z]*)([0-9]{1,9})", value) for value in part.distinct]
    starts = {match[1] for match in found if match}
    return starts.pop() if len(starts) == 1 and all(found) else None


def _days(part: _Part) -> bool:
    """Tell whether every value is a day such as 20200131."""
    return all(re.fullmatch(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", value) for value in part.distinct)


def _pattern(first: Sequence[str], parts: list[_Part], names: Mapping[int, str]) -> tuple[str, list[str]]:
    """Return a regular expression of all names, and its groups in order."""
    by_place, told, text = {part.place: part for part in parts}, [], []
    for place, constant in enumerate(first):
        if place not in by_place:
            text.append(re.escape(constant))
            continue
        part, name = by_place[place], names[place]
        prefix = _prefix(part) if name not in ("modality", "band") else None
        if name in told:
            text.append(f"{prefix or ''}(?P={name})")
            continue
        told.append(name)
        if prefix is not None:
            text.append(f"{prefix}(?P<{name}>\\d+)")
        elif len(part.distinct) <= _FEW:
            text.append(f"(?P<{name}>{'|'.join(map(re.escape, part.distinct))})")
        else:
            text.append(f"(?P<{name}>[^/]+?)")
    return "".join(text), told


def _labels(parts: list[_Part], names: Mapping[int, str]) -> dict[str, dict[str, Any]]:
    """Return what becomes a label: days, and parts of few values."""
    labels: dict[str, dict[str, Any]] = {}
    for part in parts:
        name = names[part.place]
        if name == "day":
            labels[name] = {"type": "date", "format": "%Y%m%d"}
        elif name in ("modality", "band", "patch", "scene"):
            continue
        elif _prefix(part) is not None:
            labels[name] = {"type": "integer"}
        elif len(part.distinct) <= _FEW:
            labels[name] = {"type": "class", "values": part.distinct}
        else:
            labels[name] = {"type": "text", "length": max(map(len, part.distinct))}
    return labels


def _kinds(files: Files, alike: list[Entry], modality: _Part | None) -> dict[str, Seen]:
    """Read one file of each kind."""
    first: dict[str, Entry] = {}
    for place, entry in enumerate(alike):
        first.setdefault(modality.values[place] if modality else "", entry)
    return {kind: _seen(files, entry) for kind, entry in first.items()}


def _seen(files: Files, entry: Entry) -> Seen:
    (data,) = files.part([entry.key]).read_listed([entry])
    if isinstance(data, OSError):
        raise RequestError(f"{entry.key}: cannot be read: {data.strerror or data}")
    try:
        raster = read_raster(data)
    except RejectedFile as error:
        raise RequestError(f"{entry.key}: {error.reason}: {error.detail}") from None
    height, width, bands = raster.pixels.shape
    return Seen(raster.pixels.dtype.name, (height, width), bands, raster.georeference is not None)
