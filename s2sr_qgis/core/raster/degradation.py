"""Degradation of an image to a coarser grid: the first step of Wald's protocol, and the model of back-projection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

TRUNCATE = 4.0
"""Where the Gaussian is cut, in sigmas (SciPy's default, which the published figures were made with)."""


def degrade(image: Float, factor: int, sigma: float | None = None, valid: Mask | None = None) -> Float:
    """Blur an image and reduce it by ``factor``: a Gaussian, then the mean of each factor × factor block.

    ``image``: float32 (..., H, W) with H and W multiples of ``factor``; edges are replicated. ``sigma``: of the
    Gaussian in pixels of the image; None: 1 / factor, as in DSen2 (Lanaras et al. 2018,
    doi:10.1016/j.isprsjprs.2018.09.018).
    ``valid``: bool (..., H, W) or (H, W); pixels outside it have no weight, and a coarse pixel that sees no valid one
    is 0. Returns float32 (..., H / factor, W / factor). Raises ValueError for a size that is not a multiple.
    """
    height, width = image.shape[-2:]
    if factor < 1 or height % factor or width % factor:
        raise ValueError(f"{height} x {width} pixels cannot be reduced by {factor}")
    sigma = 1.0 / factor if sigma is None else sigma
    if valid is None or bool(valid.all()):
        return _blurred_means(image, factor, sigma)
    weight = np.broadcast_to(valid, image.shape).astype(np.float32)
    total = _blurred_means(np.where(valid, image, np.float32(0)), factor, sigma)
    weight = _blurred_means(weight, factor, sigma)
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-6)


def degradation_radius(factor: int, sigma: float | None = None) -> int:
    """How many pixels of the image beyond its own block a degraded pixel depends on."""
    return int(TRUNCATE * (1.0 / factor if sigma is None else sigma) + 0.5)


def _blurred_means(image: Float, factor: int, sigma: float) -> Float:
    blurred = np.asarray(image, np.float32)
    if sigma > 0:
        from scipy.ndimage import gaussian_filter1d  # slow to import, and sharpening alone does without

        for axis in (-2, -1):
            blurred = gaussian_filter1d(blurred, sigma, axis=axis, mode="nearest", truncate=TRUNCATE)
    *lead, height, width = blurred.shape
    blocks = blurred.reshape(*lead, height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(-3, -1)), np.float32)
