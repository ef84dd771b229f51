"""PyTorch datasets and loaders over a cube; needs the extra ``torch``."""

from cube.train.torch import BatchDataset, BatchLoader, ImageAndMask, PatchDataset, class_shares, group_table

__all__ = ["BatchDataset", "BatchLoader", "ImageAndMask", "PatchDataset", "class_shares", "group_table"]
