"""image-similarity-measures 0.3.6 as this folder's tests call it: bands first, warnings kept quiet.

Where the package is not installed, a test that imports this module is skipped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quality_metrics = pytest.importorskip(
        "image_similarity_measures.quality_metrics", reason="'make test-similarity' installs image-similarity-measures"
    )
    import cv2

NAMES = ("rmse", "psnr", "ssim", "fsim", "issm", "sre", "sam", "uiq")
WITH_RANGE = ("rmse", "psnr", "ssim")
"""Its functions that take the largest value."""


def package(name: str, x: np.ndarray, y: np.ndarray, data_range: float | None = None) -> float:
    """What the package gives for (bands, H, W), or for (H, W) as it is. Without a data range: its default."""
    x, y = (np.ascontiguousarray(np.moveaxis(image, 0, -1)) if image.ndim == 3 else image for image in (x, y))
    given = (data_range,) if name in WITH_RANGE and data_range is not None else ()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return float(getattr(quality_metrics, name)(x, y, *given))


@contextmanager
def wide_gradients() -> Iterator[None]:
    """Let the package hold its gradients and their squares in 64 bits instead of 16; the rest of its FSIM as it is."""

    def magnitude(image: np.ndarray, depth: int) -> np.ndarray:
        slopes = (cv2.Scharr(image.astype(np.float64), cv2.CV_64F, dx, 1 - dx) for dx in (1, 0))
        return np.hypot(*(np.rint(np.maximum(slope, 0)) for slope in slopes))

    with mock.patch.object(quality_metrics, "_gradient_magnitude", magnitude):
        yield
