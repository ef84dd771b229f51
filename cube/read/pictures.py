"""Pictures of a cube, a scene or a patch: ``dataset.cube.rgb()``, ``.sar()``, ``.classes(band)``, ``.plot()``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cube.errors import RequestError

COLORS = ("red", "green", "blue")
STRETCH = (2.0, 98.0)
"""Percentiles that become black and white."""
DECIBELS = (-25.0, 0.0)
"""Backscatter that becomes black and white."""
_INCHES = 4.5
"""Side of one picture."""
_MOST_CLASSES = 24
"""Classes a legend has room for."""


@xr.register_dataset_accessor("cube")  # type: ignore[no-untyped-call]
class Pictures:
    """Pictures of a dataset that ``open_cube``, ``open_scene`` or ``open_patch`` gave, or of a selection of it.

    All are (…, y, x, rgb), float32 from 0 to 1, with the coordinates of the pixels; what has no pixel is NaN, white in a plot.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def rgb(self, modality: str | None = None, *, percentiles: tuple[float, float] = STRETCH) -> xr.DataArray:
        """Return true colour from the bands whose common names are red, green and blue.

        All three are stretched alike, linearly: what lies at or below the first percentile of all three over the whole
        selection becomes 0, at or above the second 1. Fill values of images that are absent do not count. Raises
        ``RequestError`` if no modality (or not this one) has the three bands.
        """
        name = modality or self._first(lambda found: set(COLORS) <= set(self._common_names(found)), "bands red, green, blue")
        common = self._common_names(name)
        if missing := [color for color in COLORS if color not in common]:
            raise RequestError(f"{name} has no band with the common name {', '.join(missing)}")
        values = self._known(name, [common.index(color) for color in COLORS])
        return _colored(_stretched(values, percentiles))

    def sar(self, modality: str | None = None, *, limits: tuple[float, float] = DECIBELS) -> xr.DataArray:
        """Return radar as false colour: VV, VH, and VV - VH.

        VV and VH go from ``limits`` in dB (0 and 1), the difference from 0 dB to the width of ``limits``. A modality of one
        band is grey: 8-bit values are divided by 255, dB go from ``limits``. Raises ``RequestError`` if no modality has a band
        VV, or if one of two bands is not in dB.
        """
        name = modality or self._first(lambda found: "VV" in self._bands(found), "band VV")
        array, bands = self._array(name), self._bands(name)
        if "VV" not in bands:
            raise RequestError(f"{name} has no band VV; it has {', '.join(bands)}")
        low, high = limits
        decibels = array.attrs.get("units") == "dB"
        if not decibels and (array.dtype != np.uint8 or "VH" in bands):
            raise RequestError(f"{name} is in {array.attrs.get('units')!r}, {array.dtype}: expected dB, or one band of 8 bits")
        vv = self._known(name, [bands.index("VV")])
        if "VH" not in bands:
            grey = (vv - low) / (high - low) if decibels else vv / np.float32(255)
            return _colored(xr.concat([grey.clip(0, 1)] * 3, vv.dims[-3], coords="minimal", compat="override"))
        both = self._known(name, [bands.index("VV"), bands.index("VH")])
        vv, vh = both.isel({both.dims[-3]: [0]}), both.isel({both.dims[-3]: [1]})
        scaled = [(vv - low) / (high - low), (vh - low) / (high - low), (vv - vh.values) / (high - low)]
        whole = xr.concat(scaled, both.dims[-3], coords="minimal", compat="override", join="override")
        return _colored(whole.clip(0, 1))

    def classes(self, band: str, *, modality: str | None = None) -> xr.DataArray:
        """Return one band of land cover in the colours of its legend; codes that the legend does not know are NaN.

        Raises ``RequestError`` if no band of this name has a legend.
        """
        name = modality or self._first(lambda found: band in self._legends(found), f"band {band!r} with a legend")
        if band not in self._legends(name):
            raise RequestError(f"{name} has no band {band!r} with a legend; it has {', '.join(self._legends(name))}")
        legend = self._legend(name, band)
        values = self._known(name, [self._bands(name).index(band)]).isel({f"{name}_band": 0}, drop=True)
        table = np.full((int(max(legend.codes)) + 2, 3), np.nan, np.float32)
        table[legend.codes] = legend.colors
        codes = values.values
        known = np.isfinite(codes) & (codes <= max(legend.codes))
        colored = table[np.where(known, codes, len(table) - 1).astype(int)]
        coords = {key: item for key, item in values.coords.items() if set(item.dims) <= set(values.dims)}
        return xr.DataArray(colored, {**coords, "rgb": list(COLORS)}, (*values.dims, "rgb"))

    def plot(self, patch: str | None = None) -> Any:
        """Draw the modalities side by side, land cover with a legend; return the matplotlib figure.

        A cube needs the id of a patch. A modality that this patch lacks is not drawn. Needs the extra ``plot``. Raises
        ``RequestError`` if the dataset has several patches and none is named, or if nothing can be drawn.
        """
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra

        one = Pictures(self._one(patch))
        pictures = one._pictures()
        if not pictures:
            raise RequestError("no modality has pixels here that can be drawn")
        figure = Figure(figsize=(_INCHES * len(pictures), _INCHES + 1), layout="constrained")
        panels = figure.subplots(1, len(pictures), squeeze=False)[0]
        for panel, picture in zip(panels, pictures, strict=True):
            _draw(panel, picture)
            if picture.legend is not None:
                _add_legend(figure, panel, picture.legend)
        figure.suptitle(one._title())
        return figure

    def _one(self, patch: str | None) -> xr.Dataset:
        if patch is not None:
            ids = self._dataset["patch"].values.reshape(-1) if "patch" in self._dataset.coords else np.array([])
            if patch not in ids:
                raise RequestError(f"there is no patch {patch!r} among these {len(ids):,}")
            found = int(np.flatnonzero(ids == patch)[0])
            return self._dataset.isel(patch=found) if "patch" in self._dataset.dims else self._dataset
        if "patch" in self._dataset.dims:
            raise RequestError(f"there are {self._dataset.sizes['patch']:,} patches: name one, as in .cube.plot(patch=…)")
        return self._dataset

    def _pictures(self) -> list[_Picture]:
        found = []
        for name in (str(name) for name in self._dataset.data_vars):
            array = self._array(name)
            if f"{name}_band" not in array.dims or not self._has_pixels(name):
                continue
            title = str(array.attrs.get("long_name", name))
            if set(COLORS) <= set(self._common_names(name)):
                found.append(_Picture(name, title, self.rgb(name)))
            elif "VV" in self._bands(name):
                found.append(_Picture(name, title, self.sar(name)))
            elif legends := self._legends(name):
                band = next(iter(legends))
                legend = self._legend(name, band)
                codes = self._known(name, [self._bands(name).index(band)]).values
                there = np.isin(legend.codes, codes)
                found.append(_Picture(name, f"{title}: {band}", self.classes(band, modality=name), legend.only(there)))
        return found

    def _title(self) -> str:
        if "patch" in self._dataset.coords:
            return str(self._dataset["patch"].values)
        names = [str(self._dataset[name].values) for name in ("season", "scene") if name in self._dataset.coords]
        return " ".join(names)

    def _array(self, name: str) -> xr.DataArray:
        if name not in self._dataset.data_vars:
            raise RequestError(f"there is no modality {name!r}; there are {', '.join(map(str, self._dataset.data_vars))}")
        return self._dataset[name]

    def _first(self, fits: Any, wanted: str) -> str:
        for name in (str(name) for name in self._dataset.data_vars):
            if f"{name}_band" in self._array(name).dims and fits(name):
                return name
        raise RequestError(f"no modality has {wanted}; there are {', '.join(map(str, self._dataset.data_vars))}")

    def _bands(self, name: str) -> list[str]:
        return [str(band) for band in self._array(name)[f"{name}_band"].values.reshape(-1)]

    def _common_names(self, name: str) -> list[str]:
        found = self._array(name).coords.get(f"{name}_common_name")
        return [] if found is None else [str(word) for word in found.values.reshape(-1)]

    def _legends(self, name: str) -> Mapping[str, str]:
        """Return band → its code array, of the bands there are."""
        legends: Mapping[str, str] = self._array(name).attrs.get("band_legends", {})
        return {band: code for band, code in legends.items() if band in self._bands(name) and code in self._dataset.coords}

    def _legend(self, name: str, band: str) -> _Legend:
        stem = self._legends(name)[band].removesuffix("_code")
        codes, names, colors = (self._dataset[f"{stem}_{part}"].values for part in ("code", "name", "color"))
        rgb = [[part / 255 for part in bytes.fromhex(str(color).removeprefix("#"))] for color in colors]
        return _Legend(codes.astype(int), tuple(map(str, names)), np.array(rgb, np.float32))

    def _known(self, name: str, bands: list[int]) -> xr.DataArray:
        """Return some bands (…, band, y, x) as float32, NaN where there is no pixel."""
        array = self._array(name).isel({f"{name}_band": bands}).astype(np.float32)
        if f"{name}_covered" in array.coords:
            return array.where(array[f"{name}_covered"])
        present = self._present(name)
        return array if present is None else array.where(present)

    def _present(self, name: str) -> xr.DataArray | None:
        if not {"present", "modality"} <= self._dataset.coords.keys():
            return None
        kinds = self._dataset["modality"].values.tolist()
        return self._dataset["present"].isel(modality=kinds.index(name), drop=True).reset_coords(drop=True)

    def _has_pixels(self, name: str) -> bool:
        covered = self._dataset.coords.get(f"{name}_covered")
        found = self._present(name) if covered is None else covered
        return found is None or bool(found.values.any())


