"""Batches that are put together on another device: only distinct tiles go there, once. Needs the extra ``torch``.

The pool of tiles lies on the device. Threads here decode new tiles into pinned memory; from there they are copied to their
slots on a stream of their own, gathered, cast and joined there, while the consumer still computes with an earlier batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cube.errors import RequestError
from cube.read.memory import Workspace
from cube.tasks.augmenting import MIRRORED, Changes
from cube.train.batches import Batches
from cube.train.fetching import Planned
from cube.train.pools import Modality, Output
from cube.train.sinks import Arrays, Places, Sink, shape_of

Array = NDArray[Any]
_ROUNDED = 32
"""Tiles by which pieces of pinned memory grow, so that they can be used again."""
_SIGNED: dict[str, np.dtype[Any]] = {"u2": np.dtype("i2"), "u4": np.dtype("i4"), "u8": np.dtype("i8")}
"""Types that torch only stores → types of the same size that it indexes."""
_WIDE = {"u2": (torch.int32, 0xFFFF), "u4": (torch.int64, 0xFFFF_FFFF)}
"""The same types → the type that holds their values, and the bits that these have there."""


@dataclass
class DeviceBatches(Batches):
    """Batches as tensors on a device. Options are those of ``Batches``; ``memory`` is that of the device."""

    _: KW_ONLY
    device: str = "cpu"

    def _sink(self, outputs: Sequence[Output], slots: int, workspace: Workspace) -> Sink:
        return DeviceSink(outputs, slots, torch.device(self.device), self.prefetch)


def usable(device: Any) -> str:
    """Return the name of a device. Raises ``RequestError`` for one that is not there."""
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        said = str(error).partition("\n")[0]
        raise RequestError(f"device is {device!r}: {said}; expected one that torch has here, such as 'cuda' or 'cpu'") from None
    return str(chosen)


class _Staging:
    """Memory that a device copies from, used again once it has."""

    def __init__(self, device: torch.device) -> None:
        self._pinned = device.type == "cuda"
        self._free: dict[int, list[torch.Tensor]] = {}
        self._busy: deque[tuple[Any, torch.Tensor]] = deque()

    def take(self, size: int) -> torch.Tensor:
        """Return (size) bytes."""
        while self._busy and (self._busy[0][0] is None or self._busy[0][0].query()):
            _, piece = self._busy.popleft()
            self._free.setdefault(len(piece), []).append(piece)
        free = self._free.get(size)
        return free.pop() if free else torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)

    def give_back(self, pieces: Sequence[torch.Tensor], event: Any) -> None:
        """Take pieces back once an event has come; at once where there is none."""
        self._busy.extend((event, piece) for piece in pieces)


class DeviceSink:
    """Slots on a device, and batches gathered from them there."""

    def __init__(self, outputs: Sequence[Output], slots: int, device: torch.device, prefetch: int) -> None:
        """Have so many ``slots`` for each modality."""
        self._outputs, self._device, self._prefetch = outputs, device, prefetch
        self._parts = {name: part for output in outputs for name, part in output.modalities.items()}
        self._pools = {name: self._pool(part, slots) for name, part in self._parts.items()}
        self._staging, self._pieces = _Staging(device), dict[int, list[torch.Tensor]]()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def _pool(self, part: Modality, slots: int) -> torch.Tensor:
        layout, kind = part.reader.layout, _indexed(part)
        dtype = torch.from_numpy(np.empty(0, kind)).dtype
        pool = torch.empty((slots, part.count, layout.tile, layout.tile), dtype=dtype, device=self._device)
        pool[0] = np.asarray(part.reader.fill, np.dtype(layout.dtype)).view(kind).item()
        return pool

    def may_decode(self, place: int, copied: int, taken: int) -> bool:
        """Tell whether a batch may be decoded: into memory of its own, so as far ahead as batches may wait."""
        return place <= taken + self._prefetch

    def places(self, planned: Planned) -> Places:
        """Return pinned memory."""
        places: dict[str, tuple[Array, Sequence[int]]] = {}
        pieces = self._pieces[planned.place] = []
        for name, step in planned.steps.items():
            part, count = self._parts[name], -(-len(step.tiles) // _ROUNDED) * _ROUNDED
            layout, piece = part.reader.layout, self._staging.take(count * part.tile_bytes)
            pieces.append(piece)
            tiles = piece.numpy().view(layout.dtype).reshape(count, part.count, layout.tile, layout.tile)
            places[name] = tiles, range(len(step.tiles))
        return places

    def pieces(self, planned: Planned) -> list[tuple[str, slice]]:
        """Return nothing: the device does it."""
        return []

    def arrays(self, planned: Planned) -> Arrays:
        """Return nothing: the device makes them."""
        return {}

    def copy(self, planned: Planned, arrays: Arrays, piece: tuple[str, slice]) -> None:
        """Do nothing."""

    def give(self, planned: Planned, places: Places, arrays: Arrays) -> Arrays:
        """Send the new tiles of a batch and have the batch made, all of it asynchronously; return its tensors."""
        pieces = self._pieces.pop(planned.place)
        if self._stream is None:
            made = self._made(planned, places)
            self._staging.give_back(pieces, None)
            return made
        with torch.cuda.stream(self._stream):
            made = self._made(planned, places)
            event = torch.cuda.Event()
            event.record(self._stream)
        self._staging.give_back(pieces, event)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(event)
        for tensor in made.values():
            tensor.record_stream(current)
        return made

    def _made(self, planned: Planned, places: Places) -> dict[str, torch.Tensor]:
        made = {}
        for output in self._outputs:
            shape = shape_of(output, planned.patches, planned.changes)
            made[output.name] = torch.empty(shape, dtype=_torch_type(output.dtype), device=self._device)
            for name, bands in output.parts.items():
                self._store(name, planned, places)
                images = self._gathered(name, planned)
                if planned.changes is not None:
                    images = _changed(images, planned.changes, output.size)
                made[output.name][:, bands] = images
        return made

    def _store(self, name: str, planned: Planned, places: Places) -> None:
        """Copy the new tiles of a modality to their slots."""
        step, tiles = planned.steps[name], torch.from_numpy(places[name][0].view(_indexed(self._parts[name])))
        if step.tiles:
            sent = tiles[: len(step.tiles)].to(self._device, non_blocking=True)
            self._pools[name].index_copy_(0, self._sent(step.slots), sent)

    def _gathered(self, name: str, planned: Planned) -> torch.Tensor:
        """Return the images (patch, band, y, x) of a modality, of a type that holds its values."""
        layout, gathered = self._parts[name].reader.layout, planned.steps[name].gathered
        across, tile = layout.across, layout.tile
        tiles = self._pools[name].index_select(0, self._sent(gathered.reshape(-1)))
        wide = _WIDE.get(np.dtype(layout.dtype).str[1:])
        if wide is not None:
            tiles = tiles.to(wide[0]) & wide[1]
        images = tiles.view(len(gathered), across, across, -1, tile, tile).permute(0, 3, 1, 4, 2, 5)
        return images.reshape(len(gathered), -1, layout.size, layout.size)

    def _sent(self, positions: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(positions)).to(self._device, non_blocking=True)


def _indexed(part: Modality) -> np.dtype[Any]:
    """Return the type as which torch moves the tiles of a modality."""
    dtype = np.dtype(part.reader.layout.dtype)
    return _SIGNED.get(dtype.str[1:], dtype.newbyteorder("="))


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _changed(images: torch.Tensor, changes: Changes, size: int) -> torch.Tensor:
    """Return images (patch, band, y, x) of ``size`` pixels cropped, mirrored and turned."""
    side = changes.side(size)
    out = torch.empty((*images.shape[:2], side, side), dtype=images.dtype, device=images.device)
    corners = changes.corner * size // changes.most
    for row, (turn, (top, left)) in enumerate(zip(changes.turn.tolist(), corners.tolist(), strict=True)):
        part = images[row, :, top : top + side, left : left + side]
        part = part.flip(-1) if turn >= MIRRORED else part
        out[row] = torch.rot90(part, turn % 4, (-2, -1))
    return out
