"""The sections of a recipe, each a strict, frozen value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from cube.recipes.patterns import compiled

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Dtype = Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
Incomplete = Literal["fail", "reject", "keep"]
CODEC = re.compile(r"(?P<name>lz4|lz4hc|zstd)-(?P<level>[1-9])(?P<bit>-bit)?(-(?P<block>[1-9]\d{0,3})k)?")
EPOCH = date(2000, 1, 1)
"""Day from which labels that are dates are counted."""
Count = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """Unknown keys and other types than those named are refused; a value cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, str_max_length=4096, allow_inf_nan=False)


class Naming(Section):
    """How the files are named and what to do when some are missing."""

    pattern: str
    """Regular expression that a file's name must match whole. Its groups name the modality, the season, the scene, the number
    of the patch (``patch``) and whatever becomes a label."""
    match: Literal["name", "path"] = "name"
    """Whether the pattern is that of a name, or of the path as far as it goes: any folders may lie above."""
    path: str = ""
    """Template of a file's path as published, made of the pattern's groups; none where empty."""
    ignore: tuple[str, ...] = ()
    """Shell patterns of paths that are known not to be data (side-cars, system files)."""
    left_out: tuple[str, ...] = ()
    """Tokens of modalities that are known and not wanted: their files are ignored."""
    exact_extensions: bool = False
    """Whether extensions must be spelled as the pattern says; otherwise ``.TIF`` and ``.tiff`` are as good as ``.tif``."""
    georeference: Literal["file", "none"]
    """``file``: every file carries a CRS and a transform. ``none``: none does."""
    incomplete: Incomplete = "reject"
    """What to do with a patch that lacks a file: stop, leave the patch out, or keep it with the gap marked."""

    @field_validator("pattern")
    @classmethod
    def _groups(cls, value: str) -> str:
        try:
            compiled(value)
        except ValueError as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


class Aliases(Section):
    """A table beside the images that says which patch is meant by another id."""

    table: str
    """Its path in the source, CSV, Parquet or GeoJSON."""
    key: str
    """Column of the other ids, made of the pattern's groups as ``patch.id`` says."""
    column: str
    """Column of the ids that the cube has."""


class Patch(Section):
    """What one patch is."""

    id: str
    """Template of the unique id, made of the pattern's groups as the file names spell them."""
    id_length: Annotated[int, Field(ge=4, le=128)]
    """Room for an id in characters; fixed, so that a cube can grow."""
    size: Annotated[int, Field(ge=1, le=8192)]
    """Height and width in pixels, of the modality with the most."""
    aliases: Aliases | None = None
    """What some files call a patch otherwise."""


class Season(Section):
    """One season, as files name it and as the calendar knows it."""

    token: str
    start: date
    end: date
    scenes: Count | None = None
    """Scenes as published."""
    patches: Count | None = None
    """Patches as published."""


class Period(Section):
    """The days that a data set without seasons is of."""

    start: date
    end: date


class Label(Section):
    """What is known of each patch besides its pixels: a group of the pattern, or what stands in a file beside the images."""

    group: str | None = None
    """The group; the one that is called as the label where None."""
    template: str = ""
    """Template made of several groups, for a label that no one group tells."""
    table: str = ""
    """Path of a table in the source, CSV, Parquet or GeoJSON, from which the label comes."""
    key: str = ""
    """Column of the table that names the patch, by its id or the name of a file."""
    column: str = ""
    """Column of the table that holds the label; the one that is called so where empty."""
    lists: Mapping[str, str] = {}
    """Value → path of a file in the source that lists the patches which have it, one a line."""
    type: Literal["text", "integer", "number", "date", "class", "classes"] = "text"
    """``class``: one of ``values``. ``classes``: any of them, several for one patch, with semicolons between them."""
    description: str = ""
    """A sentence for readers of the cube."""
    units: str | None = None
    """CF units of a number."""
    format: str = "%Y-%m-%d"
    """How files spell a date, as ``strptime`` has it."""
    length: Annotated[int, Field(ge=1, le=1024)] = 32
    """Room for a text in characters; fixed, so that a cube can grow."""
    values: tuple[str, ...] | Mapping[str, str] = ()
    """The values of a class, in the order of their codes, or as files spell them → as the label has them."""

    @property
    def dtype(self) -> str:
        """Type of its values on disk; dates are days since :data:`EPOCH`."""
        longest = max((len(name) for name in self.classes.values()), default=self.length)
        return {"integer": "<i8", "number": "<f8", "date": "<i4", "classes": "<i8"}.get(self.type, f"<U{longest}")

    @property
    def classes(self) -> dict[str, str]:
        """How files spell each class → what the label says."""
        return dict(self.values) if isinstance(self.values, Mapping) else {name: name for name in self.values}


