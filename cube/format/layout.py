"""Which arrays a cube has: pixels, per-patch labels, constants and the originals' headers. Pure.

``docs/format.md`` is the published form of what this module decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cube.format.arrays import ArraySpec
from cube.format.defects import DEFECTS
from cube.format.originals import KEPT, ORIGINALS
from cube.format.tiles import DIGEST_SIZE, TileLayout

if TYPE_CHECKING:
    from cube.recipes.recipe import Recipe
    from cube.recipes.sections import Band, Label

NO_DAY = -(2**31)
"""Stands for a day that nothing tells."""
CLASS_NAMES = "class_names"
"""Attribute of a label of several classes: the names of its bits."""
DAYS = "days since 2000-01-01"
"""Units of labels that are dates."""
FORMAT = "1.4"
"""Version of the format on disk."""


def tile_layouts(recipe: Recipe) -> dict[str, TileLayout]:
    """Return how each modality is cut and encoded under the recipe's profile."""
    layouts = {}
    for name, modality in recipe.modalities.items():
        codec = recipe.codec(name, recipe.layout.profile)
        layouts[name] = TileLayout(
            size=recipe.side(name),
            tile=recipe.tile(name),
            bands=len(modality.bands),
            dtype=modality.numpy_dtype.str.replace("|", "<"),
            slots=recipe.layout.shard,
            codec=codec.name,
            level=codec.level,
            shuffle=codec.shuffle,
            block=codec.block,
            saturated=modality.saturated,
        )
    return layouts


def spatial(size: int, most: int) -> tuple[str, str]:
    """Return the names of rows and columns of images of ``size`` pixels, in a cube whose largest have ``most``."""
    return ("y", "x") if size == most else (f"y_{size}", f"x_{size}")


def tile_layout(spec: ArraySpec, saturated: float | None) -> TileLayout:
    """Return the tile layout of a sharded array."""
    assert spec.inner is not None
    return TileLayout(
        size=spec.shape[-1],
        tile=spec.inner[-1],
        bands=spec.shape[1],
        dtype=spec.dtype.replace("|", "<"),
        slots=spec.chunks[0],
        codec=spec.codec,
        level=spec.level,
        shuffle=spec.shuffle,
        block=spec.block,
        saturated=saturated,
    )


def pixel_arrays(recipe: Recipe, patches: int) -> list[ArraySpec]:
    """Return one sharded array (patch, band, y, x) per modality."""
    specs = []
    for name, layout in tile_layouts(recipe).items():
        modality = recipe.modalities[name]
        attributes: dict[str, Any] = {"long_name": modality.title, "units": modality.units}
        if modality.scale is not None:
            attributes["raster_scale"] = modality.scale
        if legends := {band.name: f"{band.legend}_code" for band in modality.bands if band.legend}:
            attributes["band_legends"] = legends
        specs.append(
            ArraySpec(
                path=name,
                shape=(patches, layout.bands, layout.size, layout.size),
                chunks=(layout.slots, layout.bands, layout.size, layout.size),
                inner=(1, layout.bands, layout.tile, layout.tile),
                dtype=layout.dtype,
                dimensions=("patch", f"{name}_band", *spatial(layout.size, recipe.patch.size)),
                fill=modality.fill,
                codec=layout.codec,
                level=layout.level,
                shuffle=layout.shuffle,
                block=layout.block,
                attributes=attributes,
            )
        )
    return specs