@dataclass(frozen=True)
class _Legend:
    codes: NDArray[np.int64]
    names: tuple[str, ...]
    colors: NDArray[np.float32]
    """(class, rgb)"""

    def only(self, kept: NDArray[np.bool_]) -> _Legend:
        names = tuple(name for name, here in zip(self.names, kept, strict=True) if here)
        return _Legend(self.codes[kept], names, self.colors[kept])


@dataclass(frozen=True)
class _Picture:
    name: str
    title: str
    pixels: xr.DataArray
    legend: _Legend | None = None


def _stretched(values: xr.DataArray, percentiles: tuple[float, float]) -> xr.DataArray:
    pixels = values.values[np.isfinite(values.values)]
    low, high = np.percentile(pixels, percentiles) if pixels.size else (0.0, 1.0)
    return ((values - np.float32(low)) / np.float32(max(high - low, 1e-6))).clip(0, 1)


def _colored(values: xr.DataArray) -> xr.DataArray:
    """Return (…, band, y, x) of three bands as (…, y, x, rgb), without what is told of bands."""
    band = values.dims[-3]
    kept = {key: item for key, item in values.coords.items() if band not in item.dims and set(item.dims) <= set(values.dims)}
    pixels = np.moveaxis(values.values, -3, -1)
    dims = (*values.dims[:-3], *values.dims[-2:], "rgb")
    return xr.DataArray(pixels, {**kept, "rgb": list(COLORS)}, dims)


