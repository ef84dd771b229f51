"""A source in which every patch is odd in another way: what becomes of each stands in a table of the docs, made by this test.

``CUBE_WRITE_TABLES=1`` writes the table anew; then read what changed in it.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner
from making import MODALITIES, Made, Scene, make_patches, write_recipe
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasterio.transform import Affine

from cube.cli.main import main
from cube.format.originals import KEPT
from cube.source.rasters import read_raster
from cube.source.statements import statement_text

TABLE = Path(__file__).parents[2] / "docs" / "odd-sources.md"
SIZE = 32
LAEA, SINUSOIDAL = "+proj=laea +lat_0=48 +lon_0=10 +ellps=GRS80 +units=m", "+proj=sinu +R=6371007.181 +units=m"
LOCAL = "+proj=tmerc +lat_0=48.7 +lon_0=10.4 +k=1 +ellps=GRS80 +units=m"
HALL = 'LOCAL_CS["plan of a hall",UNIT["metre",1]]'

Change = Callable[[Path], None]


def again(*, pixels: Callable[[np.ndarray], np.ndarray] = lambda image: image, **changes: Any) -> Change:
    """Return what writes a file anew with another profile, or other pixels."""

    def change(path: Path) -> None:
        with rasterio.open(path) as image:
            whole, crs, transform = image.read(), image.crs, image.transform
        profile = {"crs": crs, "transform": transform, **changes}
        if callable(profile["transform"]):
            profile["transform"] = profile["transform"](transform)
        path.unlink()
        write(path, pixels(whole), **profile)

    return change


def tagged(**tags: str) -> Change:
    def change(path: Path) -> None:
        with rasterio.open(path, "r+") as image:
            image.update_tags(**tags)

    return change


def updated(do: Callable[[Any], None]) -> Change:
    def change(path: Path) -> None:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as image:
            do(image)

    return change


def rewritten(do: Callable[[bytes], bytes]) -> Change:
    return lambda path: void(path.write_bytes(do(path.read_bytes())))


def write(path: Path, pixels: np.ndarray, **profile: Any) -> None:
    count, height, width = pixels.shape
    settings = {"interleave": "pixel", "photometric": "MINISBLACK", **profile}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype, **settings
        ) as image:
            image.write(pixels)


def read(path: Path) -> np.ndarray:
    """Return what rasterio reads of a file alone, whatever lies beside it."""
    with warnings.catch_warnings(), rasterio.MemoryFile(path.read_bytes()) as file:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open() as image:
            return np.asarray(image.read())


def void(_: object) -> None:
    """Take what a call returns."""


def scaled(image: Any) -> None:
    image.scales, image.offsets = (1e-4,) * image.count, (-0.1,) * image.count


def described(image: Any) -> None:
    image.descriptions = tuple(f"band {number}" for number in range(image.count))


def gcps(path: Path) -> None:
    with rasterio.open(path) as image:
        pixels, crs, place = image.read(), image.crs, image.transform
    corners = [(0, 0), (0, SIZE), (SIZE, 0), (SIZE, SIZE)]
    points = [GroundControlPoint(row, column, *(place @ (column, row))) for row, column in corners]
    path.unlink()
    write(path, pixels, gcps=points, crs=crs)


def as_cog(path: Path) -> None:
    with rasterio.open(path) as image:
        pixels, kept = (
            image.read(),
            {key: image.profile[key] for key in ("crs", "transform", "count", "dtype", "width", "height")},
        )
    with rasterio.open(path.with_suffix(".cog"), "w", driver="COG", blocksize=128, **kept) as image:
        image.write(pixels)
    path.with_suffix(".cog").replace(path)


def long_overviews(path: Path) -> None:
    """Overviews as large as those of an image of 256 × 256 pixels."""
    updated(lambda image: image.build_overviews([2, 4]))(path)
    with path.open("ab") as file:
        file.write(bytes(263_431 - 21_573))


def in_format(kind: str) -> Change:
    def change(path: Path) -> None:
        Image.fromarray(np.arange(SIZE**2, dtype="uint8").reshape(SIZE, SIZE)).save(path, kind)

    return change


def in_pages(path: Path) -> None:
    pages = [Image.fromarray(np.full((SIZE, SIZE), value, "uint8")) for value in (1, 2)]
    pages[0].save(path, "TIFF", save_all=True, append_images=pages[1:])


def looped(data: bytes) -> bytes:
    """Return a file whose first directory is followed by itself."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    behind = at + 2 + 12 * count
    return data[:behind] + struct.pack("<I", at) + data[behind + 4 :]


