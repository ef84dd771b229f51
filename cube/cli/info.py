"""What a cube holds, in words and as plain data, from its labels alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.cli.progress import counted, size
from cube.cli.words import file_words, visible
from cube.format.arrays import read_spec
from cube.format.defects import DEFECTS, SOUND
from cube.format.originals import ORIGINALS, PIXELS
from cube.format.root import read_root
from cube.format.shape import PER_PATCH
from cube.format.small import read_array
from cube.format.target import Target
from cube.format.versions import versions_of
from cube.read.opened import OpenedCube, open_certified
from cube.recipes import WHOLE

_FEW = 20
"""Words of a label that are told one by one."""


def describe_cube(target: Target) -> dict[str, Any]:
    """Return what a cube holds; no pixel is read. Raises ``RequestError`` if there is no cube."""
    _, document = read_root(target)
    attributes = document["attributes"]
    cube = open_certified(target.url, target.cube.options)
    seasons = cube.current("season")
    counts = {name: int((seasons == name).sum()) for name in attributes["cube"]["seasons"]}
    scenes = {(season, int(scene)) for season, scene in zip(seasons, cube.current("scene"), strict=True)}
    sizes = {entry.key: entry.size for entry in target.cube.list()}
    facts: dict[str, Any] = {
        "url": target.url,
        "title": attributes["title"],
        "format": attributes["cube"]["format"],
        "patches": len(seasons),
        "scenes": len(scenes),
        "seasons": {name: count for name, count in counts.items() if count},
        "modalities": {},
        "objects": len(sizes),
        "stored_bytes": sum(sizes.values()),
        "files": _files(target, document, cube),
        "digest": attributes["cube"]["certificate"]["root"],
        "pixels_digest": attributes["cube"]["certificate"]["pixels"],
        "defects": {name: int((cube.current(name) > 0).sum()) for name in DEFECTS if name in cube.specs},
        "versions": [state._asdict() for state in versions_of(attributes["cube"], cube.whole)],
        "replaced": cube.whole - len(seasons),
        "open_with": attributes["open_with"].replace("URL", repr(target.url)),
    }
    if "split" in cube.specs:
        splits, numbers = np.unique(cube.current("split"), return_counts=True)
        facts["splits"] = dict(zip(splits.tolist(), numbers.tolist(), strict=True))
    own = [name for name in cube.labels if name not in PER_PATCH and "/" not in name]
    facts["labels"] = {name: _told(cube.current(name), cube.shown.get(name)) for name in own}
    if "epsg" in cube.specs:
        epsg = cube.current("epsg")
        known = np.isfinite(cube.current("lon"))
        own = cube.value("crs_wkt").tolist() if "crs_wkt" in cube.specs else []
        facts["crs"] = [*sorted({f"EPSG:{code}" for code in epsg[epsg > 0].tolist()}), *own]
        if known.any():
            facts["bbox"] = [float(f(cube.current(axis)[known])) for f in (np.min, np.max) for axis in ("lon", "lat")]
    for place, name in enumerate(attributes["cube"]["modalities"]):
        facts["modalities"][name] = _modality(cube, name, place, sizes)
    return facts


def _told(values: NDArray[Any], shown: Any) -> dict[str, Any]:
    """Return what a label of the recipe holds: the patches of each of a few words, the number of many, or first and last.

    Of several classes it is the patches of each, those that most have first.
    """
    if values.dtype.kind == "U":
        words, numbers = np.unique(values, return_counts=True)
        return dict(zip(words.tolist(), numbers.tolist(), strict=True)) if len(words) <= _FEW else {"words": len(words)}
    if shown and (meant := shown(values)).dtype.kind == "M":
        known = meant[~np.isnat(meant)]
        return {"first": str(known.min()), "last": str(known.max())} if len(known) else {}
    if shown:
        return dict(Counter(name for text in meant.tolist() for name in text.split("; ")).most_common(_FEW))
    known = values[np.isfinite(values)]
    return {"first": known.min().item(), "last": known.max().item()} if len(known) else {}


def _label_text(name: str, told: dict[str, Any]) -> str:
    if told.keys() == {"first", "last"}:
        return f"{name}: {told['first']} to {told['last']}"
    return f"{name}: " + ", ".join(f"{visible(word) or '(none)'} {count:,}" for word, count in told.items())


def _files(target: Target, document: dict[str, Any], cube: OpenedCube) -> dict[str, int]:
    """Return how many files come back byte for byte, how many with their tags, and how many with pixels and place alone."""
    starts, sizes = (
        read_array(target.cube, read_spec(path, document["consolidated_metadata"]["metadata"][path]))
        for path in (f"{ORIGINALS}/pixel_start", f"{ORIGINALS}/size")
    )
    of_bands = cube.attributes["cube"].get("one_file_per_band", ())
    files_of = np.array([len(bands) if name in of_bands else 1 for name, bands in cube.modalities.items()])
    exact, files = int(((starts >= 0) * files_of).sum()), int(((sizes >= 0) * files_of).sum())
    bare = int(((cube.value("kept") == PIXELS) * files_of).sum()) if "kept" in cube.specs else 0
    return {"byte_for_byte": exact, "tags": files - exact - bare, "pixels": bare}


def _modality(cube: OpenedCube, name: str, place: int, sizes: dict[str, int]) -> dict[str, Any]:
    array = cube.specs[name]
    dtype, present = np.dtype(array.dtype), cube.current("present")[:, place]
    return {
        "title": array.attributes["long_name"],
        "units": array.attributes["units"],
        "dtype": dtype.name,
        "bands": cube.value(f"{name}_band").tolist(),
        "patches": int(present.sum()),
        "missing": int((~present).sum()),
        "files_say": {key: value for key, value in array.attributes.items() if key.startswith("file_")},
        "patches_with_nan": int((cube.current("nan_count")[:, place] > 0).sum()),
        "raw_bytes": int(present.sum()) * int(np.prod(array.shape[1:])) * dtype.itemsize,
        "stored_bytes": sum(value for key, value in sizes.items() if key.startswith(f"{name}/c/")),
    }


def info_text(facts: dict[str, Any]) -> str:
    """Return the facts in words."""
    seasons = "" if [*facts["seasons"]] == [WHOLE] else ": " + ", ".join(f"{k} {n:,}" for k, n in facts["seasons"].items())
    scenes = f" in {counted(facts['scenes'], 'scene')}" if seasons or facts["scenes"] > 1 else ""
    lines = [
        f"{facts['title']} ({facts['url']}, format {facts['format']})",
        f"{counted(facts['patches'], 'patch')}{scenes}{seasons}",
    ]
    if facts["replaced"]:
        lines[-1] += f"; {facts['replaced']:,} more were replaced by others and are not shown"
    if len(facts["versions"]) > 1:
        told = ", ".join(f"{state['number']} of {state['patches']:,} patches" for state in facts["versions"])
        lines.append(f"Versions: {told} (open_cube(…, version=1) shows it as it was)")
    if "splits" in facts:
        lines.append("Splits: " + ", ".join(f"{name} {count:,}" for name, count in facts["splits"].items()))
    lines += [_label_text(name, told) for name, told in facts["labels"].items() if told]
    if "bbox" in facts:
        west, south, east, north = facts["bbox"]
        place = f"longitude {west:.2f} to {east:.2f}, latitude {south:.2f} to {north:.2f}"
        lines.append(f"{len(facts['crs'])} CRSs; patch centres at {place}")
    for name, modality in facts["modalities"].items():
        bands = ", ".join(modality["bands"])
        ratio = modality["raw_bytes"] / max(1, modality["stored_bytes"])
        lines.append(f"{name}: {modality['title']} ({modality['dtype']}, {modality['units']}); {bands}")
        lines.append(f"    {size(modality['raw_bytes'])} of pixels stored in {size(modality['stored_bytes'])}: 1/{ratio:.1f}")
        if said := modality["files_say"]:
            lines.append(f"    all files say {file_words(said)}; no pixel was changed")
        if modality["missing"]:
            lines.append(f"    {modality['missing']:,} patches lack it (present is False there)")
        if modality["patches_with_nan"]:
            lines.append(f"    {modality['patches_with_nan']:,} patches have NaN pixels")
    if defects := [f"{name} {count:,}" for name, count in facts["defects"].items() if count]:
        lines.append(f"Patches with defects: {', '.join(defects)} (--where {SOUND!r} leaves out what is no picture)")
    files = facts["files"]
    others = {"tags": "with equal pixels, place and tags", "pixels": "with equal pixels and place only"}
    more = "".join(f", {files[key]:,} {words}" for key, words in others.items() if files[key])
    lines.append(f"{files['byte_for_byte']:,} source files come back byte for byte{more}")
    lines += [
        f"Digest: {facts['digest']} (`cube verify … --expect`)",
        f"Pixels: {facts['pixels_digest']}",
        f"Open with: {facts['open_with']}",
    ]
    return "\n".join(lines)
