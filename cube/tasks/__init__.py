"""What the data are used for, on NumPy alone: labels of scenes, masks, augmentation, targets, measures, clean splits.

In: arrays of batches (patch, band, y, x), shares of classes, labels. Out: arrays, labels, splits. No PyTorch, no xarray; each
function names the source of what it computes. Nothing here reads a pixel by itself.
"""

from cube.tasks.augmenting import Augmentation
from cube.tasks.labelling import mask_table, merged, several_labels, single_label
from cube.tasks.matching import Pairs, correlation, matching_pairs, search_windows, windows
from cube.tasks.measures import nrmse, psnr, spectral_angle, ssim
from cube.tasks.published import differences, read_labels, read_list
from cube.tasks.quality import q2n
from cube.tasks.scaling import color_target, scaled, standardized
from cube.tasks.splitting import Dealt, apart, blocks, deal

__all__ = [
    "Augmentation",
    "Dealt",
    "Pairs",
    "apart",
    "blocks",
    "color_target",
    "correlation",
    "deal",
    "differences",
    "mask_table",
    "matching_pairs",
    "merged",
    "nrmse",
    "psnr",
    "q2n",
    "read_labels",
    "read_list",
    "scaled",
    "search_windows",
    "several_labels",
    "single_label",
    "spectral_angle",
    "ssim",
    "standardized",
    "windows",
]