def _draw(panel: Any, picture: _Picture) -> None:
    """Draw one picture between its edges in the units of its coordinates."""
    pixels = picture.pixels
    axes = [str(axis) for axis in pixels.dims if str(axis).partition("_")[0] in "xy"][::-1]
    x, y = (pixels[axis].values if axis in pixels.coords else np.arange(pixels.sizes[axis]) + 0.5 for axis in axes)
    half = [(axis[1] - axis[0]) / 2 if len(axis) > 1 else 0.5 for axis in (x, y)]
    edges = x[0] - half[0], x[-1] + half[0], y[-1] + half[1], y[0] - half[1]
    panel.imshow(np.nan_to_num(pixels.values, nan=1.0), extent=edges, interpolation="nearest")
    panel.set_title(picture.title, fontsize="small", wrap=True)
    panel.ticklabel_format(useOffset=False, style="plain")
    panel.tick_params(labelsize="x-small")
    panel.locator_params(nbins=4)
    panel.set_xlabel(_label(pixels, axes[0]), fontsize="x-small")
    panel.set_ylabel(_label(pixels, axes[1]), fontsize="x-small")


def _label(pixels: xr.DataArray, axis: str) -> str:
    """Return what an axis counts: pixels, or the units of the CRS."""
    attributes = pixels.coords[axis].attrs if axis in pixels.coords else {}
    return f"{axis} ({attributes.get('units', 'pixels')})"


def _add_legend(figure: Any, panel: Any, legend: _Legend) -> None:
    """Name the classes below the pictures."""
    shown = zip(legend.names[:_MOST_CLASSES], legend.colors.tolist(), strict=False)
    marks = [panel.plot([], [], "s", color=color, markeredgecolor="grey", label=name)[0] for name, color in shown]
    figure.legend(handles=marks, loc="outside lower right", ncols=3, fontsize="x-small", frameon=False)
