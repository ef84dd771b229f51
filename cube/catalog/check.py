"""Catalog → named checks: its links, its schemas, and whether it says what the cube says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from cube.catalog import PAGE
from cube.catalog.collection import KNOWN
from cube.catalog.describe import CATALOG, Catalog, describe
from cube.catalog.page import datasheet
from cube.catalog.schemas import CORE, SchemaJudge
from cube.errors import CorruptError, RequestError
from cube.format.documents import misshapen_stac, parse_object
from cube.format.target import COLLECTION, Target
from cube.geo.polygons import geometry
from cube.query.table import TABLE
from cube.read.opened import resolved
from cube.recipes.bundled import recipe_names
from cube.recipes.recipe import Recipe, read_recipe
from cube.survey.summary import Survey
from cube.verify.report import Finding, Report, gather

Document = dict[str, Any]

_TOLERANCE = 1e-6
"""Degrees and metres by which another PROJ may place things; of a statistic, the same part of its value."""
_SAID_ELSEWHERE = KNOWN | {"patchcube:checks", "patchcube:rejected", "file:size", "file:checksum"}
"""What no cube says: the template's words, and facts of a build or of a file, which are checked against the file."""
_PLACES = {"extent", "bbox", "geometry", "cube:dimensions", "proj:code", "proj:bbox", "proj:centroid", "proj:transform"}
_STATISTICS = {
    "statistics",
    "patchcube:histogram",
    "patchcube:classes",
    "patchcube:patches_by_class",
    "patchcube:patches_by_label",
}
_BANDS = {"bands", "cube:variables"}
_CHILDREN = ("child", "item")


def recipe_of(target: Target) -> Recipe:
    """Return the recipe a cube was built with, from its build records or else the bundled one its catalog names.

    Raises ``RequestError`` if there is neither.
    """
    try:
        if target.build.exists("plan.json"):
            return Recipe.model_validate_json(json.dumps(parse_object(target.build.read("plan.json"))["recipe"]))
        name = str(parse_object(target.stac.read(COLLECTION)).get("patchcube:recipe"))
    except FileNotFoundError:
        raise RequestError(f"{target.stac.url}/{COLLECTION} is not there: the cube has no catalog to check") from None
    except (ValueError, KeyError, ValidationError) as error:
        raise RequestError(f"neither {target.build.url}/plan.json nor the catalog names a recipe: {error}") from None
    if name not in recipe_names():
        raise RequestError(f"the recipe {name!r} is not bundled, and {target.build.url}/plan.json is not there to give it")
    return read_recipe(name)


def check_catalog(target: Target, recipe: Recipe, report: Report, survey: Survey | None, schemas: Path | None) -> Report:
    """Check the catalog of a cube that was just verified, and return the report with the checks of both.

    ``survey`` is that of the verification, None if the cube is not sound. ``schemas`` is a folder of extensions' schemas.
    Raises ``RequestError`` if schemas are wanted that are not at hand.
    """
    again, judge = describe(target, recipe, report, survey) if survey is not None else None, SchemaJudge(schemas)
    growing = any(check.name == "growth" for check in report.checks)
    check = _CatalogCheck(target, growing)
    check.all(judge, again, with_extensions=schemas is not None)
    if check.findings:  # something may have been damaged only on its way
        check = _CatalogCheck(target, growing)
        check.all(judge, again, with_extensions=schemas is not None)
    checks = (*report.checks, *gather(check.names, check.findings))
    return Report(report.url, checks, report.damaged, report.objects, report.stored_bytes)


