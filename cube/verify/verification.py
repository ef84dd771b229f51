"""Cube (and, on request, its source) → ``Report``: every object present and as certified, every pixel as recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cube.errors import CorruptError
from cube.format.arrays import ArraySpec, read_spec, values_digest
from cube.format.certificate import pixels_digest
from cube.format.documents import parse_object
from cube.format.layout import tile_layout
from cube.format.originals import HEADERS, ORIGINALS
from cube.format.root import parse_root, read_root, require_expected
from cube.format.small import read_array
from cube.format.target import ROOT, Target
from cube.geo.grid import centres
from cube.geo.projection import numbered
from cube.records.plans import unfinished_growth
from cube.survey.surveyor import Surveyor
from cube.verify.batch import Outcome, examine_batch
from cube.verify.report import Finding, Report, gather
from cube.verify.sources import SourceFiles, listed_source
from cube.verify.statements import grown_document, wrong_statements
from cube.verify.tasks import COUNTS, Arrays, Examination, batch_tasks, file_paths, restored_text, stored_keys, unpacked_paths
from cube.work.clusters import Task, run
from cube.work.watch import SILENT, Watcher

if TYPE_CHECKING:
    from distributed import Client

_SURVEYED = {"season", "scene", "epsg", "crs_index", "transform"}
"""Labels a survey needs, as far as a cube has them."""
_ROUNDING = 1e-6
"""Degrees by which another PROJ may place a patch's centre."""


def verify_cube(  # noqa: PLR0913 (each is a keyword of its own)
    target: Target,
    client: Client | None = None,
    *,
    source: str | None = None,
    source_options: Mapping[str, Any] | None = None,
    where: str = "",
    watcher: Watcher = SILENT,
    surveyor: Surveyor | None = None,
    expect: str | None = None,
    since: int = 0,
) -> Report:
    """Check a whole cube from its store alone, and against its source files where ``source`` is given.

    ``source_options`` go to fsspec; ``where`` chooses the patches that are compared with files. A ``surveyor`` takes a survey
    while the pixels pass by; it has seen everything if the report passed. ``expect`` is the digest of the cube that was noted
    before: with it, a cube that passes is that cube. Pixels of the first patches, up to ``since``, are not looked at unless the
    surveyor must see them.

    Raises ``RequestError`` if there is no cube, or one of a format this version does not know.
    """
    files = None if source is None else listed_source(source, source_options, target, where)
    verification = _Verification(target, client, watcher)
    verification.source, verification.surveyor, verification.expect, verification.since = files, surveyor, expect, since
    return verification.report(None)


def verify_unrooted(
    target: Target,
    root: bytes,
    client: Client | None = None,
    *,
    watcher: Watcher = SILENT,
    surveyor: Surveyor | None = None,
    since: int = 0,
) -> Report:
    """Check a whole cube as if this root document, which is yet to be written, stood; ``since`` as ``verify_cube`` takes it."""
    verification = _Verification(target, client, watcher)
    verification.surveyor, verification.since = surveyor, since
    return verification.report(root)


