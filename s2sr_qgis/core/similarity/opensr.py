"""The quantities of opensr-test: is a super-resolved image consistent, does it add detail, and is the detail true?

Aybar et al. 2024, doi:10.1109/LGRS.2024.3401394, in the defaults of the package opensr-test 1.3.3. Everywhere an image
is float64 (bands, H, W) in reflectance, the low-resolution one ``factor`` times coarser; a distance is (H, W).

The image, the reference and the low-resolution image lose a border of `BORDER` pixels. The consistencies compare the
image, reduced, with the low-resolution one. The other quantities compare the harmonised image (histograms matched to
the reference, then moved onto it) with the reference and with the magnified low-resolution image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.ndimage import shift as moved

from ..errors import InputError
from ..raster.grid import Window
from .measure import Array, Float, Mask

BORDER = 16
"""Pixels of the image that are left out along its edges."""

QUANTILE = 0.75
"""Share of the pixels whose distance from low resolution to reference is too small to tell anything."""

TEMPERATURE = 0.25
"""Of the softmin that shares a pixel between improvement, omission and hallucination."""

STRICTNESS = 0.05
"""Lambda in the three distances of correctness."""

MOST_SHIFT = 5.0
"""Pixels beyond which a shift is taken for an error of the search."""

SIDE = 512
"""Pixels of a window that a shift is looked for in; images up to this side are looked at as a whole."""

MOST = 4
"""Most rows, and most columns, of such windows."""

STEPS = 50
"""Fractions of a pixel that a shift is found to."""

_EPSILON = 1e-8


class Quantities(NamedTuple):
    """The seven figures of one image.

    Attributes:
        reflectance: mean absolute difference of the image, reduced, from the low-resolution one; 0 is perfect.
        spectral: mean spectral angle between the two, in degrees; 0 is perfect.
        spatial: length of the shift between the two, in low-resolution pixels; 0 is perfect, NaN where not found.
        synthesis: mean absolute difference of the harmonised image from the magnified low-resolution one: how much
            detail there is, true or not.
        hallucination: share of detail that is in neither the reference nor the low-resolution image.
        omission: share of the reference's detail that is missing.
        improvement: share of the reference's detail that is there. The three shares add up to 1.
    """

    reflectance: float
    spectral: float
    spatial: float
    synthesis: float
    hallucination: float
    omission: float
    improvement: float


def quantities(low: Float, image: Float, reference: Float) -> Quantities:
    """The seven figures of images in memory, every pixel of which counts.

    ``low``: (bands, h, w); ``image``, ``reference``: (bands, H, W). Raises `InputError` where the sizes do not nest or
    are too small for the border.
    """
    factor = image.shape[-1] // low.shape[-1]
    if image.shape != reference.shape or image.shape[-2:] != (low.shape[-2] * factor, low.shape[-1] * factor):
        raise InputError(f"The sizes do not fit: {low.shape}, {image.shape} and {reference.shape}.")
    cut = border(factor)
    if min(low.shape[-2:]) <= 2 * cut:
        raise InputError(f"An image of {low.shape[-2]} x {low.shape[-1]} pixels is too small for a border of {cut}.")
    low, image, reference = inside(low, cut), inside(image, cut * factor), inside(reference, cut * factor)
    reduced, magnified = resized(image, *low.shape[-2:]), resized(low, *image.shape[-2:])
    dy, dx = shift_between(shown(reduced), shown(low))
    harmonised = matched(image, reference)
    harmonised = shifted(harmonised, *acceptable(shift_between(reference.mean(axis=0), harmonised.mean(axis=0))))
    distances = correctness_distances(magnified, harmonised, reference)
    rank = kth(distances[0].size)
    threshold = float(np.partition(distances[0].astype(np.float32).ravel(), rank)[rank])
    shares = np.nanmean(correctness(*distances, threshold), axis=(1, 2))
    return Quantities(
        float(absolute_difference(low, reduced).mean()),
        float(np.nanmean(spectral_angle(low, reduced))),
        length(dy, dx),
        float(absolute_difference(magnified, harmonised).mean()),
        float(shares[2]),
        float(shares[1]),
        float(shares[0]),
    )


def border(factor: int) -> int:
    """Low-resolution pixels that the border is wide: whole ones, where opensr-test's sizes do not fit."""
    return BORDER // factor


def inside(image: Float, cut: int) -> Float:
    """An image (..., H, W) without ``cut`` pixels along its edges."""
    return image[..., cut : image.shape[-2] - cut, cut : image.shape[-1] - cut]


def resized(image: Float, height: int, width: int) -> Float:
    """Reduce or magnify (..., h, w) to (..., height, width) with a triangle as wide as two pixels of the coarser grid.

    That is bilinear interpolation with antialiasing, half-pixel centres; what of the triangle is outside has no weight.
    """
    if image.shape[-2:] == (height, width):
        return image
    return np.asarray(_triangles(image.shape[-2], height) @ image @ _triangles(image.shape[-1], width).T)