class _CatalogCheck:
    def __init__(self, target: Target, growing: bool) -> None:
        self.target, self.growing = target, growing
        self.base = target.stac.url
        self.findings: list[Finding] = []
        self.names: dict[str, str] = {}
        self.documents: dict[str, Document] = {}
        self.reached: set[str] = set()

    def found(self, check: str, where: str, what: str) -> None:
        self.findings.append(Finding(check, where, what))

    def all(self, judge: SchemaJudge, again: Catalog | None, *, with_extensions: bool) -> None:
        self.read()
        self.links()
        self.schemas(judge, with_extensions=with_extensions)
        self.agreement(again)
        self.page()

    def read(self) -> None:
        """Read every document from the root catalog on."""
        self.names["documents"] = "nothing"
        left = [CATALOG]
        while left:
            path = left.pop()
            self.reached.add(path)
            try:
                document = parse_object(self.target.stac.read(path))
                kind = document["type"]
            except FileNotFoundError:
                self.found("documents", path, "it is missing")
                continue
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.found("documents", path, f"cannot be read: {error!r}")
                continue
            if said := misshapen_stac(document):
                self.found("documents", path, said)
                continue
            if kind not in CORE:
                self.found("documents", path, f"its type {kind!r} is none of {', '.join(CORE)}")
            self.documents[path] = document
            below = [link["href"] for link in document.get("links", []) if link.get("rel") in _CHILDREN]
            left += [inside for href in below if (inside := self._inside(path, href)) and inside not in self.reached]
        stray = {entry.key for entry in self.target.stac.list() if entry.key.endswith(".json")} - self.reached
        for path in sorted(stray):
            self.found("documents", path, "no other document leads to it")
        self.names["documents"] = f"{len(self.documents):,} documents from {CATALOG} on"

    def _inside(self, path: str, href: str) -> str | None:
        """Return the path in the catalog that an href leads to, None if it leads elsewhere."""
        url = resolved(f"{self.base}/{path}", href)
        return url.removeprefix(f"{self.base}/") if url.startswith(f"{self.base}/") else None

    def links(self) -> None:
        """Follow every relative link and asset; links to the web are counted only."""
        outside = relative = 0
        there = {f"{store.url}/{entry.key}": store for store in (self.target.stac, self.target.cube) for entry in store.list()}
        there[self.target.cube.url] = self.target.cube
        for path, document in self.documents.items():
            for what, entry in _hrefs(document):
                if "://" in entry["href"]:
                    outside += 1
                    continue
                relative += 1
                url = resolved(f"{self.base}/{path}", entry["href"])
                if url not in there:
                    self.found("links", path, f"{what} leads to {entry['href']}, which is not there")
                elif "file:size" in entry or "file:checksum" in entry:
                    self._file(path, what, entry, there[url].read(url.removeprefix(f"{there[url].url}/")))
        self.names["links"] = f"{relative:,} links and assets followed; {outside:,} lead to the web, not followed"

    def _file(self, path: str, what: str, entry: Document, data: bytes) -> None:
        if entry.get("file:size", len(data)) != len(data):
            self.found("links", path, f"{what}: the file has {len(data):,} bytes, not {entry['file:size']}")
        elif str(entry.get("file:checksum", "1220")).removeprefix("1220") not in ("", sha256(data).hexdigest()):
            self.found("links", path, f"{what}: the file's checksum is another")

    def schemas(self, judge: SchemaJudge, *, with_extensions: bool) -> None:
        """Judge every document by the core schema of its type, and by those of its extensions."""
        self.names["core schema"] = f"{len(self.documents):,} documents, STAC 1.1.0"
        for path, document in self.documents.items():
            for complaint in judge.complaints(document, CORE[document["type"]]) if document["type"] in CORE else ():
                self.found("core schema", path, complaint)
        if not with_extensions:
            return
        named = {path: document.get("stac_extensions", []) for path, document in self.documents.items()}
        urls = {url for urls in named.values() for url in urls}
        self.names["extensions"] = f"{len(urls)} extensions: {', '.join(sorted(url.split('/')[-3] for url in urls))}"
        for path, listed in named.items():
            for url in listed:
                complaints = judge.complaints(self.documents[path], url) if judge.knows(url) else ["its schema is not at hand"]
                for complaint in complaints:
                    self.found("extensions", path, f"{url}: {complaint}")

    def agreement(self, again: Catalog | None) -> None:
        """Compare every document and the table with those that follow from the cube."""
        names = {
            "extent": "places and times",
            "contents": "counts and names",
            "bands": "bands and variables",
            "statistics": "statistics and classes, taken again from the pixels",
            "table": "nothing",
        }
        if again is None:
            self.names["extent"] = "not looked at: the cube itself is not sound"
            self.found("extent", self.target.url, "the cube is not sound, so the catalog was compared with nothing")
            return
        self.names |= names
        for path in sorted(again.documents.keys() - self.documents.keys() - self.reached):
            self.found("documents", path, "the cube has such a scene, the catalog no such document")
        for path, document in self.documents.items():
            if path not in again.documents:
                self.found("documents", path, "the cube has no such scene")
                continue
            for place, what in differences(document, again.documents[path]):
                if place == ("patchcube:stored_bytes",) and self.growing:
                    continue  # what is being added lies among the objects of the cube
                self.found(_check_of(place), path, f"{'/'.join(place)}: {what}")
        self._table(pq.read_table(pa.BufferReader(again.files[TABLE])))

    def page(self) -> None:
        """Make the page again from the documents, which are compared with the cube, and compare it to the byte."""
        self.names["page"] = "nothing"
        try:
            page = self.target.stac.read(PAGE)
        except FileNotFoundError:
            return  # the links say so
        except OSError as error:
            self.found("page", PAGE, f"cannot be read: {error}")
            return
        if self.findings:
            self.names["page"] = "not made again: the documents are not in order"
            return
        self.names["page"] = f"{len(page):,} bytes, made again from the documents"
        collection = self.documents.get(COLLECTION, {})
        below = (self._inside(COLLECTION, link["href"]) for link in collection.get("links", []) if link.get("rel") == "item")
        items = {path: self.documents[path] for path in below if path in self.documents}
        if collection and page != datasheet(collection, items)[PAGE]:
            self.found("page", PAGE, "it is not the page of these documents, or one that another version made")

    def _table(self, again: pa.Table) -> None:
        try:
            table = pq.read_table(pa.BufferReader(self.target.stac.read(TABLE)))
        except (OSError, pa.ArrowInvalid) as error:
            self.found("table", TABLE, f"cannot be read: {error}")
            return
        self.names["table"] = f"{len(table):,} rows, {len(table.schema.names)} columns"
        if len(table) != len(again) or table["id"] != again["id"]:
            self.found("table", "id", f"its {len(table):,} rows are not the cube's {len(again):,} patches in their order")
            return
        for name in sorted({*table.schema.names} ^ {*again.schema.names}):
            self.found("table", name, "one of the two lacks this column")
        for name in sorted({*table.schema.names} & {*again.schema.names}):
            if (row := first_difference(table[name], again[name])) is not None:
                self.found("table", name, f"{table['id'][row]}: it has {table[name][row]}, the cube {again[name][row]}")


