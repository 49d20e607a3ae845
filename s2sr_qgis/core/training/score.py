"""Scores of a trained network on a split: l1, l2, RMSE per band, with bicubic beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dataset.card import TARGET
from ..progress import Progress
from ..raster.resample import upsample

CHUNK = 32


def score(predict: Any, sets: list[dict[str, Any]], low: str, bands: list[str], progress: Progress) -> dict[str, Any]:
    """Compare a network with the targets of all patches, and bicubic upsampling too.

    Args:
        predict: from inputs by name (n, h, w, c), DN, to the output (n, h, w, bands), DN.
        sets: tensors of each dataset's split by name (arrays or lazy patches).
        low: name of the low-resolution input that belongs to the target.
        bands: names of the target's bands.

    Returns:
        ``l1`` and ``l2`` (mean absolute and mean squared error over all pixels and bands, DN and DN²), ``rmse``
        per band and ``rmse_mean``, their mean; the same for ``bicubic``; ``patches``.
    """
    model, bicubic, patches = _Sums(len(bands)), _Sums(len(bands)), 0
    for arrays in sets:
        for start in range(0, len(arrays[TARGET]), CHUNK):
            progress.check()
            part = {name: np.asarray(array[start : start + CHUNK]) for name, array in arrays.items()}
            target = part.pop(TARGET)
            factor = target.shape[1] // part[low].shape[1]
            up = upsample(part[low].transpose(0, 3, 1, 2), factor, "bicubic").transpose(0, 2, 3, 1)
            model.add(np.asarray(predict(part)), target)
            bicubic.add(up, target)
            patches += len(target)
    return {"patches": patches, **model.figures(bands), "bicubic": bicubic.figures(bands)}


class _Sums:
    def __init__(self, bands: int) -> None:
        self.count = 0
        self.absolute = np.zeros(bands)
        self.squared = np.zeros(bands)

    def add(self, image: Any, target: Any) -> None:
        difference = image.astype(np.float64) - target
        self.count += difference[..., 0].size
        self.absolute += np.abs(difference).sum(axis=(0, 1, 2))
        self.squared += np.square(difference).sum(axis=(0, 1, 2))

    def figures(self, bands: list[str]) -> dict[str, Any]:
        count = max(self.count, 1)
        rmse = np.sqrt(self.squared / count)
        return {
            "l1": float(self.absolute.mean() / count),
            "l2": float(self.squared.mean() / count),
            "rmse": {band: float(value) for band, value in zip(bands, rmse, strict=True)},
            "rmse_mean": float(rmse.mean()),
        }
