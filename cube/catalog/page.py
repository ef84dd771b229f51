"""STAC documents → one HTML page that shows them: no server, no request to anywhere else.

What the page looks like and does lies in ``catalog/page``; here it is only filled. Equal documents give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cube.catalog import PAGE
from cube.format.defects import DEFECTS
from cube.recipes.bundled import folder

Document = Mapping[str, Any]

_SCRIPTS = ("elements.js", "map.js", "explorer.js", "charts.js", "sheet.js")
"""In this order they make one script."""
_BAND = re.compile(r"(?P<modality>[^\[]+)\[[^=]*=(?P<label>[^\]]+)\]")
_COUNTS = ("images", "nan_count", "zero_count", "saturated_count")
_OVERVIEW = "overview-"


def datasheet(collection: Document, items: Mapping[str, Document]) -> dict[str, bytes]:
    """Return the files of the page, by path beside the collection.

    ``items`` are STAC items by their path beside the collection. Everything is optional: what a document does not say is not
    shown.
    """
    page = folder("catalog") / "page"
    style = (page / "page.css").read_text(encoding="utf-8")
    script = "".join((page / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    title, description = (str(collection.get(name, "")) for name in ("title", "description"))
    values = {
        "title": html.escape(title or str(collection.get("id", "Data cube"))),
        "description": html.escape(description),
        "script_digest": _digest(script),
        "style_digest": _digest(style),
        "style": style,
        "script": script,
        "land": _land((page / "land.svg").read_text(encoding="utf-8")),
        "sheet": _island(sheet(collection, items)),
    }
    template = (page / "page.html").read_text(encoding="utf-8")
    return {PAGE: re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template).encode()}


def sheet(collection: Document, items: Mapping[str, Document]) -> dict[str, Any]:
    """Return what the page shows as plain data: each number and name once, nothing that is not known."""
    bands = [_band(band) for band in collection.get("assets", {}).get("zarr", {}).get("bands", ())]
    names = _Names.of(collection, bands, items.values())
    return _known(
        {
            "about": _about(collection),
            "cube": collection.get("assets", {}).get("zarr", {}).get("href"),
            "files": _files(collection),
            "patches": collection.get("patchcube:patches"),
            "bytes": _known({name: collection.get(f"patchcube:{name}_bytes") for name in ("raw", "stored")}),
            "tiles": collection.get("patchcube:tiles"),
            "rejected": collection.get("patchcube:rejected"),
            "checks": collection.get("patchcube:checks"),
            "defects": list(DEFECTS)
            if any("patchcube:patches_with" in of.get("properties", {}) for of in items.values())
            else None,
            "digest": collection.get("patchcube:pixels_digest"),
            "modalities": names.modalities,
            "titles": _titles(collection, names.modalities),
            "bands": bands,
            "legends": names.legends(collection.get("patchcube:classes", {}), bands),
            "seasons": names.seasons,
            "splits": names.splits,
            "classes": names.classes,
            "labels": [list(label) for label in names.labels],
            "captions": names.captions,
            "scenes": [_scene(path, items[path], names) for path in items],
        }
    )


@dataclass(frozen=True, kw_only=True)
class _Names:
    """The names that scenes refer to by their place."""

    modalities: list[str]
    seasons: list[str]
    splits: list[str]
    classes: list[str]
    """Classes that are the most frequent one of a patch."""
    labels: list[tuple[str, str]]
    """Labels of patches by wider classes: name and class."""
    shares: dict[str, list[str]]
    """Legend → its classes, in the order of the legend."""
    captions: list[str]
    """Titles of overview pictures."""

    @classmethod
    def of(cls, collection: Document, bands: Sequence[Document], items: Iterable[Document]) -> _Names:
        items = list(items)
        scenes = [item.get("properties", {}) for item in items]
        said = [scene.get("patchcube:classes", {}) for scene in scenes] + [collection.get("patchcube:classes", {})]
        order = [name for band in bands for item in band.get("classes", ()) for name in (item["name"], item["title"])]
        counted = [name for scene in scenes for name in scene.get("patchcube:patches_by_class", ())]
        dimension = collection.get("cube:dimensions", {}).get("modality", {})
        counts = [scene.get(f"patchcube:{count}", {}) for scene in scenes for count in _COUNTS]
        return cls(
            modalities=_once([*dimension.get("values", ()), *(name for count in counts for name in count)]),
            seasons=_once(scene.get("patchcube:season") for scene in scenes),
            splits=_once(scene.get("patchcube:split") for scene in scenes),
            classes=_in_order(counted, order),
            labels=_labels(scenes, bands),
            shares={
                legend: _in_order([name for shares in said for name in shares.get(legend, ())], order)
                for legend in _once(legend for shares in said for legend in shares)
            },
            captions=_once(asset.get("title") for item in items for asset in _overviews(item).values()),
        )

    def legends(self, shares: Document, bands: Sequence[Document]) -> list[dict[str, Any]]:
        """Return every legend with titles and colors of its classes, and their shares of all pixels."""
        by_label = {band["label"]: _by_name([band]) for band in bands if "classes" in band}
        anywhere = _by_name(bands)
        found = []
        for legend, names in self.shares.items():
            known = by_label.get(legend, anywhere)
            classes = [known.get(name, {"name": name, "title": name}) for name in names]
            found.append({"name": legend, "classes": classes, "shares": _row(shares.get(legend), names)})
        return [_known(legend) for legend in found]


def _by_name(bands: Iterable[Document]) -> dict[str, Document]:
    """Return classes by both their names: the word and the title."""
    classes = [item for band in bands for item in band.get("classes", ())]
    return {item["name"]: item for item in classes} | {item["title"]: item for item in classes}


def _titles(collection: Document, modalities: Iterable[str]) -> dict[str, Any]:
    variables = collection.get("cube:variables", {})
    return _known({name: variables.get(name, {}).get("description") for name in modalities})


def _about(collection: Document) -> dict[str, Any]:
    interval = collection.get("extent", {}).get("temporal", {}).get("interval", [None])[0]
    return _known(
        {
            "id": collection.get("id"),
            "version": collection.get("version"),
            "license": collection.get("license"),
            "keywords": collection.get("keywords"),
            "providers": collection.get("providers"),
            "doi": collection.get("sci:doi"),
            "citation": collection.get("sci:citation"),
            "publications": collection.get("sci:publications"),
            "days": [str(moment)[:10] for moment in interval if moment] if interval else None,
        }
    )


def _files(collection: Document) -> list[dict[str, Any]]:
    """Return every asset beside the cube that can be followed from the page."""
    assets = collection.get("assets", {})
    kept = [(key, asset) for key, asset in assets.items() if "zarr" not in asset.get("type", "") and _is_near(asset["href"])]
    return [_known({"key": key, **{name: asset.get(name) for name in ("href", "type", "title")}}) for key, asset in kept]


def _is_near(href: str) -> bool:
    return ":" not in href.partition("/")[0] and not href.startswith("/")


def _band(band: Document) -> dict[str, Any]:
    match = _BAND.fullmatch(band["name"])
    statistics, histogram = band.get("statistics"), band.get("patchcube:histogram")
    return _known(
        {
            "modality": match["modality"] if match else band["name"],
            "label": match["label"] if match else band["name"],
            "description": band.get("description"),
            "common": band.get("eo:common_name"),
            "wavelength": band.get("eo:center_wavelength"),
            "gsd": band.get("gsd"),
            "unit": band.get("unit") if band.get("unit") != "1" else None,
            "statistics": _known(statistics) if statistics else None,
            "histogram": _known(histogram) if histogram else None,
            "classes": [_class(item) for item in band.get("classification:classes", ())],
        }
    )


def _class(item: Document) -> dict[str, Any]:
    name = str(item.get("name", item.get("value")))
    color = item.get("color_hint")
    return _known({"name": name, "title": str(item.get("title", name)), "color": f"#{color}" if color else None})


def _labels(scenes: Sequence[Document], bands: Sequence[Document]) -> list[tuple[str, str]]:
    """Return the labels of patches that scenes count, in the order of the first scene that has each."""
    counted = [scene.get("patchcube:patches_by_label", {}) for scene in scenes]
    return _once((name, text) for labels in counted for name, by_text in labels.items() for text in by_text)


def _scene(path: str, item: Document, names: _Names) -> dict[str, Any]:
    told = item.get("properties", {})
    shares = told.get("patchcube:classes", {})
    return _known(
        {
            "id": item.get("id", path),
            "href": path,
            "season": _place(names.seasons, told.get("patchcube:season")),
            "scene": told.get("patchcube:scene"),
            "split": _place(names.splits, told.get("patchcube:split")),
            "patches": told.get("patchcube:patches"),
            "counts": _known({count: _row(told.get(f"patchcube:{count}"), names.modalities) for count in _COUNTS}),
            "defects": _row(told.get("patchcube:patches_with"), list(DEFECTS)),
            "shares": [_row(shares.get(legend), classes) for legend, classes in names.shares.items()],
            "classes": _row(told.get("patchcube:patches_by_class"), names.classes),
            "labels": [told.get("patchcube:patches_by_label", {}).get(name, {}).get(text, 0) for name, text in names.labels],
            "at": _middle(item.get("bbox")),
            "pictures": [_picture(path, *named, names) for named in _overviews(item).items()],
        }
    )


def _overviews(item: Document) -> dict[str, Document]:
    """Return the pictures of a scene by what they show, first the one that is its thumbnail too."""
    assets = item.get("assets", {})
    first = assets.get("thumbnail", {}).get("href")
    kept = [(key, asset) for key, asset in assets.items() if key.startswith(_OVERVIEW) and _is_near(asset["href"])]
    return {key.removeprefix(_OVERVIEW): asset for key, asset in sorted(kept, key=lambda named: named[1]["href"] != first)}


def _picture(path: str, of: str, asset: Document, names: _Names) -> dict[str, Any]:
    href = posixpath.normpath(posixpath.join(posixpath.dirname(path), asset["href"]))
    caption = _place(names.captions, asset.get("title"))
    return _known({"of": of, "href": href, "caption": caption, "shape": asset.get("proj:shape")})


def _middle(bbox: Sequence[float] | None) -> list[float] | None:
    """Return longitude and latitude of the middle of a box, which crosses 180° where west is greater than east."""
    if not bbox:
        return None
    west, south, east, north = bbox
    if west > east:
        east += 360
    longitude = (west + east) / 2
    return [round(longitude - 360 if longitude > 180 else longitude, 3), round((south + north) / 2, 3)]


def _row(values: Document | None, names: Sequence[str]) -> list[float] | None:
    """Return named numbers in the order of the names, 0 where there is none; shares with four decimals."""
    return [round(values.get(name) or 0, 4) for name in names] if values is not None else None


def _any_says(items: Iterable[Document], name: str) -> bool:
    return any(name in item.get("properties", {}) for item in items)


def _place(names: Sequence[str], name: str | None) -> int | None:
    return names.index(name) if name is not None else None


def _once(names: Iterable[Any]) -> list[Any]:
    return [name for name in dict.fromkeys(names) if name is not None]


def _in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Return each name once: in the order of a legend, those it does not have at the end."""
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value not in ([], {}, "")}


def _digest(text: str) -> str:
    """Return what a content security policy wants: only this very text may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _island(document: Document) -> str:
    """Return JSON that no HTML parser can take for markup."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _land(svg: str) -> str:
    match = re.search(r'<path d="([^"]+)"', svg)
    assert match, "land.svg has one path"
    return match[1]