def label_arrays(recipe: Recipe, patches: int) -> list[ArraySpec]:
    """Return the per-patch coordinates."""
    kinds = len(recipe.modalities)
    specs = [
        label_spec(recipe, patches, "patch", f"<U{recipe.patch.id_length}", "unique id of the patch", fill=""),
        label_spec(recipe, patches, "season", _text(recipe.seasons), "season", fill=""),
        label_spec(recipe, patches, "scene", "<i4", "scene number, unique within a season only"),
        label_spec(recipe, patches, "number", "<i4", "patch number within the scene, as in the file names"),
    ]
    specs += [_ownlabel_spec(recipe, patches, name, label) for name, label in recipe.labels.items()]
    if recipe.splits is not None:
        names = (recipe.splits.otherwise, *recipe.splits.scenes)
        specs.append(label_spec(recipe, patches, "split", _text(names), "official split", fill=""))
    if recipe.source.georeference == "file":
        affine = "x = a·column + b·row + c, y = d·column + e·row + f at pixel corners; a b c d e f in CRS units"
        specs += [
            label_spec(recipe, patches, "epsg", "<i4", "EPSG code of the patch's CRS; 0 where it has none"),
            label_spec(recipe, patches, "transform", "<f8", affine, ("affine", 6), fill="nan"),
            label_spec(recipe, patches, "lon", "<f8", "longitude of the patch's centre", fill="nan", units="degrees_east"),
            label_spec(recipe, patches, "lat", "<f8", "latitude of the patch's centre", fill="nan", units="degrees_north"),
        ]
    per_kind = ("modality", kinds)
    specs.append(label_spec(recipe, patches, "present", "|b1", "whether the patch has this modality", per_kind, fill=False))
    flags = {"flag_values": list(range(len(KEPT))), "flag_meanings": " ".join(KEPT)}
    specs.append(label_spec(recipe, patches, "kept", "|u1", "what comes back of the source file", per_kind, flags=flags))
    for name in ("nan", "zero", "saturated"):
        text = f"{name} pixels, over all bands"
        specs.append(label_spec(recipe, patches, f"{name}_count", "<i4", text, per_kind))
    specs += [label_spec(recipe, patches, name, "<i4", text) for name, text in DEFECTS.items()]
    text = "BLAKE3 of the patch's pixels, see the format's description"
    specs.append(label_spec(recipe, patches, "digest", "|u1", text, per_kind, ("digest_byte", DIGEST_SIZE)))
    return specs


def _ownlabel_spec(recipe: Recipe, patches: int, name: str, label: Label) -> ArraySpec:
    """Return a label that the recipe names; dates are days, as CF has them, of which xarray makes dates."""
    rest: dict[str, Any] = {"units": label.units} if label.units else {}
    if label.type == "date":
        rest = {"units": DAYS, "flags": {"_FillValue": NO_DAY}}
    if label.type == "classes":
        names = list(dict.fromkeys(label.classes.values()))
        masks = {"flag_masks": [1 << place for place in range(len(names))], "flag_meanings": " ".join(map(class_word, names))}
        rest |= {"flags": {**masks, CLASS_NAMES: names}}
    fill: Any = {"text": "", "class": "", "number": "nan", "date": NO_DAY}.get(label.type, 0)
    return label_spec(recipe, patches, name, label.dtype, label.description or name, fill=fill, **rest)


def as_dates(days: NDArray[Any]) -> NDArray[np.datetime64]:
    """Return the values of a label that is a date as NumPy dates, NaT where there is none."""
    dates = np.datetime64(DAYS.rpartition(" ")[2], "D") + days.astype("timedelta64[D]")
    return np.asarray(np.where(days == NO_DAY, np.datetime64("NaT", "D"), dates))


def as_texts(masks: NDArray[Any], names: Sequence[str]) -> NDArray[Any]:
    """Return the values of a label of several classes as texts, the names of its bits with semicolons between them."""
    known, places = np.unique(masks, return_inverse=True)
    texts = ["; ".join(name for place, name in enumerate(names) if mask >> place & 1) for mask in known.tolist()]
    return np.array(texts, object)[places]


def meant(label: Label, values: NDArray[Any]) -> NDArray[Any]:
    """Return what the values of a label of a recipe mean: dates, and the names of classes."""
    if label.type == "date":
        return as_dates(values)
    return as_texts(values, list(dict.fromkeys(label.classes.values()))) if label.type == "classes" else values


def meanings(specs: Iterable[ArraySpec]) -> dict[str, Callable[[NDArray[Any]], NDArray[Any]]]:
    """Return for the labels whose values stand for others what makes those of them: dates, and the names of classes."""
    specs = [spec for spec in specs if spec.dimensions == ("patch",)]
    names = {spec.path: spec.attributes[CLASS_NAMES] for spec in specs if CLASS_NAMES in spec.attributes}
    return {**dict.fromkeys(dated(specs), as_dates), **{name: partial(as_texts, names=of) for name, of in names.items()}}


def dated(specs: Iterable[ArraySpec]) -> set[str]:
    """Return the labels that are dates."""
    return {spec.path for spec in specs if spec.attributes.get("units") == DAYS and spec.dimensions == ("patch",)}


