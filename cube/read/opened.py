"""A cube that was opened: what its root document says, and its labels, read when they are asked for."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
from numpy.typing import NDArray

from cube.errors import CorruptError, RequestError
from cube.format.arrays import ArraySpec, is_own
from cube.format.certificate import sealed
from cube.format.documents import misshapen_stac, parse_object, require_object
from cube.format.layout import FORMAT, dated, meanings, tile_layout
from cube.format.root import require_expected
from cube.format.shape import read_specs
from cube.format.target import COLLECTION, ROOT, target_of
from cube.format.versions import SUPERSEDES, current_rows
from cube.read.beside import Beside
from cube.read.cache import TileCache
from cube.read.certified import Certified, Presence
from cube.read.disk_cache import DiskCache
from cube.read.pixels import PixelReader
from cube.read.versions import as_it_was
from cube.store.failures import undamaged
from cube.store.objects import ObjectStore
from cube.store.protocol import Readable
from cube.store.urls import is_local, open_store

Array = NDArray[Any]


@dataclass(frozen=True)
class Root:
    """The root document of a Zarr group."""

    url: str
    store: Readable
    document: Mapping[str, Any]

    @property
    def listed(self) -> dict[str, Any]:
        """The metadata of everything below the root group, by path."""
        consolidated = self.document.get("consolidated_metadata")
        listed = consolidated.get("metadata") if isinstance(consolidated, Mapping) else None
        if not isinstance(listed, dict) or not all(isinstance(item, dict) for item in listed.values()):
            raise RequestError(f"{self.url} has no consolidated metadata, so it is no cube of this package; try xr.open_zarr")
        return listed


@dataclass(frozen=True)
class OpenedCube:
    """A cube of this package."""

    url: str
    store: Readable
    specs: Mapping[str, ArraySpec]
    """The arrays of the root group, by name."""
    attributes: Mapping[str, Any]
    """Attributes of the root group."""
    whole: int
    """Patches that the arrays have in the store; ``specs`` have those of the version that was asked for."""
    certificate: Mapping[str, Any]
    """Of the whole cube, as it stands."""
    _values: dict[str, Array] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenedCube, (self.url, self.store, self.specs, self.attributes, self.whole, self.certificate)

    @property
    def patches(self) -> int:
        """Rows of the version that was asked for; replaced ones are among them."""
        return self.specs["patch"].shape[0]

    @property
    def visible(self) -> Array | None:
        """The rows that no other one takes the place of; None where that is all of them."""
        return current_rows(self.value(SUPERSEDES)) if SUPERSEDES in self.specs else None

    @property
    def modalities(self) -> dict[str, list[str]]:
        """Modality → names of its bands."""
        modalities: dict[str, list[str]] = self.attributes["cube"]["modalities"]
        return modalities

    @property
    def seasons(self) -> dict[str, dict[str, str]]:
        """Season → its first and last day, as ``start`` and ``end``."""
        seasons: dict[str, dict[str, str]] = self.attributes["cube"]["seasons"]
        return seasons

    @property
    def days(self) -> set[str]:
        """Labels that are dates."""
        return dated(self.specs.values())

    @property
    def shown(self) -> dict[str, Callable[[Array], Array]]:
        """Labels whose values stand for others → what makes those of them: dates, and the names of classes."""
        return meanings(self.specs.values())

    @property
    def labels(self) -> list[str]:
        """Names of the per-patch labels."""
        return [p for p, spec in self.specs.items() if spec.dimensions[:1] == ("patch",) and p not in self.modalities]

    @property
    def size(self) -> int:
        """Side of a patch in pixels, of the modality that has the most."""
        return max(self.specs[name].shape[-1] for name in self.modalities)

    def value(self, name: str) -> Array:
        """Return a whole small array, read once."""
        if name not in self._values:
            if name not in self.specs:
                raise CorruptError(f"{self.url} has no array {name!r}")
            self._values[name] = self._certified(name).read()[: self.specs[name].shape[0]]
        return self._values[name]

    def current(self, name: str) -> Array:
        """Return a label (patch, …) of the patches that nobody has replaced."""
        values, rows = self.value(name), self.visible
        return values if rows is None else values[rows]

    def known(self, name: str) -> Array | None:
        """Return a whole small array if it was read already."""
        return self._values.get(name)

    def shares(self, field: str) -> Array:
        """Return what part of each patch (patch) the class covers that a field such as ``class:Urban`` means; NaN in gaps.
        Of ``class``, the class (patch) that covers most.

        Read from the table in the catalog beside the cube. Raises ``FilterError`` for a class that is unknown or may be
        several, ``RequestError`` if there is no table or it is of another cube.
        """
        if field not in self._values:
            beside = self._beside
            self._values[field] = self._own(beside, beside.shares(field))
        return self._values[field]

    def _own(self, beside: Beside, values: Array) -> Array:
        """Return what the catalog says of the rows (patch, …) of this version; it is that of the cube as it stands."""
        rows = np.arange(self.patches) if self.visible is None else self.visible
        if gone := beside.unlisted & set(rows.tolist()):
            said = f"classes are known of patches that still stand; {len(gone):,} of these were replaced since"
            raise RequestError(f"{self.url}: {said}")
        return values[: self.patches]

    def fractions(self, legend: str = "") -> Array:
        """Return the shares (patch, class) of all classes of a legend, NaN in gaps; of the table's first where none is named.

        Raises ``RequestError`` as ``shares`` does, and if the table has no such legend.
        """
        beside = self._beside
        return self._own(beside, beside.fractions(legend))

    def statistics(self, modality: str) -> dict[str, Array]:
        """Return ``mean``, ``stddev``, ``minimum``, ``maximum`` and ``count`` (band) of the pixels of a modality.

        Raises ``RequestError`` as ``shares`` does, and if the catalog counted none of them.
        """
        if self.patches != self.whole:
            raise RequestError(f"{self.url}: statistics are counted of the newest version only")
        return self._beside.statistics(modality, self.modalities[modality])

    @property
    def _beside(self) -> Beside:
        options = self.store.options if isinstance(self.store, ObjectStore) else None
        certified = self.certificate
        return Beside(target_of(self.url, options=options).stac, self.url, f"{certified['hash']}:{certified['pixels']}")

    def disk_cache(self, folder: str | Path, limit: int) -> DiskCache | None:
        """Return what keeps tiles of this cube in a folder; None where the cube itself lies on a disk.

        A cube that has grown is another one: what was kept of the earlier is not taken for it.
        """
        certified = self.certificate
        return None if self.store.near else DiskCache(folder, f"{self.url} {certified['hash']}:{certified['pixels']}", limit)

    def reader(self, modality: str, cache: TileCache | None = None, disk: DiskCache | None = None) -> PixelReader:
        """Return what reads the pixels of a modality."""
        spec = self.specs[modality]
        layout = tile_layout(spec, self.attributes["cube"]["saturated"].get(modality))
        present = self._certified("present")
        return PixelReader(self.store, spec, layout, cache, Presence(present, list(self.modalities).index(modality)), disk)

    def _certified(self, name: str) -> Certified:
        spec = self.specs[name]
        if spec.dimensions[0] == "patch":
            spec = replace(spec, shape=(self.whole, *spec.shape[1:]))
        return Certified(self.store, spec, self.certificate["arrays"].get(name))


def read_root(
    url: str, options: Mapping[str, Any] | None = None, expect: str | None = None, version: int | None = None
) -> Root:
    """Read the root document of a cube, given by its own URL or that of a STAC document or catalog that lists it.

    ``expect`` is the digest of the root, or of the ``version`` that is asked for, as it was noted before. Raises
    ``FileNotFoundError`` if nothing is there, ``RequestError`` for a STAC document without a Zarr asset, ``CorruptError`` for a
    root document that is damaged or not the expected one.
    """
    url = str(url).rstrip("/")
    if url.endswith(".json") and not url.endswith(f"/{ROOT}"):
        url = _asset(url, options)
    elif url.endswith(".stac"):
        url = _asset(f"{url}/{COLLECTION}", options)
    url = url.removesuffix(f"/{ROOT}")
    store = open_store(url, options=options)
    read = partial(store.read, ROOT)
    root = Root(url, store, undamaged(partial(_parsed, url), read(), read))
    if expect is not None:
        require_expected(url, root.document, expect, version)
    return root


def _parsed(url: str, data: bytes) -> Any:
    """Parse a root document. Raises ``CorruptError`` for one of this package that is not what was sealed."""
    try:
        document = parse_object(data)
    except ValueError as error:
        raise CorruptError(f"{url}/{ROOT} is damaged ({error})") from None
    if _known(document) and not sealed(data):
        raise CorruptError(f"{url}/{ROOT} is not what was sealed: `cube verify` tells more, or open it with xr.open_zarr")
    return document


def opened_cube(root: Root, version: int | None = None) -> OpenedCube | None:
    """Return the cube, or its earlier ``version``; None for a Zarr group that is none of this package's.

    Raises ``CorruptError`` for a cube whose root document is not as the format has it, whoever sealed it.
    """
    if not _known(root.document):
        return None
    modalities = root.document["attributes"]["cube"].get("modalities")
    pixels = set(modalities) if isinstance(modalities, dict) else set()
    arrays = {path: item for path, item in root.listed.items() if item.get("node_type") == "array"}
    if not all(is_own(item, pixels=path in pixels) for path, item in arrays.items() if "/" not in path):
        return None  # somebody wrote its arrays anew
    if any(item.get("zarr_format") != 3 for item in root.listed.values()):
        return None
    specs = {path: spec for path, spec in read_specs(root.document, root.url).items() if "/" not in path}
    attributes = root.document["attributes"]
    whole = specs["patch"].shape[0]
    facts = attributes["cube"]
    if version is not None and version != len(facts.get("versions", [])) + 1:
        attributes, specs = as_it_was(root.url, attributes, specs, version)
    return OpenedCube(root.url, root.store, specs, attributes, whole, facts["certificate"])


def _known(document: Mapping[str, Any]) -> bool:
    """Tell whether a root document is of a format that this version reads."""
    attributes = document.get("attributes")
    facts = attributes.get("cube") if isinstance(attributes, Mapping) else None
    known = str(facts.get("format", "")) if isinstance(facts, Mapping) else ""  # others may call something "cube", too
    return known.partition(".")[0] == FORMAT.partition(".")[0]


def open_certified(
    url: str, options: Mapping[str, Any] | None = None, expect: str | None = None, version: int | None = None
) -> OpenedCube:
    """Open a cube of this package. Raises ``RequestError`` for any other Zarr group, and as ``read_root`` does."""
    source = opened_cube(read_root(url, options, expect, version), version)
    if source is None:
        raise RequestError(f"{url} is no cube of this package; try xr.open_zarr")
    return source


def _asset(url: str, options: Mapping[str, Any] | None) -> str:
    """Return where the Zarr asset of a STAC document lies."""
    folder, _, name = url.rpartition("/")
    document = require_object(open_store(folder or ".", options=options).read(name), url)
    if said := misshapen_stac(document):
        raise CorruptError(f"{url} is no STAC document: {said}")
    for asset in document.get("assets", {}).values():
        if str(asset.get("type", "")).startswith("application/vnd.zarr"):
            return resolved(url, asset["href"])
    raise RequestError(
        f"{url} lists no Zarr asset; expected an asset of type application/vnd.zarr, as the collection.json beside a cube has"
    )


def resolved(url: str, href: str) -> str:
    """Return the path or URL that an href in the document at ``url`` leads to."""
    if "://" in href or href.startswith("/"):
        return href
    folder = url.rpartition("/")[0] or "."
    if is_local(url):
        return posixpath.normpath(f"{folder}/{href}")
    scheme, _, rest = folder.partition("://")  # urljoin knows http, not s3
    return f"{scheme}://{urljoin(f'http://{rest}/', href).removeprefix('http://')}"
