"""The shift between two images of the same ground on one grid, to a fraction of a pixel, block by block.

Cross-correlation of the images' detail with an up-sampled peak (Guizar-Sicairos et al. 2008, doi:10.1364/OL.33.000156).
Detail is the band between two Gaussians: what is finer than a Sentinel-2 pixel is in one of the images only, and full
whitening (phase correlation proper) lets just that noise decide; what is coarser is light and season.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

from ..raster.tiles import fill
from .pair_figures import ShiftBlock

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

SMALLEST = 16
"""Side of the smallest block, in pixels, that a shift is looked for in."""

LEAST_QUALITY = 0.5
"""Correlation of the detail below which a block's peak is taken for chance."""

_FINE, _COARSE = 0.7, 3.0
_MOST_INVALID = 0.01
_STEPS = 10, 50
_OUTLIER = 4.0
_LARGEST_SPREAD = 2.0
_FEW, _ALONE = 5, 0.7  # fewer blocks than that cannot vouch for each other, so each must be that clear


def block_shift(reference: Float, moving: Float, valid: Mask) -> tuple[float, float, float] | None:
    """How far ``moving`` must go to lie on ``reference``: (dx, dy, quality), by the band that shows it best.

    ``reference``, ``moving``: (bands, h, w), the same bands of the same pixels. ``valid``: (h, w), where both have
    values. None where the block is too small, has too much nodata or no texture, or where the shift is more than a
    quarter of its side.
    """
    height, width = valid.shape
    if min(height, width) < SMALLEST or np.count_nonzero(~valid) > _MOST_INVALID * valid.size:
        return None
    taper = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    best: tuple[float, Float, Float, NDArray[np.float64]] | None = None
    for band, other in zip(reference, moving, strict=True):
        fixed, free = _detail(band, valid), _detail(other, valid)
        if fixed is None or free is None:
            continue
        place, quality = _peak(fixed * taper, free * taper, 1)
        if best is None or quality > best[0]:
            best = quality, fixed, free, place
    if best is None:
        return None
    quality, fixed, free, place = best
    # The taper stands still and draws the peak towards no shift, the less so the nearer the images already are.
    for steps in _STEPS:
        more, quality = _peak(fixed * taper, shift(free, place, order=3, mode="reflect") * taper, steps)
        place = place + more
    if np.abs(place).max() > min(height, width) / 4:
        return None
    return float(place[1]), float(place[0]), quality


def sift(blocks: list[ShiftBlock]) -> list[ShiftBlock]:
    """Mark blocks as not used: those of poor quality, those far from the rest, and all where they do not agree."""
    quality = np.array([block.quality for block in blocks])
    good = quality >= LEAST_QUALITY
    if np.count_nonzero(good) < _FEW:
        good = quality >= _ALONE
    if good.any():
        places = np.array([(block.dx, block.dy) for block in blocks])
        distance = np.abs(places - np.median(places[good], axis=0)).max(axis=1)
        spread = 1.4826 * float(np.median(distance[good]))
        # Among noise every block has a best place, but each another one.
        good &= (distance <= max(_OUTLIER * spread, 0.1)) & (spread <= _LARGEST_SPREAD)
    return [replace(block, used=bool(used)) for block, used in zip(blocks, good, strict=True)]


def _detail(band: Float, valid: Mask) -> Float | None:
    """What lies between the two Gaussians, or None where there is nothing but rounding."""
    image = fill(np.where(valid, band, np.float32(0)), valid, float(max(band.shape)))
    level = float(np.abs(image).max())
    image = image - image.mean(dtype=np.float64).astype(np.float32)
    detail: Float = gaussian_filter(image, _FINE, mode="nearest") - gaussian_filter(image, _COARSE, mode="nearest")
    return detail if float(detail.std()) > 1e-5 * level else None


def _peak(fixed: NDArray[np.floating], free: NDArray[np.floating], steps: int) -> tuple[NDArray[np.float64], float]:
    """(rows, columns) that ``free`` must go to lie on ``fixed``, by 1 / ``steps``, and the correlation there."""
    from skimage.registration import phase_cross_correlation

    found: Any = phase_cross_correlation(fixed, free, upsample_factor=steps, normalization=None)  # type: ignore[no-untyped-call]
    place, error, _ = found
    return np.asarray(place, np.float64), float(np.sqrt(max(0.0, 1 - float(error) ** 2)))
