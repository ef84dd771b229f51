"""One part of an export: pixels and headers of some patches in, files out. Runs on a Dask worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from cube.errors import CorruptError
from cube.format.arrays import ArraySpec
from cube.format.layout import tile_layout
from cube.format.originals import BYTES
from cube.format.tiles import interleaved, pixels_digest_of
from cube.jobs.subset import read_headers
from cube.read.pixels import PixelReader
from cube.source.georeference import Affine, Georeference
from cube.source.stacks import parted, unpacked
from cube.store.protocol import Readable, Store

Array = NDArray[Any]
Form = Literal["original", "gtiff", "cog", "png"]
DRIVERS: Mapping[str, tuple[str, str]] = {"gtiff": ("GTiff", ".tif"), "cog": ("COG", ".tif"), "png": ("PNG", ".png")}
"""Form → driver of GDAL, and the ending of the files."""
_OF_ENDING = {".png": "png", ".jpg": "png", ".jpeg": "png"}
"""Ending of a file as published → the form in which its image comes back where its bytes do not."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What all parts of one export have in common. Small and picklable."""

    source: Readable
    pixels: Mapping[str, ArraySpec]
    """The modalities that are wanted."""
    kinds: tuple[int, ...]
    """Their places among all modalities."""
    header: ArraySpec
    stacks: frozenset[str]
    """Modalities of which each band is a file of its own."""
    most: int
    """Side of the largest images in pixels."""
    form: Form
    summed: bool
    """Whether the SHA-256 of every file is wanted."""
    to: Store | None = None


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the cube says of the patches of one part, all modalities included."""

    rows: Array
    """(patch): positions in the cube."""
    patch: Array
    present: Array
    """(patch, modality)"""
    kept: Array
    digest: Array
    """(patch, modality, byte)"""
    path: Array
    """(patch, modality) text"""
    header_size: Array
    header_digest: Array
    pixel_start: Array
    size: Array
    epsg: Array | None
    wkt: list[str]
    transform: Array | None


@dataclass(frozen=True)
class File:
    """One file that comes back."""

    path: str
    parts: tuple[bytes | memoryview, ...]
    """Its bytes, one part after another."""
    exact: bool
    """Whether it is the same as the original to the byte."""

    @property
    def size(self) -> int:
        """Bytes of it."""
        return sum(map(len, self.parts))

    def sha256(self) -> str:
        """Return its SHA-256."""
        hasher = sha256()
        for part in self.parts:
            hasher.update(part)
        return hasher.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What one part of an export wrote."""

    patches: int
    files: tuple[tuple[str, str, int, bool], ...]
    """Path, SHA-256 where it is wanted, bytes, and whether it is the original to the byte."""
    standing: int
    """How many of them an earlier run had written."""


def export_part(origin: Origin, labels: Labels, there: Mapping[str, int]) -> Restored:
    """Write the files of some patches and return what was written.

    ``there`` is path → bytes of files that are there already: where that is the length of an original, it stays. Raises
    ``CorruptError`` where pixels or headers are not what was certified.
    """
    assert origin.to is not None
    written, standing = [], 0
    for file in restored(origin, labels):
        if file.exact and there.get(file.path) == file.size:
            standing += 1
        else:
            with origin.to.writing(file.path) as out:
                for part in file.parts:
                    out.write(part)
        written.append((file.path, file.sha256() if origin.summed else "", file.size, file.exact))
    return Restored(patches=len(labels.rows), files=tuple(written), standing=standing)


def restored(origin: Origin, labels: Labels) -> Iterator[File]:
    """Yield the files of some patches, patch by patch, each held against the certificate of the cube."""
    headers: dict[tuple[int, int], bytes] = {}
    if origin.form == "original":
        headers = read_headers(origin.source, origin.header, labels.rows, labels.header_size)
    images = {name: _read(origin, name, labels.rows) for name in origin.pixels}
    for slot in range(len(labels.rows)):
        for kind, name in zip(origin.kinds, origin.pixels, strict=True):
            if labels.present[slot, kind]:
                yield from _files(origin, labels, slot, kind, images[name][slot], headers.get((slot, kind), b""))


def _read(origin: Origin, name: str, rows: Array) -> Array:
    spec = origin.pixels[name]
    return PixelReader(origin.source, spec, tile_layout(spec, None)).read(rows)


def _files(origin: Origin, labels: Labels, slot: int, kind: int, image: Array, header: bytes) -> Iterator[File]:
    """Yield the file of an image (band, y, x), or those of its bands."""
    name = list(origin.pixels)[origin.kinds.index(kind)]
    where = f"{labels.patch[slot]}, {name}"
    pixels = interleaved(image)
    if pixels_digest_of(tile_layout(origin.pixels[name], None), pixels) != labels.digest[slot, kind].tobytes():
        raise CorruptError(f"{where}: its pixels are not those certified; `cube verify` tells more")
    paths = parted(str(labels.path[slot, kind])) if name in origin.stacks else [str(labels.path[slot, kind])]
    for path in paths:
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise CorruptError(f"{where}: its path {path!r} leads elsewhere")
    planes = [pixels[..., [band]] for band in range(pixels.shape[2])] if name in origin.stacks else [pixels]
    if origin.form == "original" and labels.kept[slot, kind] == BYTES:
        yield from _exact(labels, slot, kind, paths, planes, header)
        return
    from cube.jobs.imaging import encoded

    for path, plane in zip(paths, planes, strict=True):
        stem, dot, ending = path.rpartition(".")
        form = _OF_ENDING.get(f".{ending.lower()}", "gtiff") if origin.form == "original" else origin.form
        same = origin.form == "original" and DRIVERS[form][1] == _known(f".{ending.lower()}")
        to = path if same else f"{stem if dot else path}{DRIVERS[form][1]}"
        image_file = encoded(plane, DRIVERS[form][0], *_place(origin, labels, slot, plane.shape[0]))
        yield File(to, (image_file,), exact=False)


def _known(ending: str) -> str:
    return {".tiff": ".tif"}.get(ending, ending)


def _exact(labels: Labels, slot: int, kind: int, paths: list[str], planes: list[Array], header: bytes) -> Iterator[File]:
    where = str(labels.patch[slot])
    if blake3(header).digest() != labels.header_digest[slot, kind].tobytes():
        raise CorruptError(f"{where}: its header is not the one certified; `cube verify` tells more")
    start, size = int(labels.pixel_start[slot, kind]), int(labels.size[slot, kind])
    whole = [(header, start, size)] if start else unpacked(header)
    for path, plane, (part, begin, length) in zip(paths, planes, whole, strict=True):
        file = File(path, (part[:begin], np.ascontiguousarray(plane).reshape(-1).view(np.uint8).data, part[begin:]), exact=True)
        if file.size != length:
            raise CorruptError(f"{where}: {path} comes to {file.size:,} bytes, it had {length:,}")
        yield file


def _place(origin: Origin, labels: Labels, slot: int, side: int) -> tuple[str, Affine | None]:
    """Return the CRS of a patch as text, and the affine of its image of ``side`` pixels; nothing where there is no place."""
    if labels.transform is None or labels.epsg is None or not np.isfinite(labels.transform[slot]).all():
        return "", None
    place = Georeference(int(labels.epsg[slot]), tuple(labels.transform[slot].tolist()), labels.wkt[slot])
    return f"EPSG:{place.epsg}" if place.epsg else place.wkt, place.resampled(origin.most, side).transform
