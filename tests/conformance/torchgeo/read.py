"""Read patch files with TorchGeo's own class and write what it gives: ``python read.py ROOT OUT PACKAGES``.

TorchVision does not import beside a PyTorch without CUDA, as two of its operators are declared nowhere; here they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

if __name__ == "__main__":
    root, out, packages = sys.argv[1:]
    sys.path.append(packages)
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchgeo.datasets import SEN12MS

    found = {}
    for name, bands in SEN12MS.BAND_SETS.items():
        for part in ("train", "test"):
            dataset = SEN12MS(root, split=part, bands=bands)
            for place, sample in ((place, dataset[place]) for place in range(len(dataset))):
                for key, values in sample.items():
                    found[f"{name} {Path(dataset.ids[place]).stem} {key}"] = values.numpy()
    np.savez(out, **found)
    print(*(f"{name}:{','.join(bands)}" for name, bands in SEN12MS.BAND_SETS.items()), sep="\n")