def beside(suffix: str, data: bytes = b"more") -> Change:
    return lambda path: void(path.with_name(path.name + suffix).write_bytes(data))


def instead(make: Callable[[Path], object]) -> Change:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def linked(path: Path) -> None:
    elsewhere = path.parents[2] / "elsewhere" / path.name
    elsewhere.parent.mkdir(exist_ok=True)
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def twice(path: Path) -> None:
    other = path.parents[1] / "again" / path.name
    other.parent.mkdir(exist_ok=True)
    shutil.copy(path, other)


def twice_otherwise(path: Path) -> None:
    twice(path)
    tagged(MORE="other")(path.parents[1] / "again" / path.name)


def renamed(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


FILE: dict[str, Change] = {
    "as it should be": lambda path: None,
    "tiles of 16 × 16 pixels": again(tiled=True, blockxsize=16, blockysize=16),
    "tiles larger than the image": again(tiled=True, blockxsize=64, blockysize=64),
    "a strip for each row": again(blockysize=1),
    "bands one after another": again(interleave="band"),
    "bands one after another, deflate": again(interleave="band", compress="deflate"),
    "deflate": again(compress="deflate"),
    "deflate with a predictor": again(compress="deflate", predictor=2),
    "LZW": again(compress="lzw"),
    "Zstandard": again(compress="zstd"),
    "LZMA": again(compress="lzma"),
    "PackBits": again(compress="packbits"),
    "LERC without loss": again(compress="lerc_zstd"),
    "BigTIFF": again(BIGTIFF="YES"),
    "big-endian": again(ENDIANNESS="BIG"),
    "big-endian BigTIFF, deflate": again(ENDIANNESS="BIG", BIGTIFF="YES", compress="deflate"),
    "blocks of zeros left out of the file": again(
        pixels=np.zeros_like, SPARSE_OK="TRUE", tiled=True, blockxsize=16, blockysize=16
    ),
    "a COG": as_cog,
    "overviews in the file": updated(lambda image: image.build_overviews([2, 4])),
    "overviews of 240 kB": long_overviews,
    "overviews beside it (`.ovr`)": beside(".ovr"),
    "a mask in the file": updated(lambda image: image.write_mask(np.eye(SIZE, dtype=bool))),
    "a mask beside it (`.msk`)": beside(".msk"),
    "statistics beside it (`.aux.xml`)": beside(".aux.xml"),
    "nodata 0": again(nodata=0),
    "nodata that no pixel can be": again(nodata=65535),
    "scale and offset": updated(scaled),
    "names of bands": updated(described),
    "tags of 20 kB": tagged(HISTORY="x" * 20_000),
    "tags of 200 kB": tagged(HISTORY="x" * 200_000),
    "RPCs": again(rpcs=RPC(1, 1, 48, 1, [1.0] * 20, [1.0] * 20, 16, 16, 10, 1, [1.0] * 20, [1.0] * 20, 16, 16)),
    "no interpretation of colours": updated(lambda image: setattr(image, "colorinterp", [ColorInterp.undefined] * image.count)),
    "bytes behind the end": rewritten(lambda data: data + b"more"),
    "its directory leads to itself": rewritten(looped),
    "a link to a file elsewhere": linked,
    "the same file twice": twice,
    "two files of one name that differ": twice_otherwise,
    "`.TIF`": lambda path: renamed(path, path.stem + ".TIF"),
    "`.tiff`": lambda path: renamed(path, path.stem + ".tiff"),
    "a copy as browsers name it (`… (1).tif`)": lambda path: void(shutil.copy(path, path.with_name(f"{path.stem} (1).tif"))),
    "a download that is not finished (`.part`)": beside(".part"),
    "a hidden file of macOS (`._…`)": lambda path: void(path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")),
    "missing": instead(lambda path: None),
    "empty": rewritten(lambda data: b""),
    "cut off in its header": rewritten(lambda data: data[:100]),
    "cut off in its pixels": rewritten(lambda data: data[: len(data) // 2]),
    "a page that says 404": rewritten(lambda data: b"<!DOCTYPE html><title>404</title>"),
    "a TIFF in gzip": rewritten(lambda data: gzip.compress(data, mtime=0)),
    "a PNG of that name": in_format("PNG"),
    "a JPEG of that name": in_format("JPEG"),
    "HDF5 of that name": rewritten(lambda data: b"\x89HDF\r\n\x1a\n" + data),
    "two pages of one band": in_pages,
    "a folder of that name": instead(Path.mkdir),
    "a link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "a pipe of that name": instead(os.mkfifo),
    "another type (int16)": again(pixels=lambda image: image.astype("int16")),
    "another type (float64)": again(pixels=lambda image: image.astype("float64")),
    "complex numbers": again(pixels=lambda image: image.astype("complex64")),
    "12 bits a sample": again(pixels=lambda image: image & 0xFFF, NBITS=12),
    "a band too few": again(pixels=lambda image: image[1:]),
    "a band of opacity more": again(pixels=lambda image: np.concatenate([image, image[:1]]), alpha="YES"),
    "a row too few": again(pixels=lambda image: image[:, 1:]),
    "twice the size": again(pixels=lambda image: image.repeat(2, axis=1).repeat(2, axis=2)),
}
"""What is odd of one file of a patch."""
PLACE: dict[str, Change] = {
    "longitude and latitude": again(crs="EPSG:4326", transform=Affine(1e-4, 0, 10, 0, -1e-4, 48)),
    "ETRS89-LAEA by its code": again(crs="EPSG:3035", transform=Affine(10, 0, 4.3e6, 0, -10, 2.8e6)),
    "an azimuthal projection without a code": again(crs=LAEA),
    "the sinusoidal projection of MODIS": again(crs=SINUSOIDAL),
    "a transverse Mercator of its own": again(crs=LOCAL, transform=Affine(10, 0, 100, 0, -10, 200)),
    "the same, deflate": again(crs=LOCAL, transform=Affine(10, 0, 100, 0, -10, 200), compress="deflate"),
    "with a height above sea (compound)": again(crs="EPSG:32632+5773"),
    "a plan without a place on Earth": again(crs=HALL),
    "no CRS": again(crs=None),
    "no transform": again(transform=None),
    "rotated by 30°": again(transform=lambda place: place @ Affine.rotation(30)),
    "south up": again(transform=lambda place: place @ Affine.translation(0, SIZE) @ Affine.scale(1, -1)),
    "ground control points": gcps,
    "a pixel's centre, not its corner": updated(lambda image: image.update_tags(AREA_OR_POINT="Point")),
    "pixels of 20 m": again(transform=lambda place: place @ Affine.scale(2)),
}
"""What is odd of all files of a patch."""
APART: dict[str, Change] = {
    "one file lies 10 m beside the others": again(transform=lambda place: place @ Affine.translation(1, 0)),
    "one file in another CRS": again(crs="EPSG:32633"),
}
"""What is odd of one file of a patch against the others."""


COMES = {
    "nothing": "a gap",
    "bytes": "kept, byte for byte",
    "header": "kept, with every tag",
    "tags": "kept, with its tags",
    "pixels": "kept, pixels and place",
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, dict[str, Any], xr.Dataset]:
    """Files, what was kept of the build, and the cube."""
    folder = tmp_path_factory.mktemp("odd")
    made = make_patches(folder / "files", [Scene("spring", 7, rows=1, columns=len(FILE) + len(PLACE) + len(APART), first=0)])
    for name, change in zip(made.ids, (*FILE.values(), *PLACE.values(), *APART.values()), strict=True):
        everywhere = change in PLACE.values()
        for modality in MODALITIES if everywhere else ("s2",):
            change(made.files[name, modality])
    recipe, to = write_recipe(folder / "tiny.yaml"), folder / "x.zarr"
    words = ("build", str(recipe), "--source", str(made.folder), "--to", str(to), "--incomplete", "keep", "--workers", "0")
    result = CliRunner().invoke(main, [*words, "--max-rejected", "100%"])
    assert result.exit_code == 3, result.output
    verified = CliRunner().invoke(main, ["verify", str(to), "--source", str(made.folder), "--catalog", "--workers", "0"])
    assert verified.exit_code == 0, verified.output
    built = json.loads((folder / "x.build" / "build.json").read_text())
    return made, built, xr.open_zarr(to, chunks=None)


def found(made: Made, name: str, modality: str) -> Path:
    """Return where a file of a patch lies, by whatever suffix."""
    written = made.files[name, modality]
    return next(there for there in (written, *map(written.with_suffix, (".TIF", ".tiff"))) if there.is_file())


def outcome(made: Made, built: dict[str, Any], cube: xr.Dataset, name: str) -> str:
    """Return what came of one patch, in words."""
    stem = re.escape(Path(made.files[name, "s2"]).stem)
    mine = re.compile(rf"{re.escape(name)}$|{stem.replace('_s2_', '_(?:s1|s2|lc)_')}(?![0-9])")
    rejected = {f"*{reason}*: {detail}" for path, reason, detail in built["rejected"] if mine.search(path)}
    said = "; ".join(sorted(detail.replace(str(made.folder), "…").replace(name, "ID") for detail in rejected))
    if name not in cube["patch"].values:
        return said or "left out"
    patch = cube.isel(patch=cube["patch"].values.tolist().index(name))
    kinds = dict(zip(MODALITIES, (KEPT[value] for value in patch["kept"].values), strict=True))
    words = {
        "bytes": "kept, byte for byte",
        "header": "kept, with every tag",
        "tags": "kept, with its tags",
        "pixels": "kept, pixels and place",
    }
    parts = [words.get(kinds["s2"], "a gap")]
    if kinds["s2"] != "nothing" and (statements := read_raster(found(made, name, "s2").read_bytes()).statements):
        parts.append(f"said: {statement_text(statements)}")
    if "crs_index" in patch.coords and patch["crs_index"] >= 0:
        parts.append("its CRS by definition")
    return "; ".join([*parts, *([said] if said else [])])


def test_every_pixel_that_is_kept_is_what_rasterio_reads(odd: tuple[Made, dict[str, Any], xr.Dataset]) -> None:
    made, _, cube = odd
    kept = 0
    for row, name in enumerate(cube["patch"].values.tolist()):
        for place, modality in enumerate(MODALITIES):
            if cube["present"].values[row, place]:
                path = found(made, name, modality)
                np.testing.assert_array_equal(cube[modality][row].values, read(path))
                kept += 1
    assert kept > 2 * len(FILE)


def test_the_table_says_what_came(odd: tuple[Made, dict[str, Any], xr.Dataset]) -> None:
    made, built, cube = odd
    titles = (*FILE, *(f"all files: {title}" for title in PLACE), *APART)
    rows = [f"| {title} | {outcome(made, built, cube, name)} |" for title, name in zip(titles, made.ids, strict=True)]
    assert len(rows) >= 60
    head, _, _ = TABLE.read_text(encoding="utf-8").partition("| what is odd |")
    table = "\n".join([f"{head}| what is odd | what comes |", "|---|---|", *rows, ""])
    if os.environ.get("CUBE_WRITE_TABLES"):
        TABLE.write_text(table, encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == table
