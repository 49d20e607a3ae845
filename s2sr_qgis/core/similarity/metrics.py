"""Metrics between a reference and an image, in float64, over valid pixels.

Everywhere: ``reference`` and ``image`` have shape (bands, H, W), or (H, W) for one band, in the same units; ``mask`` is
bool (H, W) or (bands, H, W), True where a pixel counts. Pixels that are not finite in either image never count. Where
nothing counts, a metric is NaN. The ``…Sums`` classes give the same figures as the functions for an image that comes in
blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, minimum_filter

from ..errors import InputError

Array = NDArray[Any]
Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

UIQ_WINDOW = 8
SSIM_SIGMA = 1.5
SSIM_RADIUS = 5


class Score(NamedTuple):
    """A metric of each band, and of the image as a whole."""

    bands: Float
    total: float


def rmse(reference: Array, image: Array, mask: Mask | None = None) -> Score:
    """Root mean square error, sqrt(mean((x - y)²)), in the images' units; the total is the mean of the bands'."""
    return ErrorSums().add(reference, image, mask).rmse()


def psnr(reference: Array, image: Array, data_range: float, mask: Mask | None = None) -> Score:
    """Peak signal-to-noise ratio, 10 log10(data_range² / MSE), in dB; inf for equal images.

    The total is that of the bands' mean MSE. ``data_range``: largest minus smallest value that the images can have.
    """
    return ErrorSums().add(reference, image, mask).psnr(data_range)


def sre(reference: Array, image: Array, mask: Mask | None = None) -> Score:
    """Signal to reconstruction error ratio, 10 log10(mean(x)² / MSE), in dB; inf for equal images.

    The total is the mean of the bands'. Lanaras et al. 2018, doi:10.1016/j.isprsjprs.2018.09.018.
    """
    return ErrorSums().add(reference, image, mask).sre()


def sam(reference: Array, image: Array, mask: Mask | None = None) -> float:
    """Spectral angle, the mean over pixels of arccos(x·y / (|x| |y|)), in degrees.

    A pixel counts when every band does and neither spectrum is zero. Yuhas et al. 1992, JPL Publication 92-14.
    """
    return AngleSums().add(reference, image, mask).sam()


def uiq(reference: Array, image: Array, mask: Mask | None = None) -> Score:
    """Universal image quality index, 1 for equal images; the total is the mean of the bands'.

    Q = 4 s_xy m_x m_y / ((s_x² + s_y²)(m_x² + m_y²)), averaged over every 8 x 8 window whose pixels all count. Where
    both windows are flat, Q is 2 m_x m_y / (m_x² + m_y²), and 1 where both are zero. Wang and Bovik 2002,
    doi:10.1109/97.995823.
    """
    return QualitySums().add(reference, image, mask).uiq()


def ssim(reference: Array, image: Array, data_range: float, mask: Mask | None = None) -> Score:
    """Structural similarity, 1 for equal images; the total is the mean of the bands'.

    Gaussian window of 11 x 11 pixels with sigma 1.5, population covariance, K1 = 0.01, K2 = 0.03, averaged over every
    pixel whose window lies in the image and counts as a whole. Wang et al. 2004, doi:10.1109/TIP.2003.819861.
    """
    from skimage.metrics import structural_similarity

    x, y, valid = _prepare(reference, image, mask)
    side = 2 * SSIM_RADIUS + 1
    if min(x.shape[1:]) < side:
        raise InputError(f"SSIM needs images of at least {side} x {side} pixels; these have {_size(x)}.")
    inside = np.zeros(x.shape[1:], bool)
    inside[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS] = True
    scores = []
    for a, b, counts in zip(x, y, valid, strict=True):
        _, values = structural_similarity(  # type: ignore[no-untyped-call]
            a, b, data_range=data_range, gaussian_weights=True, sigma=SSIM_SIGMA, use_sample_covariance=False, full=True
        )
        scores.append(_mean(values[inside & minimum_filter(counts, side)]))
    return _averaged(scores)


@dataclass
class ErrorSums:
    """RMSE, PSNR and SRE of an image that comes in blocks, in any order."""

    count: Float | float = 0.0
    total: Float | float = 0.0
    squares: Float | float = 0.0

    def add(self, reference: Array, image: Array, mask: Mask | None = None) -> ErrorSums:
        """Take in one block."""
        x, y, valid = _prepare(reference, image, mask)
        self.count = self.count + valid.sum(axis=(1, 2), dtype=np.float64)
        self.total = self.total + x.sum(axis=(1, 2))
        self.squares = self.squares + np.square(x - y).sum(axis=(1, 2))
        return self

    def rmse(self) -> Score:
        """As `rmse`."""
        return _averaged(np.sqrt(self._mse()))

    def psnr(self, data_range: float) -> Score:
        """As `psnr`."""
        mse = self._mse()
        bands = _decibel(np.full_like(mse, float(data_range) ** 2), mse)
        return Score(bands, float(_decibel(np.array(float(data_range) ** 2), mse.mean())))

    def sre(self) -> Score:
        """As `sre`."""
        return _averaged(_decibel(np.square(self._divide(self.total)), self._mse()))

    def _mse(self) -> Float:
        return self._divide(self.squares)

    def _divide(self, sums: Float | float) -> Float:
        count = np.atleast_1d(np.asarray(self.count, np.float64))
        return np.asarray(np.divide(sums, count, out=np.full(count.shape, np.nan), where=count > 0), np.float64)


@dataclass
class AngleSums:
    """SAM of an image that comes in blocks, in any order."""

    count: int = 0
    degrees: float = 0.0

    def add(self, reference: Array, image: Array, mask: Mask | None = None) -> AngleSums:
        """Take in one block."""
        x, y, valid = _prepare(reference, image, mask)
        product = np.sqrt(np.square(x).sum(axis=0) * np.square(y).sum(axis=0))
        counts = valid.all(axis=0) & (product > 0)
        cosine = np.clip((x * y).sum(axis=0)[counts] / product[counts], -1.0, 1.0)
        self.degrees += float(np.degrees(np.arccos(cosine)).sum())
        self.count += int(counts.sum())
        return self

    def sam(self) -> float:
        """As `sam`."""
        return self.degrees / self.count if self.count else float("nan")


@dataclass
class QualitySums:
    """UIQ of an image that comes in blocks, each with the 7 rows and columns of the next block below and beside it."""

    count: Float | float = 0.0
    quality: Float | float = 0.0

    def add(self, reference: Array, image: Array, mask: Mask | None = None) -> QualitySums:
        """Take in one block: every 8 x 8 window that lies in it."""
        x, y, valid = _prepare(reference, image, mask)
        if min(x.shape[1:]) < UIQ_WINDOW:
            raise InputError(f"UIQ needs images of at least {UIQ_WINDOW} x {UIQ_WINDOW} pixels; these have {_size(x)}.")
        count, quality = np.zeros(len(x)), np.zeros(len(x))
        for band in range(len(x)):  # one at a time: the windows' means are many times the image
            counts = _window_means(valid[band].astype(np.float64)) == 1.0
            count[band] = counts.sum()
            quality[band] = _window_quality(x[band], y[band])[counts].sum()
        self.count = self.count + count
        self.quality = self.quality + quality
        return self

    def uiq(self) -> Score:
        """As `uiq`."""
        count = np.atleast_1d(np.asarray(self.count, np.float64))
        return _averaged(np.divide(self.quality, count, out=np.full(count.shape, np.nan), where=count > 0))


def _window_quality(x: Float, y: Float) -> Float:
    mean_x, mean_y = _window_means(x), _window_means(y)
    square_x, square_y = _window_means(x * x), _window_means(y * y)
    covariance = _window_means(x * y) - mean_x * mean_y
    means = mean_x**2 + mean_y**2
    variances = np.maximum(square_x - mean_x**2, 0) + np.maximum(square_y - mean_y**2, 0)
    # A variance below the rounding of its own difference is that of a flat window.
    flat = variances <= 1e-12 * (square_x + square_y)
    luminance = np.divide(2 * mean_x * mean_y, means, out=np.ones_like(means), where=means > 0)
    contrast = np.divide(2 * covariance, variances, out=np.ones_like(means), where=~flat)
    return np.asarray(luminance * contrast, np.float64)


def _window_means(values: Float) -> Float:
    """Means of every 8 x 8 window inside a band, (H - 7, W - 7)."""
    weights = np.full(UIQ_WINDOW, 1.0 / UIQ_WINDOW)
    for axis in (0, 1):
        values = correlate1d(values, weights, axis=axis, mode="nearest")
    first, last = UIQ_WINDOW // 2, UIQ_WINDOW - UIQ_WINDOW // 2 - 1
    return values[first : values.shape[0] - last, first : values.shape[1] - last]


def _prepare(reference: Array, image: Array, mask: Mask | None) -> tuple[Float, Float, Mask]:
    """Both images as float64 (bands, H, W), 0 where they do not count, and where they do."""
    x, y = np.asarray(reference, np.float64), np.asarray(image, np.float64)
    if x.shape != y.shape or x.ndim not in (2, 3):
        raise InputError(f"The images cannot be compared: the reference is {_size(x)}, the other {_size(y)}.")
    if x.ndim == 2:
        x, y = x[np.newaxis], y[np.newaxis]
    valid = np.isfinite(x) & np.isfinite(y)
    if mask is not None:
        if mask.shape not in (x.shape, x.shape[1:]):
            raise InputError(f"The mask is {_size(mask)}, the images are {_size(x)}.")
        valid &= mask
    return np.where(valid, x, 0.0), np.where(valid, y, 0.0), valid


def _decibel(signal: Float, noise: Array) -> Float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(10.0 * np.log10(signal / noise))


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")


def _averaged(bands: Float | list[float]) -> Score:
    scores = np.asarray(bands, np.float64)
    return Score(scores, float(scores.mean()))


def _size(array: Array) -> str:
    return " x ".join(str(n) for n in array.shape)