def _triangles(size: int, result: int) -> Float:
    ratio = size / result
    centres = (np.arange(result)[:, np.newaxis] + 0.5) * ratio - 0.5
    weights = np.maximum(1 - np.abs(np.arange(size) - centres) / max(ratio, 1.0), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def absolute_difference(x: Float, y: Float) -> Float:
    """L1: the mean over the bands of |x - y|, in reflectance, (H, W)."""
    return np.asarray(np.abs(x - y).mean(axis=0))


def spectral_angle(x: Float, y: Float) -> Float:
    """SAD: arccos(x·y / (|x| |y|)) in degrees, (H, W); NaN where a spectrum is zero."""
    product = np.sqrt(np.square(x).sum(axis=0) * np.square(y).sum(axis=0))
    cosine = np.divide((x * y).sum(axis=0), product, out=np.full(product.shape, np.nan), where=product > 0)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def normalised_difference(x: Float, y: Float) -> Float:
    """ND: the mean over the bands of |x - y| / |x + y + 1e-8|, (H, W)."""
    return np.asarray((np.abs(x - y) / np.abs(x + y + _EPSILON)).mean(axis=0))


def matched(image: Float, reference: Float) -> Float:
    """The image with each band's histogram brought to the reference's, both (bands, H, W)."""
    tables = [
        transfer(*np.unique(x, return_counts=True), *np.unique(y, return_counts=True))
        for x, y in zip(image, reference, strict=True)
    ]
    return np.stack([np.interp(band, *table) for band, table in zip(image, tables, strict=True)])


def transfer(values: Array, counts: Array, onto: Array, onto_counts: Array) -> tuple[Float, Float]:
    """Histogram matching as a table: each value, ascending, and the value of the same quantile in ``onto``."""
    quantiles, onto_quantiles = (np.cumsum(n) / np.sum(n) for n in (counts, onto_counts))
    return values, np.asarray(np.interp(quantiles, onto_quantiles, onto), np.float64)


def shown(image: Float) -> Float:
    """What the spatial consistency is measured on: the mean of the first three bands, of fewer the first, (H, W)."""
    return np.asarray(image[:3].mean(axis=0) if len(image) >= 3 else image[0])


def shift_between(reference: Float, image: Float) -> tuple[float, float]:
    """(dy, dx), pixels that the image must go down and right to lie on the reference, both (H, W).

    Phase correlation with the peak found to 1 / `STEPS` pixels: Guizar-Sicairos et al. 2008, doi:10.1364/OL.33.000156.
    """
    from skimage.registration import phase_cross_correlation

    if not (np.ptp(reference) and np.ptp(image)):
        return math.nan, math.nan
    (dy, dx), _, _ = phase_cross_correlation(reference, image, upsample_factor=STEPS)  # type: ignore[no-untyped-call]
    return float(dy), float(dx)


def shift_windows(height: int, width: int) -> list[Window]:
    """Where the shift of an image of that size is looked for.

    As a whole, as opensr-test does, up to `SIDE` pixels; in larger images in up to `MOST` x `MOST` windows of that
    side, spread evenly, and the median counts: the Fourier transforms of a whole scene do not fit into memory.
    """
    rows, cols = _starts(height), _starts(width)
    return [Window(col, row, SIDE, SIDE).clipped(width, height) for row in rows for col in cols]


def _starts(size: int) -> list[int]:
    count = min(max(size // SIDE, 1), MOST)
    return [round(place) for place in np.linspace(0, max(size - SIDE, 0), count)]


def median_shift(shifts: list[tuple[float, float]]) -> tuple[float, float]:
    """(dy, dx) of several windows' shifts; NaN where none was found."""
    found = [shift for shift in shifts if math.isfinite(length(*shift))] or shifts
    if not found:
        return math.nan, math.nan
    dy, dx = np.median(np.array(found), axis=0)
    return float(dy), float(dx)


def length(dy: float, dx: float) -> float:
    """Of a shift; NaN where it was not found or is beyond `MOST_SHIFT`."""
    distance = math.hypot(dy, dx)
    return distance if distance <= MOST_SHIFT else math.nan


def acceptable(shift: tuple[float, float]) -> tuple[float, float]:
    """The shift, or none where it was not found or is beyond `MOST_SHIFT`."""
    return shift if math.isfinite(length(*shift)) else (0.0, 0.0)


def shifted(image: Float, dy: float, dx: float) -> Float:
    """The image (bands, H, W) moved down and right, bilinear, its edge repeated.

    opensr-test's OpenCV, before version 5, rounds the fractions to 1/32 of a pixel; here they are exact.
    """
    if not (dy or dx):
        return image
    return np.stack([moved(band, (dy, dx), order=1, mode="nearest") for band in image])


def correctness_distances(magnified: Float, harmonised: Float, reference: Float) -> tuple[Float, Float, Float]:
    """d_ref, d_im, d_om: ND from low resolution to reference, from image to reference, from image to low resolution."""
    return (
        normalised_difference(magnified, reference),
        normalised_difference(harmonised, reference),
        normalised_difference(harmonised, magnified),
    )


def kth(count: int) -> int:
    """Which of so many values, ascending from 0 on, is the threshold."""
    return max(int(QUANTILE * count) - 1, 0)


def correctness(d_ref: Float, d_im: Float, d_om: Float, threshold: float) -> Float:
    """Improvement, omission and hallucination of each pixel, (3, H, W), adding up to 1.

    With a = d_im / d_ref, b = d_om / d_ref, l = `STRICTNESS` and s = exp(-l (a + b - 1)), the distances are a + b (1 -
    s), b + a (1 - s) and exp(-l a b), and the shares softmin(distances / `TEMPERATURE`). NaN where none of the three
    distances is above the threshold.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        a, b = d_im / d_ref, d_om / d_ref
        rest = 1 - np.exp(-STRICTNESS * (a + b - 1))
        distances = np.stack([a + b * rest, b + a * rest, np.exp(-STRICTNESS * a * b)])
        weights = np.exp(-distances / TEMPERATURE)
        shares = weights / weights.sum(axis=0)
    return np.where(above(d_ref, d_im, d_om, threshold), shares, np.nan)


def above(d_ref: Float, d_im: Float, d_om: Float, threshold: float) -> Mask:
    """Where one of the distances is above the threshold; as float32, which the threshold is one of."""
    return np.asarray(np.maximum(np.maximum(d_ref, d_im), d_om).astype(np.float32) > np.float32(threshold), np.bool_)
