"""Defects of patches as labels: what may be wrong with their images, counted, so that filters can leave them out. Pure."""

from __future__ import annotations

DEFECTS = {
    "nan": "NaN pixels, over all images and bands",
    "saturated": "saturated pixels, over all images and bands",
    "constant": "bands in which every pixel has one value, of images that are no classes",
    "empty": "images in which no pixel is a number other than 0",
    "masked": "images in which the file marks pixels as no data, by a value or a mask",
    "known_defect": "1 where the data set's authors, or others, name the patch as bad",
}
"""Label (patch) → what it counts."""
SOUND = "nan=0 and constant=0 and empty=0 and known_defect=0"
"""The filter that leaves out what is no picture; saturated and masked pixels are common in good ones."""