class LegendClass(Section):
    """One class of a legend."""

    value: Annotated[int, Field(ge=-(2**31), lt=2**31)]
    name: str
    color: Annotated[str, Field(pattern=r"^[0-9a-f]{6}$")]
    group: str | None = None
    """Wider class it belongs to, in a simplified scheme; groups are numbered from 1 as they first appear."""


class Band(Section):
    """One band of a modality, in file order."""

    name: str
    common_name: str | None = None
    """Name in the STAC eo extension."""
    center_wavelength: float | None = None
    """Micrometres."""
    gsd: float | None = None
    """Metres, as sensed."""
    description: str | None = None
    legend: str | None = None
    """Name of a legend, for bands of classes."""
    token: str | None = None
    """How file names spell it, where each band is a file; its name where None."""

    @property
    def spelled(self) -> str:
        """How file names spell it."""
        return self.name if self.token is None else self.token


class Modality(Section):
    """One kind of image that every patch has: one file per patch, or one for each band, and one array in the cube."""

    token: str = ""
    """How file names spell it; needless where the pattern's group ``band`` tells it."""
    one_file_per_band: bool = False
    """Whether each band is a file of its own, told by the pattern's group ``band``."""
    size: Annotated[int, Field(ge=1, le=8192)] | None = None
    """Height and width in pixels; those of the patch where None."""
    title: str
    dtype: Dtype
    fill: int | Annotated[float, Field(allow_inf_nan=True)] | Literal["nan"]
    """What a reader sees where a patch lacks this modality; such patches are marked ``present = False``."""
    units: str
    """CF units."""
    saturated: int | float | None = None
    """Value at which the sensor or the processing saturates; counted per patch."""
    scale: float | None = None
    """Factor from stored values to physical ones, if any; never applied."""
    histogram: tuple[float, float] | None = None
    """Values between which histograms count; the whole type, or for floats 0 to 1, where None."""
    picture: tuple[float, float] | None = None
    """Values that are darkest and brightest in overviews; those of the histogram where None."""
    typical_ratio: Annotated[float, Field(gt=0)]
    """Raw bytes to stored bytes, measured on other data, for estimates made without reading a file."""
    bands: Annotated[tuple[Band, ...], Field(min_length=1, max_length=1024)]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Little-endian NumPy type of a pixel."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def histogram_range(self) -> tuple[float, float]:
        """Values between which histograms count."""
        if self.histogram is not None:
            return self.histogram
        if self.numpy_dtype.kind == "f":
            return 0.0, 1.0
        whole = np.iinfo(self.numpy_dtype)
        return float(whole.min), float(whole.max) + 1

    @property
    def picture_range(self) -> tuple[float, float]:
        """Values that are darkest and brightest in overviews."""
        return self.picture or self.histogram_range

    @field_validator("histogram", "picture")
    @classmethod
    def _rising(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"{list(value)}: expected a smaller and a larger value")
        return value


class Splits(Section):
    """The official split, by scene."""

    otherwise: str
    """Split of every scene not named below."""
    scenes: Mapping[str, tuple[str, ...]] = {}
    """Split to scenes, each as ``season/scene``."""


class Defect(Section):
    """One published defect, reported when the patch is part of a build."""

    patch: str
    """Id of the patch."""
    modality: str
    note: str


class Codec(Section):
    """One Blosc setting."""

    name: Literal["lz4", "lz4hc", "zstd"]
    level: int
    shuffle: Literal["shuffle", "bitshuffle"]
    block: int
    """Bytes that are compressed by themselves; 0 where Blosc chooses."""


class Layout(Section):
    """How the pixels lie on disk."""

    tile: Annotated[int, Field(ge=8, le=8192)]
    """Height and width of a tile in pixels: the stride at which patches overlap."""
    shard: Annotated[int, Field(ge=1, le=65536)]
    """Patches in a shard."""
    labels: Annotated[int, Field(ge=1, le=2**24)]
    """Chunk length of the per-patch coordinates; fixed, so that a cube can grow."""
    header_bytes: Annotated[int, Field(ge=64, le=2**16)]
    """Bytes of a chunk of the headers: longer ones take several."""
    path_bytes: Annotated[int, Field(ge=16, le=4096)]
    """Room for the path of one file."""
    memory_limit_mb: Annotated[int, Field(ge=64, le=2**24)]
    """Most memory one worker may need."""
    profile: str
    """Name of the default profile."""
    profiles: Mapping[str, Mapping[str, str]]
    """Profile to modality to codec, such as ``zstd-3`` or ``lz4-5-bit-64k``: codec, level, bit shuffle, KiB of a block."""

    @field_validator("profiles")
    @classmethod
    def _codecs(cls, value: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
        for profile, codecs in value.items():
            for modality, text in codecs.items():
                if not CODEC.fullmatch(text):
                    raise ValueError(
                        f"codec {text!r} of profile {profile}, modality {modality}: expected lz4, lz4hc or zstd, a level, "
                        "-bit for bit shuffle and the KiB of a block where it matters, such as zstd-3, lz4-5-bit or zstd-2-128k"
                    )
        return value
