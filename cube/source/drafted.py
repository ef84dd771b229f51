"""The recipe of a draft, in YAML. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cube.source.drafting import Draft


def recipe_text(found: Draft, name: str) -> str:
    """Return a recipe, in YAML; what cannot be known from files is marked with ``edit``."""
    size = max(seen.size[0] for seen in found.kinds.values())
    images = _images(found)
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
        *(line for name, kinds in images.items() for line in _modality_lines(found, name, kinds, size)),
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
        f"    balanced: {{{', '.join(f'{name}: zstd-3' for name in images)}}}",
    ]
    return "\n".join(lines) + "\n"


def _images(found: Draft) -> dict[str, list[str]]:
    """Return the modalities: name → how names spell it, or its bands where each is a file; those are of one type and size."""
    if not found.by_band:
        return {_word(kind or "image", place): [kind] for place, kind in enumerate(found.kinds)}
    alike: dict[tuple[str, int], list[str]] = {}
    for kind, seen in found.kinds.items():
        alike.setdefault((seen.dtype, seen.size[0]), []).append(kind)
    alike = dict(sorted(alike.items(), key=lambda item: (item[0][0], -item[0][1])))
    several = len({dtype for dtype, _ in alike}) > 1
    return {f"{dtype if several else 'image'}_{side}": kinds for (dtype, side), kinds in alike.items()}


def _modality_lines(found: Draft, name: str, kinds: list[str], size: int) -> list[str]:
    seen = found.kinds[kinds[0]]
    bands = [f"{{name: b{number}}}" for number in range(1, seen.bands + 1)]
    if found.by_band:
        words = {kind: _word(kind, place) for place, kind in enumerate(kinds)}
        bands = [f"{{name: {word}{'' if word == kind else f', token: {_quoted(kind)}'}}}" for kind, word in words.items()]
    return [
        f"  {name}:",
        *([] if found.by_band else [f"    token: {_quoted(kinds[0] or name)}"]),
        f"    title: {name}  # edit",
        *(["    one_file_per_band: true"] if found.by_band else []),
        *([f"    size: {seen.size[0]}"] if seen.size[0] != size else []),
        f"    dtype: {seen.dtype}",
        f"    fill: {'nan' if seen.dtype.startswith('float') else 0}",
        '    units: "1"  # edit',
        "    typical_ratio: 2.0",
        f"    bands: [{', '.join(bands)}]  # edit: their names, in the order of the files",
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
