"""Where a catalog is written, what names others last, and taken away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cube.catalog import PAGE
from cube.catalog.describe import _ITEMS, CATALOG, Catalog
from cube.catalog.overviews import OVERVIEWS, overview_path
from cube.errors import StorageError, UntrustedError
from cube.format.target import COLLECTION, Target
from cube.store.protocol import Readable, Store
from cube.survey.summary import Key
from cube.verify.report import Report

_AT_ONCE = 64
"""Files that are read together."""


def publish(catalog: Catalog, target: Target, report: Report) -> str:
    """Write a catalog, what others name first, then remove what belongs to scenes it no longer has; return its URL.

    Files that lie there already, to the byte, are not written again, so that a catalog that grows costs what is new.
    Raises ``UntrustedError``, with nothing written, unless the report is of this cube and passed; ``StorageError`` if
    writing fails.
    """
    if report.url != target.url:
        raise UntrustedError(f"{target.url} is not published: the report is about {report.url}; verify this cube")
    if not report.passed:
        first = report.findings[0]
        found = f"{len(report.findings):,} findings, the first: {first.check}: {first.where}: {first.what}"
        raise UntrustedError(f"{target.url} is not published: it did not pass its verification ({found})")
    try:
        publish_files(target.stac, _new(target.stac, list(catalog.contents())))
        kept = catalog.documents.keys() | catalog.files.keys()
        stale = {entry.key for folder in (_ITEMS, OVERVIEWS) for entry in target.stac.list(folder)} - kept
        for path in sorted(stale):
            target.stac.remove(path)
    except OSError as error:
        raise StorageError(f"{target.stac.url}: the catalog cannot be written: {error}") from error
    return f"{target.stac.url}/{COLLECTION}"


def _new(store: Store, files: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Yield the files that a store does not have yet; those that name others always."""
    sizes = {entry.key: entry.size for entry in store.list()}
    alike = [path for path, data in files if sizes.get(path) == len(data) and path not in (COLLECTION, CATALOG)]
    there: set[str] = set()
    contents = dict(files)
    for start in range(0, len(alike), _AT_ONCE):
        paths = alike[start : start + _AT_ONCE]
        there |= {path for path, data in zip(paths, store.read_many(paths), strict=True) if data == contents[path]}
    return (item for item in files if item[0] not in there)


def read_overviews(store: Readable, scenes: Iterable[Key], names: Sequence[str]) -> dict[Key, dict[str, bytes]] | None:
    """Return the pictures of scenes by modality; None where one is missing."""
    keys = [(scene, name) for scene in scenes for name in names]
    paths = [overview_path(scene, name) for scene, name in keys]
    pictures: dict[Key, dict[str, bytes]] = {}
    for (scene, name), data in zip(keys, store.read_many(paths), strict=True):
        if isinstance(data, OSError):
            return None
        pictures.setdefault(scene, {})[name] = data
    return pictures


def publish_files(store: Store, files: Iterable[tuple[str, bytes]]) -> None:
    """Write the files of a catalog in their order; the collection and the root, its last, come when the rest is secure."""
    written: list[str] = []
    for path, data in files:
        if path in (COLLECTION, CATALOG):
            store.secure(written)
            store.keep(path, data)
            written.clear()
        else:
            store.write(path, data)
            written.append(path)


def retract(target: Target) -> None:
    """Take an earlier catalog's root, collection and page away: the cube beside it is not trusted any more."""
    for path in (CATALOG, COLLECTION, PAGE):
        if target.stac.exists(path):
            target.stac.remove(path)
