"""A Parquet object of which only some columns of some row groups are read, over any store, in few requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cube.errors import CorruptError, CubeError
from cube.store.protocol import Range, Readable

_TAIL = 2**18
"""Bytes read first, from the end: the footer of a table of 180,662 patches and some more."""
_GAP = 2**15
"""Bytes worth reading for nothing if that saves a request."""
_MARK = 8
"""Bytes behind the footer: its length and the letters that end every Parquet file."""


@dataclass
class ColumnFile:
    """One Parquet object. What was read of it is counted."""

    store: Readable
    key: str
    requests: int = 0
    bytes_read: int = 0
    _parts: dict[tuple[int, int], bytes] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        """Where it lies."""
        return f"{self.store.url}/{self.key}"

    @cached_property
    def metadata(self) -> Any:
        """The footer. Raises ``FileNotFoundError`` if the object is missing, ``CorruptError`` if it is no Parquet file."""
        try:
            return self._footer()
        except CorruptError:
            self._parts.clear()  # it may have been damaged only on its way
            return self._footer()

    def _footer(self) -> Any:
        tail = self._ask([Range(self.key, -_TAIL, None)])[0]
        if len(tail) < _TAIL:
            self._parts[0, len(tail)] = tail
        length = int.from_bytes(tail[-_MARK:-4], "little") + _MARK
        if length > len(tail) and tail[-4:] == b"PAR1":
            tail = self._ask([Range(self.key, -length, None)])[0]
        with self._parsing():
            return pq.read_metadata(pa.BufferReader(tail[-length:]))

    @contextmanager
    def _parsing(self) -> Iterator[None]:
        """Turn what Arrow says of a footer or a page that is none into an error that names the file."""
        try:
            yield
        except (CubeError, FileNotFoundError):
            raise
        except (ValueError, OSError, pa.ArrowException) as error:
            raise CorruptError(f"{self.url} is no Parquet file, or damaged: {error}") from None

    @cached_property
    def schema(self) -> Any:
        """The Arrow schema with its metadata. Raises ``CorruptError`` if it cannot be read."""
        with self._parsing():
            return self.metadata.schema.to_arrow_schema()

    @property
    def groups(self) -> list[int]:
        """The row groups, in order."""
        return list(range(self.metadata.num_row_groups))

    @cached_property
    def starts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The first row of each row group, and behind the last one the number of rows."""
        return np.cumsum([0, *(self.metadata.row_group(group).num_rows for group in self.groups)])

    @cached_property
    def _places(self) -> dict[str, int]:
        first = self.metadata.row_group(0) if self.groups else None
        return {first.column(place).path_in_schema: place for place in range(first.num_columns)} if first else {}

    def limits(self, path: str, group: int) -> tuple[Any, Any] | None:
        """Return the least and the greatest value of a column (a dotted path) in a row group, None where not recorded."""
        if path not in self._places:
            return None
        with self._parsing():
            statistics = self.metadata.row_group(group).column(self._places[path]).statistics
            return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None

    def read(self, columns: Sequence[str], groups: Iterable[int]) -> Any:
        """Return an Arrow table of some columns (top-level names or dotted paths) of some row groups, in order.

        Raises ``CorruptError`` if the bytes are damaged.
        """
        groups = list(groups)
        try:
            return self._table(columns, groups)
        except CorruptError:
            self._parts.clear()
            return self._table(columns, groups)

    def _table(self, columns: Sequence[str], groups: list[int]) -> Any:
        ranges = [self._range(place, group) for place in self._wanted(columns) for group in groups]
        self._fetch(ranges)
        image = np.zeros(max([stop for _, stop in ranges], default=0) + _MARK, np.uint8)
        for (start, stop), data in self._parts.items():
            image[start:stop] = np.frombuffer(data, np.uint8)[: max(0, len(image) - start)]
        with self._parsing():
            image_file = pa.BufferReader(pa.py_buffer(image))
            file = pq.ParquetFile(image_file, metadata=self.metadata, page_checksum_verification=True)
            table = file.read_row_groups(groups, columns=list(columns), use_threads=False)
            table.validate(full=True)
        return table

    def _wanted(self, columns: Sequence[str]) -> list[int]:
        return [
            place
            for path, place in self._places.items()
            if any(path == column or path.startswith(f"{column}.") for column in columns)
        ]

    def _range(self, place: int, group: int) -> tuple[int, int]:
        with self._parsing():
            chunk = self.metadata.row_group(group).column(place)
            start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
            if start < 0 or chunk.total_compressed_size < 0:
                raise ValueError(f"a column at {start:,} of {chunk.total_compressed_size:,} bytes")
        return start, start + chunk.total_compressed_size

    def _fetch(self, ranges: list[tuple[int, int]]) -> None:
        """Read what is not there yet, neighbours together."""
        missing = sorted(
            part for part in ranges if not any(start <= part[0] and part[1] <= stop for start, stop in self._parts)
        )
        joined: list[tuple[int, int]] = []
        for start, stop in missing:
            if joined and start - joined[-1][1] <= _GAP:
                joined[-1] = joined[-1][0], max(stop, joined[-1][1])
            else:
                joined.append((start, stop))
        data = self._ask([Range(self.key, start, stop) for start, stop in joined])
        for (start, stop), part in zip(joined, data, strict=True):
            if len(part) != stop - start:  # before anything is made as long as the footer says
                raise CorruptError(f"{self.url} is damaged: it ends before byte {stop:,}, where its footer has a column")
            self._parts[start, stop] = part

    def _ask(self, ranges: list[Range]) -> list[bytes]:
        found = self.store.read_ranges(ranges)
        self.requests += len(ranges)
        self.bytes_read += sum(len(data) for data in found)
        return found
