"""The way back: files as they were, byte for byte where that was kept, else equal images; or plain images for other tools."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cube.errors import CorruptError, RequestError
from cube.format.arrays import values_digest
from cube.format.layout import meanings
from cube.format.originals import HEADERS, ORIGINALS
from cube.format.root import read_root
from cube.format.small import read_array
from cube.format.target import Target, target_of
from cube.format.versions import SUPERSEDES, current_rows
from cube.jobs.restoring import Form, Labels, Origin, Restored, export_part, restored
from cube.jobs.subset import array_specs
from cube.query.choose import select_patches
from cube.read.opened import open_certified
from cube.source.stacks import parted
from cube.store.protocol import Store
from cube.store.urls import open_store
from cube.verify.tasks import unpacked_paths
from cube.work.clusters import Task, run
from cube.work.watch import SILENT, Watcher

if TYPE_CHECKING:
    from distributed import Client

_MOST_BANDS = 4
"""Of a PNG."""
_AT_ONCE = 64
"""Patches that one task restores."""

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What of a cube is to come back, and how."""

    where: str = ""
    """Filter over the labels of patches; all where empty."""
    modalities: Sequence[str] = ()
    """Kinds of image; all where empty."""
    form: Form = "original"
    """The files as they were, or plain images."""
    sums: bool = True
    """Whether the SHA-256 of every file is told."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export did."""

    to: str
    patches: int
    exact: int
    """Files that are the originals, to the byte."""
    equal: int
    """Files with equal pixels and place, other bytes."""
    standing: int
    """Files that an earlier run had written."""
    bytes: int
    seconds: float
    sums: tuple[tuple[str, str], ...]
    """Path and SHA-256 of every file, in the order of the paths; none where they were not wanted."""

    def document(self) -> dict[str, Any]:
        """Return the export as plain data, without the sums."""
        return {name: getattr(self, name) for name in ("to", "patches", "exact", "equal", "standing", "bytes", "seconds")}

    def manifest(self) -> str:
        """Return the sums as ``sha256sum -c`` takes them."""
        return "".join(f"{total}  {path}\n" for path, total in self.sums)


