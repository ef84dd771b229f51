"""Draws docs/scene.png: one scene of the demo cube, read with plain xarray, as three pictures side by side.

``cube demo`` makes the cube; then ``python docs/make_pictures.py cube-demo/demo.zarr``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SEASON, SCENE = "winter", 55
SIDE, GAP, TITLE = 420, 12, 34
"""Pixels of one picture's side, between pictures, and above them for a title."""
COLORS = 255


def draw(url: str) -> Image.Image:
    """Return the three pictures under their titles."""
    scene = xr.open_zarr(url, chunks=None).sel(season=SEASON)
    scene = scene.isel(patch=np.flatnonzero(scene.scene == SCENE))
    pictures = {
        "Sentinel-2, true colour": true_color(scene),
        "Sentinel-1, VV · VH · VV - VH": radar(scene),
        "Land cover, IGBP": land_cover(scene),
    }
    sheet = Image.new("RGB", (len(pictures) * (SIDE + GAP) - GAP, SIDE + TITLE), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for place, (title, pixels) in enumerate(pictures.items()):
        left = place * (SIDE + GAP)
        smooth = Image.Resampling.NEAREST if title.startswith("Land") else Image.Resampling.LANCZOS
        sheet.paste(Image.fromarray(pixels).resize((SIDE, SIDE), smooth), (left, TITLE))
        pen.text((left + 2, 4), title, fill="black", font=font)
    return sheet.quantize(COLORS, dither=Image.Dither.NONE)


def mosaic(scene: xr.Dataset, pixels: xr.DataArray) -> NDArray[Any]:
    """Lay the patches (patch, band, y, x) of a scene side by side, where their transforms say, as (y, x, band)."""
    transform, size = scene["transform"].values, pixels.sizes["x"]
    columns = np.rint((transform[:, 2] - transform[:, 2].min()) / transform[:, 0]).astype(int)
    rows = np.rint((transform[:, 5] - transform[:, 5].max()) / transform[:, 4]).astype(int)
    whole = np.zeros((rows.max() + size, columns.max() + size, pixels.shape[1]), pixels.dtype)
    for patch, row, column in zip(pixels.values, rows, columns, strict=True):
        whole[row : row + size, column : column + size] = patch.transpose(1, 2, 0)
    return whole


def true_color(scene: xr.Dataset) -> NDArray[np.uint8]:
    """Return red, green and blue, all stretched alike from black to near the brightest."""
    whole = mosaic(scene, scene["s2"].sel(s2_band=["B04", "B03", "B02"])).astype(float)
    return stretched(whole, 0.5 * whole.min(), np.quantile(whole, 0.999), gamma=1.1)


def radar(scene: xr.Dataset) -> NDArray[np.uint8]:
    """Return both polarisations and their difference in decibels as red, green and blue."""
    vv, vh = np.moveaxis(mosaic(scene, scene["s1"]), -1, 0)
    return stretched(np.stack([vv, vh, vv - vh], axis=-1), np.array([-23, -30, -6]), np.array([-5, -12, 22]))


def land_cover(scene: xr.Dataset) -> NDArray[np.uint8]:
    """Return the IGBP classes in the colours that the cube gives them."""
    codes = mosaic(scene, scene["lc"].sel(lc_band=["IGBP"]))[..., 0]
    table = np.zeros((256, 3), np.uint8)
    for code, color in zip(scene["IGBP_code"].values, scene["IGBP_color"].values, strict=True):
        table[code] = list(bytes.fromhex(color.removeprefix("#")))
    return table[codes]


def stretched(values: NDArray[Any], low: Any, high: Any, gamma: float = 1.0) -> NDArray[np.uint8]:
    """Return values from ``low`` to ``high`` as 0 to 255."""
    return np.rint(np.clip((values - low) / (high - low), 0, 1) ** gamma * 255).astype(np.uint8)


if __name__ == "__main__":
    picture = Path(__file__).with_name("scene.png")
    draw(sys.argv[1]).save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size:,} bytes")
