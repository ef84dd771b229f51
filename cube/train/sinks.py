"""Where decoded tiles go, and how batches are made of them: here, in the memory of this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from cube.read.memory import Workspace
from cube.tasks.augmenting import Changes
from cube.train.fetching import Planned
from cube.train.planning import AHEAD
from cube.train.pools import Output, Pool

Array = NDArray[Any]
Places = Mapping[str, tuple[Array, Sequence[int]]]
"""Modality → an array (row, band, y, x), and the row of it that each new tile of a batch is decoded into."""
Arrays = dict[str, Any]
_PIECE = 2 << 20
"""Bytes of a batch that are copied as one piece of work."""


class Sink(Protocol):
    """Takes decoded tiles and gives batches. Calls about one batch come in order; several threads copy."""

    def may_decode(self, place: int, copied: int, taken: int) -> bool:
        """Tell whether the tiles of a batch may be decoded, where so many batches are copied, and taken by the consumer."""

    def places(self, planned: Planned) -> Places:
        """Return where the new tiles of a batch are decoded into."""

    def pieces(self, planned: Planned) -> list[tuple[str, slice]]:
        """Return pieces of work to be done once a batch is decoded: an array of it, and some of its patches."""

    def arrays(self, planned: Planned) -> Arrays:
        """Return the arrays of a batch, to be filled by pieces."""

    def copy(self, planned: Planned, arrays: Arrays, piece: tuple[str, slice]) -> None:
        """Do a piece of work."""

    def give(self, planned: Planned, places: Places, arrays: Arrays) -> Arrays:
        """Return a batch that the consumer takes; called in the consumer's thread."""


class HostSink:
    """Slots and batches in the memory of this process."""

    def __init__(self, outputs: Sequence[Output], slots: int, workspace: Workspace) -> None:
        """Have so many ``slots`` for each modality."""
        self._outputs, self._workspace = {output.name: output for output in outputs}, workspace
        parts = {name: part for output in outputs for name, part in output.modalities.items()}
        self._pools = {name: Pool(part, slots, workspace.room(name, slots * part.tile_bytes)) for name, part in parts.items()}

    def may_decode(self, place: int, copied: int, taken: int) -> bool:
        """Tell whether all slots that a batch decodes into are free: batches that still use them are copied."""
        return place <= copied + AHEAD

    def places(self, planned: Planned) -> Places:
        """Return the slots that were planned."""
        return {name: (self._pools[name].tiles, step.slots.tolist()) for name, step in planned.steps.items()}

    def pieces(self, planned: Planned) -> list[tuple[str, slice]]:
        """Return some patches of some array each."""
        return [
            (name, slice(start, min(start + size, planned.patches)))
            for name, output in self._outputs.items()
            for size in [max(1, _PIECE // output.patch_bytes)]
            for start in range(0, planned.patches, size)
        ]

    def arrays(self, planned: Planned) -> Arrays:
        """Return memory that nobody holds any more."""
        return {
            name: self._workspace.recycler.empty(shape_of(output, planned.patches, planned.changes), output.dtype)
            for name, output in self._outputs.items()
        }

    def copy(self, planned: Planned, arrays: Arrays, piece: tuple[str, slice]) -> None:
        """Copy tiles from their slots to some patches."""
        name, patches = piece
        for modality, bands in self._outputs[name].parts.items():
            pool, gathered = self._pools[modality], planned.steps[modality].gathered[patches]
            out = arrays[name][patches, bands]
            if planned.changes is None:
                pool.copy(gathered, out)
            else:
                pool.place(gathered, out, planned.changes, patches.start)

    def give(self, planned: Planned, places: Places, arrays: Arrays) -> Arrays:
        """Return the arrays, which are filled."""
        return arrays


def shape_of(output: Output, patches: int, changes: Changes | None) -> tuple[int, int, int, int]:
    """Return the shape (patch, band, y, x) of an array of a batch."""
    side = output.size if changes is None else changes.side(output.size)
    return patches, output.bands, side, side