def constant_arrays(recipe: Recipe) -> list[tuple[ArraySpec, NDArray[Any]]]:
    """Return the coordinates that do not vary by patch, with their values: bands, wavelengths, legends."""
    made = [constant("modality", ("modality",), list(recipe.modalities), "kind of image")]
    for name, modality in recipe.modalities.items():
        dimension = f"{name}_band"
        made.append(constant(dimension, (dimension,), [band.name for band in modality.bands], "band"))
        made += _band_facts(name, dimension, modality.bands)
    for name, classes in recipe.legends.items():
        dimension = f"{name}_class"
        flags = {
            "flag_values": [item.value for item in classes],
            "flag_meanings": " ".join(class_word(item.name) for item in classes),
        }
        codes = np.array([item.value for item in classes], np.int32)
        made.append(constant(f"{name}_code", (dimension,), codes, f"class codes of {name}", flags))
        made.append(constant(f"{name}_name", (dimension,), [c.name for c in classes], f"class names of {name}"))
        colors = [f"#{item.color}" for item in classes]
        made.append(constant(f"{name}_color", (dimension,), colors, f"class colours of {name}"))
        if any(item.group for item in classes):
            groups = [item.group or "" for item in classes]
            made.append(constant(f"{name}_group", (dimension,), groups, f"wider classes of {name}"))
    return made


def original_arrays(recipe: Recipe, patches: int) -> list[ArraySpec]:
    """Return the arrays of the group that lets the source files be given back."""
    kinds, layout = len(recipe.modalities), recipe.layout

    def spec(name: str, dtype: str, text: str, *more: tuple[str, int], **rest: Any) -> ArraySpec:
        return label_spec(recipe, patches, f"{ORIGINALS}/{name}", dtype, text, ("modality", kinds), *more, **rest)

    plain = {"shuffle": "noshuffle"}
    header = spec(
        "header",
        "|u1",
        "what is kept of the file besides its pixels (see kept), padded with zeros",
        ("header_byte", layout.header_bytes),
        chunk=layout.shard,
        **plain,
    )
    return [
        header,
        spec("header_size", "<i4", "bytes of it; -1 where there is no file", fill=-1),
        spec("pixel_start", "<i8", "offset of the pixels; -1 where header and pixels do not rebuild the file", fill=-1),
        spec("size", "<i8", "bytes of the file; -1 where there is no file", fill=-1),
        spec("digest", "|u1", "BLAKE3 of what is kept", ("digest_byte", DIGEST_SIZE), **plain),
        spec("path", "|u1", "path in the source, UTF-8, padded with zeros", ("path_byte", layout.path_bytes), **plain),
    ]


def all_arrays(recipe: Recipe, patches: int) -> list[ArraySpec]:
    """Return every array of a cube of so many patches."""
    constants = [spec for spec, _ in constant_arrays(recipe)]
    labels, originals = label_arrays(recipe, patches), original_arrays(recipe, patches)
    return [*pixel_arrays(recipe, patches), *labels, *constants, *originals]


def label_spec(
    recipe: Recipe, patches: int, path: str, dtype: str, text: str, *more: tuple[str, int], **rest: Any
) -> ArraySpec:
    """Return a per-patch array."""
    attributes = {"long_name": text, **({"units": rest.pop("units")} if "units" in rest else {}), **rest.pop("flags", {})}
    chunk = rest.pop("chunk", recipe.layout.labels)
    return ArraySpec(
        path=path,
        shape=(patches, *(length for _, length in more)),
        chunks=(chunk, *(length for _, length in more)),
        dtype=dtype,
        dimensions=("patch", *(name for name, _ in more)),
        attributes=attributes,
        **rest,
    )


def _band_facts(name: str, dimension: str, bands: tuple[Band, ...]) -> Iterable[tuple[ArraySpec, NDArray[Any]]]:
    if any(band.common_name for band in bands):
        names = [band.common_name or "" for band in bands]
        yield constant(f"{name}_common_name", (dimension,), names, "common name of the band (STAC eo)")
    if any(band.center_wavelength for band in bands):
        waves = np.array([band.center_wavelength or np.nan for band in bands], np.float64)
        yield constant(f"{name}_wavelength", (dimension,), waves, "centre wavelength", {"units": "um"})


def constant(
    path: str, dimensions: tuple[str, ...], values: Any, text: str, attributes: dict[str, Any] | None = None
) -> tuple[ArraySpec, NDArray[Any]]:
    """Return an array that does not vary by patch, with its values."""
    array = np.asarray(values)
    dtype = array.dtype.newbyteorder("<").str
    fill = {"U": "", "f": "nan"}.get(array.dtype.kind, 0)
    spec = ArraySpec(
        path=path,
        shape=array.shape,
        chunks=array.shape,
        dtype=dtype,
        dimensions=dimensions,
        fill=fill,
        attributes={"long_name": text, **(attributes or {})},
    )
    return spec, array.astype(dtype)


def _text(words: Iterable[str]) -> str:
    return f"<U{max(len(word) for word in words)}"


def class_word(name: str) -> str:
    """Return a class name as one word, as CF flag meanings and the STAC classification extension want it."""
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_").lower()
