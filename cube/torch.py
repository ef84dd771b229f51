"""PyTorch datasets and loaders over a cube; needs the extra ``torch``."""

from cube.train.forms import Classification, ImageAndMask, Scaled, class_shares, group_table
from cube.train.torch import BatchDataset, BatchLoader, PatchDataset

__all__ = [
    "BatchDataset",
    "BatchLoader",
    "Classification",
    "ImageAndMask",
    "PatchDataset",
    "Scaled",
    "class_shares",
    "group_table",
]
