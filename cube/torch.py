"""PyTorch: one sample per patch, read where the ``DataLoader`` asks for it. Needs the extra ``torch``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch.utils.data import Dataset

from cube.reader import open_cube

_WIDER: dict[Any, Any] = {np.dtype("uint16"): np.dtype("int32"), np.dtype("uint32"): np.dtype("int64")}
"""Types PyTorch computes with in place of those it only stores."""


class PatchDataset(Dataset[dict[str, torch.Tensor]]):
    """Patches of a cube as a map-style dataset.

    A sample maps each modality to a tensor (band, y, x), in stored units and type (``uint16`` becomes ``int32``).

    ``select`` restricts the cube by its labels, as ``xarray.Dataset.sel`` does, such as ``{"split": "train"}``;
    ``modalities`` names the arrays to read, all by default. The store is opened where it is used, so that instances can
    be sent to worker processes. Raises ``KeyError`` for an unknown modality or label.
    """

    def __init__(
        self,
        url: str,
        *,
        modalities: Sequence[str] | None = None,
        select: Mapping[str, Any] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.url, self.storage_options = url, dict(storage_options or {})
        self.select = dict(select or {})
        cube = self._open()
        self.modalities = tuple(modalities or (str(name) for name in cube.data_vars))
        if unknown := [name for name in self.modalities if name not in cube.data_vars]:
            raise KeyError(f"{unknown} are no modalities of {url}; it has {list(cube.data_vars)}")
        self._length = cube.sizes["patch"]
        self._cube: xr.Dataset | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -self._length <= index < self._length:
            raise IndexError(index)
        if self._cube is None:
            self._cube = self._open()
        patch = self._cube.isel(patch=index)
        return {name: torch.from_numpy(_widened(patch[name].values)) for name in self.modalities}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cube": None}

    def _open(self) -> xr.Dataset:
        cube = open_cube(self.url, storage_options=self.storage_options)
        for name, value in self.select.items():  # xarray takes one label of a dimension at a time
            cube = cube.sel({name: value})
        return cube


def _widened(values: NDArray[Any]) -> NDArray[Any]:
    wider = _WIDER.get(values.dtype)
    return values if wider is None else values.astype(wider)
