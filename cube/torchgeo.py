"""SEN12MS as TorchGeo has it, from a cube: change the import and give the cube's URL as ``root``. Needs the extra ``torch``."""

from __future__ import annotations

from typing import ClassVar

from cube.train.masked import MaskedPatches

_RADAR = ("VV", "VH")
_OPTICAL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")


class SEN12MS(MaskedPatches):
    """SEN12MS with the samples, arguments and methods of ``torchgeo.datasets.SEN12MS``.

    ``split`` is ``train``, ``test`` or None for all patches; other options are those of :class:`MaskedPatches`. Patches come in
    the order of the cube, not in that of the official list. ``s2-reduced`` is blue, green, red, near infrared and both bands of
    short waves; that of TorchGeo (0.8) has the cirrus band B10 in place of B12.
    """

    BAND_SETS: ClassVar[dict[str, tuple[str, ...]]] = {
        "all": _RADAR + _OPTICAL,
        "s1": _RADAR,
        "s2-all": _OPTICAL,
        "s2-reduced": ("B02", "B03", "B04", "B08", "B11", "B12"),
    }
    band_names = _RADAR + _OPTICAL
    rgb_bands = ("B04", "B03", "B02")


__all__ = ["SEN12MS", "MaskedPatches"]
