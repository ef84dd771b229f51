"""What part of each patch a class covers: a column of the table beside a cube, read alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import CorruptError, FilterError, RequestError
from cube.format.documents import require_object
from cube.query.filters import CLASS, MAIN_CLASS, class_column, is_of_classes
from cube.store.parquet import ColumnFile
from cube.store.protocol import Readable

TABLE = "items.parquet"
"""The table of all patches, in the folder of the catalog."""
FACTS = "patchcube"
"""Key of this package's own facts in the metadata of the table."""
MAIN = "patchcube:class"
"""Column of the class that covers most of a patch."""
DIGEST = "pixels_digest"
INDEX = "patchcube:index"
"""Column of the rows of patches in the cube."""
EARLIER = "earlier"
"""Digests of the pixels of earlier versions, whose patches are the first of the table."""
VALUES = "values"


def open_table(catalog: Readable) -> ColumnFile:
    """Return the table of patches in the folder of a catalog. Raises ``RequestError`` if there is none."""
    file = ColumnFile(catalog, TABLE)
    try:
        own_facts(file)
    except FileNotFoundError:
        raise RequestError(
            f"{file.url} is not there: classes and searches need the catalog beside the cube, with its table of patches"
        ) from None
    return file


def own_facts(file: ColumnFile) -> dict[str, Any]:
    """Return what this package says of a table. Raises ``CorruptError`` for any other Parquet file."""
    known = (file.schema.metadata or {}).get(FACTS.encode())
    if known is None:
        raise CorruptError(f"{file.url} is no table of patches of this package: it has no key {FACTS!r}")
    return require_object(known, f"{file.url}: what its key {FACTS!r} says")


def class_columns(file: ColumnFile) -> list[str]:
    """Return the names of the columns with classes' shares, legend after legend."""
    return [name for name in file.schema.names if name.startswith(CLASS)]


def label_fields(file: ColumnFile) -> list[str]:
    """Return the fields that are labels of patches by their classes."""
    own = [name.removeprefix(f"{FACTS}:") for name in file.schema.names if name.startswith(f"{FACTS}:")]
    return [name for name in own if is_of_classes(name) and name != MAIN_CLASS]


def _words(file: ColumnFile, column: str) -> NDArray[Any]:
    words: NDArray[Any] = file.read([column], file.groups)[column].fill_null("").to_numpy(zero_copy_only=False)
    return words.astype(str)


def read_shares(file: ColumnFile, field: str) -> NDArray[Any]:
    """Return the shares (patch) of the class that a field such as ``class:Urban`` means; NaN where there is no image.
    Of the field ``class``, the class (patch) that covers most, and of one such as ``label10`` the label; empty where there is
    none.

    Raises ``FilterError`` for a class that is unknown or may be several.
    """
    if field == MAIN_CLASS:
        return _words(file, MAIN)
    if not field.startswith(CLASS):
        if f"{FACTS}:{field}" not in file.schema.names:
            raise FilterError(
                f"unknown field {field!r}: {file.url} has {', '.join(label_fields(file)) or 'no labels by classes'}"
            )
        return _words(file, f"{FACTS}:{field}")
    column = class_column(field, class_columns(file))
    values: NDArray[np.float32] = file.read([column], file.groups)[column].to_numpy()
    return values


def read_fractions(file: ColumnFile, legend: str) -> NDArray[np.float32]:
    """Return the shares (patch, class) of a legend, class by class as the table has them; of its first where none is named.

    Raises ``RequestError`` where it has none, or not this one.
    """
    columns = class_columns(file)
    known = list(dict.fromkeys(name.split(":")[1] for name in columns))
    wanted = legend or next(iter(known), "")
    if wanted not in known:
        raise RequestError(f"{file.url} has shares of {', '.join(known) or 'no classes'}, not of {wanted or 'any'}")
    chosen = [name for name in columns if name.split(":")[1] == wanted]
    read = file.read(chosen, file.groups)
    return np.stack([read[name].to_numpy() for name in chosen], axis=1).astype(np.float32, copy=False)