class _Verification:
    source: SourceFiles | None = None
    surveyor: Surveyor | None = None
    expect: str | None = None
    since: int = 0

    def __init__(self, target: Target, client: Client | None, watcher: Watcher) -> None:
        self.target, self.client, self.watcher = target, client, watcher
        self.objects = self.stored_bytes = 0
        self.findings: list[Finding] = []
        self.names: dict[str, str] = {}
        self.damaged: list[int] = []
        self.growing = False

    def found(self, check: str, where: str, what: str) -> None:
        self.findings.append(Finding(check, where, what))

    def report(self, root: bytes | None) -> Report:
        try:
            data, document = read_root(self.target) if root is None else (root, parse_root(self.target, root))
        except CorruptError as error:
            self.names["root"] = "the root document"
            self.found("root", ROOT, str(error))
            return Report(self.target.url, gather(self.names, self.findings))
        self.names["root"] = f"{len(data):,} bytes of root metadata, digest {_digest(document)}"
        if self.expect is not None:
            try:
                require_expected(self.target.url, document, self.expect)
            except CorruptError as error:
                self.found("root", ROOT, str(error))
        self._below(document, {} if root is None else {ROOT: len(root)})
        checks, damaged = gather(self.names, self.findings), tuple(sorted(self.damaged))
        return Report(self.target.url, checks, damaged, self.objects, self.stored_bytes)

    def _below(self, document: dict[str, Any], to_come: Mapping[str, int]) -> None:
        facts = document["attributes"]["cube"]
        certified = facts["certificate"]
        self.growing = ROOT not in to_come and bool(unfinished_growth(self.target))
        if self.growing:
            self.names["growth"] = "more patches are being added, or were; the same command goes on, `cube clean` undoes it"
        specs = self._metadata(document, certified["metadata"])
        if specs is None:
            return
        values = self._values(specs, certified["arrays"])
        sizes = self._objects(specs, certified["metadata"], to_come, values)
        self._statements(document, specs, values)
        self._whole(values, certified["pixels"])
        self._centres(values, list(facts["modalities"]), specs)
        self._batches(facts, specs, values, sizes)

    def _metadata(self, document: dict[str, Any], known: Mapping[str, str]) -> list[ArraySpec] | None:
        """Compare every document with its certified digest, and with what the root repeats of it; return the arrays."""
        self.names["metadata"] = f"{len(known)} metadata documents, and the root's repetition of them"
        listed = document["consolidated_metadata"]["metadata"]
        for path in sorted({f"{path}/{ROOT}" for path in listed} ^ known.keys()):
            self.found("metadata", path, "the root repeats other documents than are certified")
        for key, digest in known.items():
            try:
                data = self.target.cube.read(key)
                if blake3(data).hexdigest() != digest:
                    data = self.target.cube.read(key)  # it may have been damaged only on its way
            except FileNotFoundError:
                continue
            except OSError as error:
                self.found("metadata", key, f"cannot be read: {error.strerror or error}")
                continue
            told = listed.get(key.removesuffix(f"/{ROOT}"))
            if blake3(data).hexdigest() != digest and not (self.growing and grown_document(told, data)):
                self.found("metadata", key, "it is not what was certified")
            elif self.growing:
                continue
            elif not _repeated(data, told):
                self.found("metadata", key, "the root repeats something else than it says")
        try:
            return [read_spec(path, item) for path, item in listed.items() if item["node_type"] == "array"]
        except CorruptError as error:
            self.found("metadata", ROOT, str(error))
            return None

    def _statements(self, document: dict[str, Any], specs: list[ArraySpec], values: Arrays) -> None:
        self.names["statements"] = "modalities, bands, seasons, tiles and dimensions as the root tells them"
        attributes = document["attributes"]
        for where, what in wrong_statements(attributes["cube"], attributes, specs, values):
            self.found("statements", where, what)

    def _objects(
        self, specs: list[ArraySpec], metadata: Mapping[str, str], to_come: Mapping[str, int], values: Arrays
    ) -> dict[str, int]:
        """Compare the listing, and what is yet to be written, with what must be there."""
        sizes = {entry.key: entry.size for entry in self.target.cube.list()} | dict(to_come)
        expected = {ROOT, *metadata, *(key for spec in specs for key in stored_keys(spec, values, sizes))}
        self.objects, self.stored_bytes = len(sizes), sum(sizes.values())
        self.names["objects"] = f"{len(sizes):,} objects, {sum(sizes.values()):,} bytes"
        for key in sorted(expected - sizes.keys()):
            self.found("objects", key, "it is missing")
        for key in sorted(sizes.keys() - expected) if not self.growing else ():
            self.found("objects", key, "it is no part of the cube")
        return sizes

    def _values(self, specs: list[ArraySpec], known: Mapping[str, str]) -> Arrays:
        """Read every small array and compare it with its certified hash; damaged ones are left out."""
        small = [spec for spec in specs if spec.path in known]
        self.names["labels"] = f"{len(small)} arrays of coordinates and records"
        values = {}
        for spec in small:
            try:
                array = read_array(self.target.cube, spec)
            except CorruptError as error:
                key, _, what = str(error).partition(": ")
                self.found("labels", key, what)
                continue
            if values_digest(array) != known[spec.path]:
                self.found("labels", spec.path, "its values are not those certified")
            else:
                values[spec.path] = array
        return values

    def _whole(self, values: Arrays, certified: str) -> None:
        if "patch" in values and "digest" in values:
            self.names["certificate"] = f"one hash over {len(values['patch']):,} patches"
            if pixels_digest(values["patch"], values["digest"]) != certified:
                self.found("certificate", "digest", "the patches' digests do not give the cube's")

    def _centres(self, values: Arrays, modalities: list[str], specs: list[ArraySpec]) -> None:
        if not {"epsg", "transform", "lon", "lat", "patch"} <= values.keys():
            return
        size = max(spec.shape[-1] for spec in specs if spec.path in modalities)
        crs, definitions = numbered(values["epsg"], values.get("crs_index")), values.get("crs_wkt", np.array([], str))
        if crs.min(initial=0) < -len(definitions):
            self.found("georeference", "crs_index", f"it points beyond the {len(definitions)} definitions of crs_wkt")
            return
        again = centres(crs, values["transform"], size, definitions.tolist())
        self.names["georeference"] = "longitude and latitude, again from CRS and transform"
        for name, degrees in zip(("lon", "lat"), again, strict=True):
            for row in np.flatnonzero(~np.isclose(values[name], degrees, rtol=0, atol=_ROUNDING, equal_nan=True)):
                self.found("georeference", str(values["patch"][row]), f"{name} does not fit its CRS and transform")

    def _batches(self, facts: dict[str, Any], specs: list[ArraySpec], values: Arrays, sizes: Mapping[str, int]) -> None:
        needed = {"patch", "present", "digest", *COUNTS}
        needed |= {f"{ORIGINALS}/{name}" for name in ("header_size", "pixel_start", "size", "digest", "path")}
        if missing := sorted(needed - values.keys()):
            self.names["pixels"] = "not looked at: the labels they are checked against are damaged"
            self.found("pixels", ", ".join(missing), "damaged, so no pixel could be checked")
            return
        by_path = {spec.path: spec for spec in specs}
        if not by_path.keys() & _SURVEYED <= values.keys():
            self.surveyor = None  # the report does not pass, so there is no survey
        layouts = {name: tile_layout(by_path[name], facts["saturated"].get(name)) for name in facts["modalities"]}
        examination = Examination(
            cube=self.target.cube,
            layouts=layouts,
            header=by_path[HEADERS],
            source=self.source.files if self.source is not None else None,
            stacks=frozenset(facts.get("one_file_per_band", ())),
            tallied=self.surveyor.jobs if self.surveyor is not None else {},
            classes=frozenset(name for name in layouts if "band_legends" in by_path[name].attributes),
            growing=self.growing,
        )
        surveyor = self.surveyor if {"season", "scene"} <= values.keys() else None
        if surveyor is not None:
            surveyor.prepare(values, layouts)
            self.since = min(self.since, surveyor.patches)
        unsourced = self.source.left_out(values, specs, facts["seasons"]) if self.source is not None else None
        tasks = batch_tasks(examination, values, sizes, surveyor, self.since, unsourced)
        outcomes = list(self._examine(tasks, values["patch"], examination.header.chunks[0]))
        self.findings += [finding for outcome in outcomes for finding in outcome.findings]
        self.damaged += [outcome.index for outcome in outcomes if outcome.findings]
        self._name_batches(outcomes, examination, values)

    def _examine(self, tasks: Iterable[Task], patches: NDArray[Any], slots: int) -> Iterator[Outcome]:
        self.watcher.start("verifying", len(patches) - self.since // slots * slots if self.since < len(patches) else 0)
        for outcome in run(self.client, examine_batch, tasks):
            self.watcher.count(outcome.patches, outcome.bytes_read)
            if self.surveyor is not None:
                self.surveyor.add(outcome.index, outcome.tallies)
            yield replace(outcome, tallies={})

    def _name_batches(self, outcomes: list[Outcome], examination: Examination, values: Arrays) -> None:
        shards = len(outcomes) * len(examination.layouts)
        tiles, distinct = sum(o.tiles for o in outcomes), sum(o.distinct for o in outcomes)
        read, patches = sum(o.bytes_read for o in outcomes), sum(o.patches for o in outcomes)
        images = int(values["present"][len(values["patch"]) - patches :].sum())
        others = len(values["patch"]) - patches
        before = f"; {others:,} were when they were written" if others else ""
        self.names |= {
            "shards": f"{shards:,} shards, {read:,} bytes of tiles",
            "pixels": f"{images:,} images of {patches:,} patches, decoded and hashed{before}",
            "counts": f"NaN, zero and saturated pixels of {patches:,} patches",
            "presence": f"{tiles:,} tiles of {patches:,} patches",
            "sharing": f"{distinct:,} tiles stored for {tiles:,}",
            "originals": restored_text(values, examination),
        }
        if self.source is not None:
            known = set(file_paths(examination, unpacked_paths(values[f"{ORIGINALS}/path"])))
            others = len(self.source.paths - known)
            compared = f"{sum(o.files for o in outcomes):,} files of {self.source.given}"
            self.names["source"] = f"{compared}; {others:,} other files there are no part of the cube"


def _digest(document: Mapping[str, Any]) -> str:
    return str(document["attributes"]["cube"]["certificate"]["root"])


def _repeated(data: bytes, told: Any) -> bool:
    """Tell whether the root repeats a document as it is stored."""
    try:
        return bool(parse_object(data) == told)
    except ValueError:
        return False
