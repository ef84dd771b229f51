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
    """How names spell each modality → what one of its files says; an empty text where there is one kind alone."""
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
    names = _names(parts, modality, rows[0])
    pattern, told = _pattern(rows[0], parts, names)
    others = tuple(entry.key for entry in images if _shape(split[entry.key]) != shape)[:5]
    return Draft(
        pattern=pattern,
        id="_".join(f"{{{name}}}" for name in told if name != "modality") or "{modality}",
        labels=_labels(parts, names),
        kinds=kinds,
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
    return bool(words & _KINDS) or len({(seen.dtype, seen.bands) for seen in _kinds(files, alike, part).values()}) > 1


def _meaning(part: _Part) -> tuple[int, ...]:
    """Return which files have equal values: parts that repeat each other, or tell the same in other words, mean the same."""
    seen: dict[str, int] = {}
    return tuple(seen.setdefault(value, len(seen)) for value in part.values)


def _names(parts: list[_Part], modality: _Part | None, first: Sequence[str]) -> dict[int, str]:
    """Return a name for each part that differs; a part that repeats an earlier one, letter by letter, has its name."""
    names: dict[int, str] = {}
    values: dict[tuple[str, ...], str] = {} if modality is None else {modality.values: "modality"}
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
        if name in told:
            text.append(f"(?P={name})")
            continue
        told.append(name)
        prefix = _prefix(part)
        if name != "modality" and prefix is not None:
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
        elif name in ("modality", "patch", "scene"):
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


def recipe_text(found: Draft, name: str) -> str:
    """Return a recipe, in YAML; what cannot be known from files is marked with ``edit``."""
    sizes = {seen.size[0] for seen in found.kinds.values()}
    size = min(sizes)
    names = {kind: _word(kind or "image", place) for place, kind in enumerate(found.kinds)}
    placed = all(seen.placed for seen in found.kinds.values())
    lines = [
        f"# Drafted from {found.files:,} files. What is marked with `edit` cannot be known from them.",
        "format: 2",
        f"name: {name}",
        f"title: {name}  # edit: its name for people",
        "catalog: own",
        "",
        "source:",
        "  match: path",
        f"  pattern: {_quoted(found.pattern)}",
        '  ignore: ["._*", "*/._*", "*.txt", "*.csv", "*.json", "*.aux.xml", "*__MACOSX/*", "*.DS_Store", "*Thumbs.db"]',
        f"  georeference: {'file' if placed else 'none'}",
        "  incomplete: reject",
        "",
        f'patch: {{id: "{found.id}", id_length: 64, size: {size}}}',
        "period: {start: 2000-01-01, end: 2000-12-31}  # edit: first and last day that the images are of",
        "",
        *(["labels:"] if found.labels else []),
        *(f"  {label}: {_flow(facts)}" for label, facts in found.labels.items()),
        "",
        "modalities:",
        *(line for kind, seen in found.kinds.items() for line in _modality_lines(names[kind], kind, seen)),
        "",
        "layout:",
        f"  tile: {size}  # edit: where patches overlap, the distance from one to the next",
        f"  shard: {max(1, min(1024, 2**24 // size**2))}",
        "  labels: 131072",
        "  header_bytes: 2048",
        "  path_bytes: 256",
        "  memory_limit_mb: 1000",
        "  profile: balanced",
        "  profiles:",
        f"    balanced: {{{', '.join(f'{names[kind]}: zstd-3' for kind in found.kinds)}}}",
    ]
    if len(sizes) > 1:
        lines.insert(1, f"# Its files are of several sizes ({', '.join(map(str, sorted(sizes)))} px); a cube takes one.")
    return "\n".join(lines) + "\n"


def _modality_lines(name: str, token: str, seen: Seen) -> list[str]:
    bands = ", ".join(f"{{name: b{number}}}" for number in range(1, seen.bands + 1))
    return [
        f"  {name}:",
        f"    token: {_quoted(token or name)}",
        f"    title: {name}  # edit",
        f"    dtype: {seen.dtype}",
        f"    fill: {'nan' if seen.dtype.startswith('float') else 0}",
        '    units: "1"  # edit',
        "    typical_ratio: 2.0",
        f"    bands: [{bands}]  # edit: their names, in the order of the files",
    ]


def _word(text: str, place: int) -> str:
    """Return a name that a modality can have."""
    word = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return word if word[:1].isalpha() else f"kind{place + 1}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _flow(facts: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(map(_quoted, value))}]"
        return f'"{value}"' if "%" in str(value) else str(value)

    return "{" + ", ".join(f"{key}: {text(value)}" for key, value in facts.items()) + "}"
