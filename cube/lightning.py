"""A data module of Lightning over a cube; needs ``lightning``."""

from cube.train.lightning import PatchDataModule

__all__ = ["PatchDataModule"]
