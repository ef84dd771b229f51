"""Small arrays of a cube, read and held against what the root certifies of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from cube.errors import CorruptError
from cube.format.arrays import ArraySpec, values_digest
from cube.format.small import read_array
from cube.store.protocol import Readable

Array = NDArray[Any]


@dataclass(frozen=True)
class Certified:
    """A small array and the hash of its values that the root document certifies. Small to pickle."""

    store: Readable
    spec: ArraySpec
    digest: str | None

    def read(self) -> Array:
        """Return the values. Raises ``CorruptError`` if they are not those certified."""
        values = read_array(self.store, self.spec)
        if values_digest(values) != self.digest:
            raise CorruptError(
                f"{self.store.url}/{self.spec.path}: its values are not those certified; `cube verify` tells more"
            )
        return values


@dataclass
class Presence:
    """Whether each patch (patch) has an image of one modality; read when it is first asked, and not pickled."""

    label: Certified
    column: int
    _known: Array | None = None

    def __call__(self) -> Array:
        """Return the column of the modality."""
        if self._known is None:
            self._known = self.label.read()[:, self.column].astype(bool)
        return self._known

    def __reduce__(self) -> tuple[Any, ...]:
        return Presence, (self.label, self.column)
