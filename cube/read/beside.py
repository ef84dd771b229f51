"""What the catalog beside a cube knows of it: shares of classes in its table, statistics in its collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cube.errors import RequestError
from cube.format.documents import require_object
from cube.format.target import COLLECTION
from cube.store.protocol import Readable

if TYPE_CHECKING:
    from cube.store.parquet import ColumnFile

Array = NDArray[Any]

STATISTICS = ("mean", "stddev", "minimum", "maximum", "count")


@dataclass(frozen=True)
class Beside:
    """The catalog of a cube. Everything raises ``RequestError`` where it is not there or is that of another cube."""

    stac: Readable
    cube: str
    """URL of the cube."""
    pixels: str
    """Digest of its pixels."""
    unlisted: set[int] = field(default_factory=set)
    """Rows that the table has been seen not to list: others have replaced them since."""

    def shares(self, name: str) -> Array:
        """Return (patch) what a field such as ``class:Urban`` means; raises ``FilterError`` for one that is unknown."""
        from cube.query.table import read_shares

        return self._by_row(file := self._table(), read_shares(file, name))

    def fractions(self, legend: str = "") -> Array:
        """Return the shares (patch, class) of all classes of a legend."""
        from cube.query.table import read_fractions

        return self._by_row(file := self._table(), read_fractions(file, legend))

    def statistics(self, modality: str, bands: Sequence[str]) -> dict[str, Array]:
        """Return ``STATISTICS`` (band) of a modality; each piece of ground counts once."""
        where = f"{self.stac.url}/{COLLECTION}"
        try:
            found = require_object(self.stac.read(COLLECTION), where)
        except FileNotFoundError:
            raise RequestError(f"{where} is not there: statistics need the catalog beside the cube") from None
        self._require_ours(where, found.get("patchcube:pixels_digest"))
        said = _by_band(found)
        rows = [said.get(f"{modality}[{modality}_band={band}]", {}) for band in bands]
        if any(not isinstance(row.get(name), int | float) for row in rows for name in STATISTICS):
            raise RequestError(f"{where} has no statistics of {modality}")
        return {name: np.array([row[name] for row in rows]) for name in STATISTICS}

    def _by_row(self, file: ColumnFile, values: Array) -> Array:
        """Return (row, …) of all rows of the cube that the table is of, those that it does not list without a value."""
        from cube.query.table import INDEX

        rows = file.read([INDEX], file.groups)[INDEX].to_numpy()
        if len(rows) and rows[-1] == len(rows) - 1:
            return values
        fill: Any = np.nan if values.dtype.kind == "f" else ""
        every = np.full((int(rows.max(initial=-1)) + 1, *values.shape[1:]), fill, values.dtype)
        every[rows] = values
        self.unlisted.update(np.setdiff1d(np.arange(len(every)), rows).tolist())
        return every

    def _table(self) -> ColumnFile:
        from cube.query.table import DIGEST, EARLIER, open_table, own_facts

        file = open_table(self.stac)
        facts = own_facts(file)
        earlier = facts.get(EARLIER, [])
        ours = self.pixels in earlier if isinstance(earlier, list) else False
        self._require_ours(file.url, self.pixels if ours else facts[DIGEST])
        return file

    def _require_ours(self, where: str, pixels: Any) -> None:
        if pixels != self.pixels:
            raise RequestError(f"{where} is of another cube than {self.cube}: its pixels' digest is not the cube's")


def _by_band(collection: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the statistics of each band of a collection, by its name; whatever is of another shape is left out."""
    zarr = collection["assets"].get("zarr") if isinstance(collection.get("assets"), dict) else None
    bands = zarr.get("bands") if isinstance(zarr, dict) else None
    known = [band for band in bands if isinstance(band, dict)] if isinstance(bands, list) else []
    return {str(band.get("name")): band["statistics"] for band in known if isinstance(band.get("statistics"), dict)}
