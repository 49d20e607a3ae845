"""Scores of a trained network on a split: l1, l2, RMSE per band, SSIM and SAM, with bicubic beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dataset.card import CROSS_SENSOR, TARGET, Dataset
from ..networks.base import OUTPUT
from ..progress import Progress
from ..raster.resample import upsample
from ..similarity import ssim
from ..similarity.measure import Setup
from ..similarity.measures import whole_block
from ..similarity.pixel import Sam
from ..similarity.window import SSIM_WINDOW
from .run_card import RunCard

CHUNK = 32


def score(
    predict: Any, sets: list[dict[str, Any]], low: str, bands: list[str], progress: Progress, *, likeness: bool = False
) -> dict[str, Any]:
    """Compare a network with the targets of all patches, and bicubic upsampling too.

    Args:
        predict: from inputs by name (n, h, w, c), DN, to the output (n, h, w, bands), DN.
        sets: tensors of each dataset's split by name (arrays or lazy patches).
        low: name of the low-resolution input that belongs to the target.
        bands: names of the target's bands.
        likeness: also SSIM and SAM, which take longer.

    Returns:
        ``l1`` and ``l2`` (mean absolute and mean squared error over all pixels and bands, DN and DN²), ``rmse``
        per band and ``rmse_mean``, their mean; with ``likeness`` ``ssim`` (mean over patches and bands; its range is
        that of each dataset's targets) and ``sam`` (degrees); the same for ``bicubic``; ``patches``.
    """
    model, bicubic, patches = _Sums(len(bands)), _Sums(len(bands)), 0
    alike = {"model": _Likeness(len(bands)), "bicubic": _Likeness(len(bands))} if likeness else {}
    for arrays in sets:
        span = _span(arrays[TARGET]) if likeness else 0.0
        for start in range(0, len(arrays[TARGET]), CHUNK):
            progress.check()
            part = {name: np.asarray(array[start : start + CHUNK]) for name, array in arrays.items()}
            target = part.pop(TARGET)
            factor = target.shape[1] // part[low].shape[1]
            up = upsample(part[low].transpose(0, 3, 1, 2), factor, "bicubic").transpose(0, 2, 3, 1)
            output = np.asarray(predict(part))
            model.add(output, target)
            bicubic.add(up, target)
            for name, sums in alike.items():
                sums.add({"model": output, "bicubic": up}[name], target, span)
            patches += len(target)
    figures = {"model": model.figures(bands), "bicubic": bicubic.figures(bands)}
    for name, sums in alike.items():
        figures[name].update(sums.figures())
    return {"patches": patches, **figures["model"], "bicubic": figures["bicubic"]}


def score_test(model: Any, card: RunCard, datasets: list[Dataset], progress: Progress) -> dict[str, Any]:
    """`score` of a run's Keras model on its datasets' test splits, with SSIM and SAM for cross-sensor; else empty."""
    sets = [dataset.arrays("test") for dataset in datasets if dataset.count("test")]
    if not sets:
        return {}
    return score(
        lambda part: model.predict_on_batch(part)[OUTPUT],
        sets,
        card.tensors[-2].name,
        card.tensors[-1].bands,
        progress,
        likeness=card.task == CROSS_SENSOR,
    )


def _span(targets: Any) -> float:
    """Largest minus smallest value of a set's targets, read by parts."""
    low, high = np.inf, -np.inf
    for start in range(0, len(targets), CHUNK):
        part = np.asarray(targets[start : start + CHUNK])
        low, high = min(low, part.min()), max(high, part.max())
    return float(high - low)


class _Likeness:
    """SSIM and SAM over patches (n, h, w, bands)."""

    def __init__(self, bands: int) -> None:
        # Angles are of pixels alone, so the patches' size does not matter here.
        self.angles, self.ssim, self.patches = Sam(Setup(bands, 0, 0, data_range=1.0)), 0.0, 0

    def add(self, images: Any, targets: Any, span: float) -> None:
        for image, target in zip(images.transpose(0, 3, 1, 2), targets.transpose(0, 3, 1, 2), strict=True):
            self.angles.take(self.angles.observe(whole_block(target, image)))
            if min(target.shape[1:]) >= SSIM_WINDOW["reference"]:
                self.ssim += ssim(target, image, span).total
                self.patches += 1

    def figures(self) -> dict[str, float]:
        found = {"ssim": self.ssim / self.patches} if self.patches else {}
        return {**found, "sam": self.angles.score().total}


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


def worse_than_bicubic(test: dict[str, Any]) -> str | None:
    """The warning of a model whose figures on test patches, as of `score`, are worse than bicubic; else None."""
    if not test or test["rmse_mean"] < test["bicubic"]["rmse_mean"]:
        return None
    return (
        f"The model is worse than bicubic on the test patches (RMSE {test['rmse_mean']:.1f} and "
        f"{test['bicubic']['rmse_mean']:.1f} DN): do not use it."
    )
