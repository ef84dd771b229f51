"""What the data are used for, on NumPy alone: labels of scenes, masks, augmentation, targets, measures, clean splits.

In: arrays of batches (patch, band, y, x), shares of classes, labels. Out: arrays, labels, splits. No PyTorch, no xarray; each
function names the source of what it computes. Nothing here reads a pixel by itself.
"""

from cube.tasks.augmenting import Augmentation
from cube.tasks.labelling import mask_table, merged, several_labels, single_label
from cube.tasks.measures import nrmse, psnr, spectral_angle, ssim
from cube.tasks.scaling import color_target, scaled, standardized
from cube.tasks.splitting import Dealt, deal

__all__ = [
    "Augmentation",
    "Dealt",
    "color_target",
    "deal",
    "mask_table",
    "merged",
    "nrmse",
    "psnr",
    "scaled",
    "several_labels",
    "single_label",
    "spectral_angle",
    "ssim",
    "standardized",
]
