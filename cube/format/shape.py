"""What a root document must look like before anything in it is used: kinds, lengths, bounds. Pure.

A seal says that a document is the one that was sealed; anybody can seal. So every value that readers look up has the kind they
take it for, and no number leads to more memory than an object of this format can need. Readers load no pydantic; this is it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from cube.errors import CorruptError
from cube.format.arrays import ArraySpec, read_spec
from cube.format.defects import DEFECTS
from cube.format.layout import CLASS_NAMES, spatial
from cube.format.originals import HEADERS, ORIGINALS

_HASH = re.compile(r"[0-9a-f]{64}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_RECORDS = {f"{ORIGINALS}/{name}" for name in ("header_size", "pixel_start", "size", "digest", "path")}
_REQUIRED = ("patch", "modality", "present", "digest", HEADERS, *sorted(_RECORDS))
"""Arrays that no reader can do without, besides those that ``modalities`` names."""

PER_PATCH = {"patch", "season", "scene", "number", "split", "epsg", "crs_index", "transform", "lon", "lat", "kept"}
PER_PATCH |= {"supersedes", "present", "nan_count", "zero_count", "saturated_count", "digest", *DEFECTS}
"""Labels that this package knows."""

Where = str
"""Place in the document, with dots."""


def read_specs(document: Mapping[str, Any], url: str) -> dict[str, ArraySpec]:
    """Return the arrays that a root document lists, by path, once the whole document was found to be of this format.

    Raises ``CorruptError`` that names the place.
    """
    try:
        _facts(_object(_object(document, "attributes", ""), "cube", "attributes"))
        specs = _arrays(document)
        _agree(document["attributes"]["cube"], specs)
    except CorruptError as error:
        raise CorruptError(f"{url}/zarr.json is damaged, or no root of this package: {error}") from None
    return specs


def _facts(facts: Mapping[str, Any]) -> None:
    """Look at what the attribute ``cube`` says."""
    for name in ("format", "recipe", "plan"):
        _check(isinstance(facts.get(name), str), f"cube.{name}", "expected a text")
    modalities, seasons = _object(facts, "modalities", "cube"), _object(facts, "seasons", "cube")
    _check(bool(modalities), "cube.modalities", "there are none")
    for name, bands in modalities.items():
        texts = isinstance(bands, list) and bool(bands) and all(isinstance(band, str) for band in bands)
        _check(texts and len(set(bands)) == len(bands), f"cube.modalities.{name}", "expected the names of its bands")
    for name, season in seasons.items():
        days = season.values() if isinstance(season, dict) and season.keys() == {"start", "end"} else [None]
        dated = all(isinstance(day, str) and _DAY.fullmatch(day) for day in days)
        _check(dated, f"cube.seasons.{name}", "expected its first and last day, as start and end")
    for name, value in _object(facts, "saturated", "cube").items():
        known = name in modalities and isinstance(value, int | float) and not isinstance(value, bool)
        _check(known and math.isfinite(value), f"cube.saturated.{name}", "expected the value of a modality")
    _check(_whole(facts.get("tile"), 1, 2**16), "cube.tile", "expected the side of a tile in pixels")
    _check(_whole(facts.get("size", 1), 1, 2**16), "cube.size", "expected the side of a patch in pixels")
    stacks = facts.get("one_file_per_band", [])
    named = isinstance(stacks, list) and all(isinstance(name, str) and name in modalities for name in stacks)
    _check(named, "cube.one_file_per_band", "expected names of modalities")
    _versions(facts.get("versions", []))
    certified = _object(facts, "certificate", "cube")
    _check(certified.get("hash") == "blake3", "cube.certificate.hash", "expected blake3")
    for name in ("pixels", "root"):
        _check(_hash(certified.get(name)), f"cube.certificate.{name}", "expected 64 hexadecimal digits")
    for name in ("arrays", "metadata"):
        for key, value in _object(certified, name, "cube.certificate").items():
            _check(_hash(value), f"cube.certificate.{name}.{key}", "expected 64 hexadecimal digits")


def _versions(listed: Any) -> None:
    """Look at what is said of earlier versions: each has more patches than the one before."""
    _check(isinstance(listed, list), "cube.versions", "expected a list")
    least = 1
    for item in listed:
        known = isinstance(item, dict) and _whole(item.get("patches"), least, 2**40)
        known = known and all(_hash(item.get(name)) for name in ("pixels", "digest"))
        _check(known, "cube.versions", "expected patches, pixels and digest of each, with ever more patches")
        least = item["patches"] + 1


def _arrays(document: Mapping[str, Any]) -> dict[str, ArraySpec]:
    listed = _object(_object(document, "consolidated_metadata", ""), "metadata", "consolidated_metadata")
    specs: dict[str, ArraySpec] = {}
    for path, item in listed.items():
        kind = item.get("node_type") if isinstance(item, dict) else None
        _check(kind in ("array", "group"), path, "expected an array or a group")
        if kind == "array":
            specs[path] = read_spec(path, item)
        else:
            _object(item, "attributes", path)
    _check(ORIGINALS in listed and ORIGINALS not in specs, ORIGINALS, "expected a group")
    return specs


def _agree(facts: Mapping[str, Any], specs: Mapping[str, ArraySpec]) -> None:
    """Hold the arrays against each other: as many patches, and the modalities that are named."""
    for name in (*_REQUIRED, *(f"{modality}_band" for modality in facts["modalities"])):
        _check(name in specs, name, "there is no such array")
    patches, kinds = specs["patch"].shape[0], len(facts["modalities"])
    _check(patches > 0, "patch", "there is none")
    earlier = facts.get("versions", [])
    _check(not earlier or earlier[-1]["patches"] < patches, "cube.versions", f"expected fewer than {patches:,} patches")
    for path, spec in specs.items():
        _check(spec.dimensions[0] == "patch" or path not in PER_PATCH | _RECORDS, path, "expected the dimension patch")
        _check(spec.dimensions[0] != "patch" or spec.shape[0] == patches, path, f"expected {patches:,} patches")
        named = spec.attributes.get(CLASS_NAMES, [])
        listed = isinstance(named, list) and all(isinstance(name, str) for name in named)
        _check(listed and (not named or spec.dtype == "<i8"), path, "expected the names of its classes, each one bit")
    lengths: dict[str, int] = {}
    for path, spec in specs.items():
        for dimension, length in zip(spec.dimensions, spec.shape, strict=True) if "/" not in path else ():
            known = lengths.setdefault(dimension, length)
            _check(known == length, path, f"expected {known:,} along {dimension}, as other arrays have")
    for path, expected in {"present": (patches, kinds), "digest": (patches, kinds, 32)}.items():
        _check(specs[path].shape == expected, path, f"expected the shape {expected}")
    _check(specs[HEADERS].shape[:2] == (patches, kinds), HEADERS, f"expected the shape {(patches, kinds)} and its bytes")
    sides = [(specs[name].shape[-1], (specs[name].inner or (0,))[-1]) for name in facts["modalities"] if name in specs]
    most, largest = max(sides, default=(0, 0))
    for name, bands in facts["modalities"].items():
        _check(name in specs and specs[name].inner is not None, name, "expected an array of pixels in shards")
        spec, dimensions = specs[name], ("patch", f"{name}_band", *spatial(specs[name].shape[-1], most))
        _check(spec.dimensions == dimensions, name, f"expected the dimensions {', '.join(dimensions)}")
        size, slots, tile = spec.shape[-1], specs[HEADERS].chunks[0], spec.inner[-1] if spec.inner else 0
        shape = patches, spec.shape[1], size, size
        _check(spec.shape == shape, name, f"expected the shape {shape}")
        _check(len(bands) == spec.shape[1], f"cube.modalities.{name}", f"expected the names of {spec.shape[1]} bands")
        _check(spec.chunks == (slots, *shape[1:]), name, f"expected shards of {slots:,} patches")
        _check(spec.inner == (1, spec.shape[1], tile, tile), name, "expected square tiles with every band")
        _check(tile * most == largest * size, name, f"expected tiles of the ground of {largest} of {most} pixels")


def _object(holder: Mapping[str, Any], name: str, where: Where) -> dict[str, Any]:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    _check(isinstance(value, dict), f"{where}.{name}".lstrip("."), "expected an object")
    return value  # type: ignore[return-value]


def _check(good: bool, where: Where, what: str) -> None:
    if not good:
        raise CorruptError(f"{where}: {what}")


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _hash(value: Any) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None
