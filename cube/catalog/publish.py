"""Where a catalog is written, what names others last, and taken away."""

from __future__ import annotations

from collections.abc import Iterable

from cube.catalog import PAGE
from cube.catalog.describe import _ITEMS, _OVERVIEWS, CATALOG, Catalog
from cube.errors import StorageError, UntrustedError
from cube.format.target import COLLECTION, Target
from cube.store.protocol import Store
from cube.verify.report import Report


def publish(catalog: Catalog, target: Target, report: Report) -> str:
    """Write a catalog, what others name first, then remove what belongs to scenes it no longer has; return its URL.

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
        publish_files(target.stac, catalog.contents())
        kept = catalog.documents.keys() | catalog.files.keys()
        stale = {entry.key for folder in (_ITEMS, _OVERVIEWS) for entry in target.stac.list(folder)} - kept
        for path in sorted(stale):
            target.stac.remove(path)
    except OSError as error:
        raise StorageError(f"{target.stac.url}: the catalog cannot be written: {error}") from error
    return f"{target.stac.url}/{COLLECTION}"


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