def _hrefs(document: Document) -> Iterator[tuple[str, Document]]:
    for link in document.get("links", []):
        yield f"link {link.get('rel')}", link
    for name, asset in document.get("assets", {}).items():
        yield f"asset {name}", asset


def differences(seen: Any, wanted: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield where two documents differ, and how, but for what no cube says."""
    if isinstance(seen, Mapping) and isinstance(wanted, Mapping):
        for name in sorted({*seen, *wanted} - _SAID_ELSEWHERE):
            if name not in seen or name not in wanted:
                yield (*place, name), "it is missing" if name not in seen else "the cube says nothing of it"
            else:
                yield from differences(seen[name], wanted[name], (*place, name))
    elif isinstance(seen, list) and isinstance(wanted, list) and len(seen) == len(wanted):
        for index, (one, other) in enumerate(zip(seen, wanted, strict=True)):
            yield from differences(one, other, (*place, str(index)))
    elif not _equal(seen, wanted):
        yield place, f"it says {str(seen)[:80]}, the cube {str(wanted)[:80]}"


def _equal(seen: Any, wanted: Any) -> bool:
    if isinstance(seen, float) and isinstance(wanted, int | float) and not isinstance(wanted, bool):
        return math.isclose(seen, wanted, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(seen == wanted) and type(seen) is type(wanted)


def _check_of(place: tuple[str, ...]) -> str:
    for check, names in (("statistics", _STATISTICS), ("bands", _BANDS), ("extent", _PLACES)):
        if names & {*place}:
            return check
    return "contents"


def first_difference(seen: Any, wanted: Any) -> int | None:
    """Return the first row in which two columns differ."""
    if seen.equals(wanted):
        return None
    if seen.type != wanted.type:
        return 0
    if pa.types.is_floating(seen.type):
        one, other = seen.to_numpy(), wanted.to_numpy()
        rows = np.flatnonzero(~np.isclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
        return int(rows[0]) if len(rows) else None
    read = _geometry if pa.types.is_binary(seen.type) else lambda value: value
    pairs = enumerate(zip(seen.to_pylist(), wanted.to_pylist(), strict=True))
    differ = (row for row, (one, other) in pairs if one != other and next(differences(read(one), read(other)), None))
    return next(differ, None)


def _geometry(wkb: bytes | None) -> Any:
    """Return the GeoJSON of a geometry as this package writes it; others as they are."""
    try:
        return geometry(wkb) if wkb else wkb
    except CorruptError:
        return wkb