def export(  # noqa: PLR0913  what the command takes, each by its name
    url: str | Path,
    to: str | Path,
    *,
    where: str = "",
    modalities: Sequence[str] = (),
    form: Form = "original",
    client: Client | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Exported:
    """Give the files of a cube back, as the command ``cube export`` does.

    Parameters
    ----------
    url
        Path or ``s3://`` URL of the cube.
    to
        Folder or ``s3://`` prefix to write the files in, under the names they had.
    where
        Filter over the labels of patches; all where empty.
    modalities
        Kinds of image; all where empty.
    form
        ``original``, or ``gtiff``, ``cog`` or ``png`` for plain images.
    client
        Dask client to work with; this process where None.
    storage_options
        fsspec's, for the cube and for where the files go.

    Returns how many files are the originals to the byte, and the SHA-256 of all. Raises as :func:`export_cube` does.
    """
    source = target_of(str(url), options=storage_options)
    place = open_store(str(to), options=storage_options, flush=False)
    return export_cube(source, place, client, wanted=Wanted(where=where, modalities=modalities, form=form))


def export_cube(
    source: Target,
    to: Store,
    client: Client | None = None,
    *,
    wanted: Wanted | None = None,
    watcher: Watcher = SILENT,
) -> Exported:
    """Write the files of a cube, or of some patches and modalities, under the names and folders they had.

    Each is held against the cube's certificate before it is written. Files of the right size that are there already stay.
    Raises ``RequestError`` if there is no cube or nothing is chosen, ``FilterError`` for a filter that cannot be read,
    ``CorruptError`` where the cube is damaged: what was written by then is right.
    """
    started = time.monotonic()
    wanted = wanted or Wanted()
    origin, everything = _planned(source, wanted)
    there = {entry.key: entry.size for entry in to.list()} if wanted.form == "original" else {}
    tasks = _tasks(replace(origin, to=to), everything, there)
    watcher.start("exporting", len(everything.rows))
    found: list[Restored] = []
    for part in run(client, export_part, tasks):
        watcher.count(part.patches, sum(size for _, _, size, _ in part.files))
        found.append(part)
    files = sorted(file for part in found for file in part.files)
    return _exported(to.url, len(everything.rows), files, sum(part.standing for part in found), started)


def stream_cube(
    source: Target,
    out: BinaryIO,
    *,
    wanted: Wanted | None = None,
    watcher: Watcher = SILENT,
) -> Exported:
    """Write the files as one tar archive, in the order of the cube. Raises as :func:`export_cube` does."""
    started = time.monotonic()
    origin, everything = _planned(source, wanted or Wanted())
    watcher.start("exporting", len(everything.rows))
    files = []
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for labels in _parts(everything):
            size = 0
            for file in restored(origin, labels):
                facts = tarfile.TarInfo(file.path)
                facts.size = file.size
                archive.addfile(facts, io.BytesIO(b"".join(file.parts)))
                size += file.size
                files.append((file.path, file.sha256() if origin.summed else "", file.size, file.exact))
            watcher.count(len(labels.rows), size)
    return _exported("tar", len(everything.rows), sorted(files), 0, started)


def _exported(to: str, patches: int, files: list[tuple[str, str, int, bool]], standing: int, started: float) -> Exported:
    exact = sum(exact for *_, exact in files)
    return Exported(
        to=to,
        patches=patches,
        exact=exact,
        equal=len(files) - exact,
        standing=standing,
        bytes=sum(size for _, _, size, _ in files),
        seconds=time.monotonic() - started,
        sums=tuple((path, total) for path, total, _, _ in files if total),
    )


def _planned(source: Target, wanted: Wanted) -> tuple[Origin, Labels]:
    """Return what is common to all parts, and what the cube says of all chosen patches."""
    _, root = read_root(source)
    specs, facts = {spec.path: spec for spec in array_specs(root)}, root["attributes"]["cube"]
    names = list(facts["modalities"])
    if unknown := [name for name in wanted.modalities if name not in names]:
        raise RequestError(f"{source.url} has no modality {unknown[0]!r}; it has {', '.join(names)}")
    chosen = [name for name in names if not wanted.modalities or name in wanted.modalities]
    if wanted.form == "png":
        _require_pictures(specs, chosen, facts.get("one_file_per_band", ()))
    values = _Values(source, specs, facts["certificate"]["arrays"])
    rows = _chosen(source, values, specs, facts, wanted.where)
    origin = Origin(
        source=source.cube,
        pixels={name: specs[name] for name in chosen},
        kinds=tuple(names.index(name) for name in chosen),
        header=specs[HEADERS],
        stacks=frozenset(facts.get("one_file_per_band", ())),
        most=max(specs[name].shape[-1] for name in names),
        form=wanted.form,
        summed=wanted.sums,
    )
    placed = "transform" in specs
    if "kept" not in specs:
        raise RequestError(f"{source.url} is of a format before 1.2, which does not say what comes back: build it again")
    labels = Labels(
        rows=rows,
        patch=values("patch")[rows],
        present=values("present")[rows],
        kept=values("kept")[rows],
        digest=values("digest")[rows],
        path=unpacked_paths(values(f"{ORIGINALS}/path")[rows]),
        header_size=values(f"{ORIGINALS}/header_size")[rows],
        header_digest=values(f"{ORIGINALS}/digest")[rows],
        pixel_start=values(f"{ORIGINALS}/pixel_start")[rows],
        size=values(f"{ORIGINALS}/size")[rows],
        epsg=values("epsg")[rows] if placed else None,
        transform=values("transform")[rows] if placed else None,
        wkt=_definitions(values, specs, rows),
    )
    return origin, labels


def _require_pictures(specs: Mapping[str, Any], names: Iterable[str], stacks: Sequence[str]) -> None:
    """Raise ``RequestError`` for images that no PNG holds."""
    for name in names:
        bands, dtype = 1 if name in stacks else specs[name].shape[1], np.dtype(specs[name].dtype).name
        if bands > _MOST_BANDS or dtype not in ("uint8", "uint16"):
            raise RequestError(
                f"{name} has {bands} bands of {dtype}; a PNG takes one to {_MOST_BANDS} of 8 or 16 bits: say gtiff or cog, "
                "or leave it out with --modalities"
            )


class _Values:
    """Reads small arrays, each once, and holds them against the certificate."""

    def __init__(self, source: Target, specs: Mapping[str, Any], digests: Mapping[str, str]) -> None:
        self.source, self.specs, self.digests = source, specs, digests
        self._known: dict[str, Array] = {}

    def __call__(self, path: str) -> Array:
        if path not in self._known:
            values = read_array(self.source.cube, self.specs[path])
            if values_digest(values) != self.digests.get(path):
                raise CorruptError(f"{self.source.url}/{path}: its values are not those certified; `cube verify` tells more")
            self._known[path] = values
        return self._known[path]


def _chosen(
    source: Target, values: Callable[[str], Array], specs: Mapping[str, Any], facts: Mapping[str, Any], where: str
) -> Array:
    names = [path for path, spec in specs.items() if spec.dimensions[0] == "patch" and spec.inner is None and "/" not in path]
    rows = select_patches(
        values,
        names,
        where or None,
        shown=meanings(specs.values()),
        seasons=facts["seasons"],
        shares=lambda field: open_certified(source.url, source.cube.options).shares(field),
        among=current_rows(values(SUPERSEDES)) if SUPERSEDES in specs else None,
    )
    if not len(rows):
        raise RequestError(f"no patch of {source.url} is chosen by --where {where!r}")
    return rows


def _definitions(values: Callable[[str], Array], specs: Mapping[str, Any], rows: Array) -> list[str]:
    if "crs_index" not in specs:
        return [""] * len(rows)
    known = [*values("crs_wkt").tolist(), ""]
    return [known[place] for place in values("crs_index")[rows].tolist()]


def _parts(everything: Labels) -> Iterator[Labels]:
    """Yield the labels of some patches at a time."""
    columns = {name: value for name, value in vars(everything).items() if value is not None}
    for start in range(0, len(everything.rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        yield replace(everything, **{name: value[part] for name, value in columns.items()})


def _tasks(origin: Origin, everything: Labels, there: Mapping[str, int]) -> Iterable[Task]:
    assert origin.to is not None
    for number, labels in enumerate(_parts(everything)):
        paths = {path for joined in labels.path.ravel().tolist() if joined for path in {joined, *parted(joined)}}
        known = {path: there[path] for path in paths & there.keys()}
        yield f"export-{origin.source.url}-{origin.to.url}-{number}", (origin, labels, known)
