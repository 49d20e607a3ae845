"""The catalogue of measures, and all of them as functions of two images in memory.

Everywhere: ``reference`` and ``image`` have shape (bands, H, W), or (H, W) for one band, in the same units; ``mask`` is
bool (H, W) or (bands, H, W), True where a pixel counts. Pixels that are not finite in either image never count. All is
worked out in float64. Where nothing counts, a measure is NaN. Raises `InputError` for images that differ in size or are
too small for a measure's windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np

from ..errors import InputError
from ..jobs import MeasureName
from .comparison import chosen
from .fsim import MEASURES as _FSIM
from .hypercomplex import MEASURES as _HYPERCOMPLEX
from .issm import MEASURES as _ISSM
from .measure import Array, Block, Definition, Mask, Measure, Score, Setup, prepare, stacked
from .pixel import MEASURES as _PIXEL
from .shift import MEASURES as _SHIFT
from .window import MEASURES as _WINDOW

_FOUND = {entry.name: entry for entry in (*_PIXEL, *_WINDOW, *_HYPERCOMPLEX, *_FSIM, *_ISSM, *_SHIFT)}


def catalogue() -> dict[str, Measure]:
    """All measures by name, in the order in which they are shown."""
    return {name: _FOUND[name] for name in get_args(MeasureName)}


def measure(
    reference: Array,
    image: Array,
    names: Sequence[str] = (),
    *,
    definition: Definition = "reference",
    data_range: float,
    mask: Mask | None = None,
    ratio: float = 1.0,
) -> dict[str, Score]:
    """Several measures at once, by name.

    Args:
        reference, image, mask: see above.
        names: of measures in the catalogue; none for all that have the definition.
        definition: ``reference``, the papers' formulas, or ``up42``, those of image-similarity-measures 0.3.6.
        data_range: largest minus smallest value that the images can have, in their units.
        ratio: pixel size before super-resolution over pixel size after, for ERGAS.
    """
    for what, value in (("data range", data_range), ("ratio", ratio)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"The {what} is {value}; it must be a number above 0.")
    bands, height, width = stacked(reference, image)[0].shape
    setup = Setup(bands, height, width, float(data_range), definition, float(ratio))
    accumulators = {entry.name: entry.create(setup) for entry in chosen(names, definition)}
    for integers in (True, False):
        some = [a for a in accumulators.values() if getattr(a, "integers", False) == integers]
        if some:
            block = whole_block(reference, image, mask, integers=integers)
            for accumulator in some:
                accumulator.take(accumulator.observe(block))
    return {name: accumulator.score() for name, accumulator in accumulators.items()}


def whole_block(reference: Array, image: Array, mask: Mask | None = None, *, integers: bool = False) -> Block:
    """Both images as one block. ``integers``: for accumulators that work on integers, which are then not copied."""
    x, y = stacked(reference, image)
    own = slice(0, x.shape[1]), slice(0, x.shape[2])
    if integers and mask is None and x.dtype.kind in "ui" and y.dtype.kind in "ui":
        return Block(x, y, np.broadcast_to(np.ones(x.shape[2], bool), x.shape), 0, 0, own)
    return Block(*prepare(x, y, mask), 0, 0, own)


def rmse(
    reference: Array,
    image: Array,
    mask: Mask | None = None,
    *,
    definition: Definition = "reference",
    data_range: float | None = None,
) -> Score:
    """Root mean square error, sqrt(mean((x - y)²)), in the images' units; the total is the mean of the bands'.

    up42: the same over ``data_range``, which only this definition needs.
    """
    if definition == "up42" and data_range is None:
        raise InputError("RMSE by the definition 'up42' is a share of the data range; give the data range.")
    return _one("rmse", reference, image, mask, definition, data_range or 1.0)


def psnr(
    reference: Array, image: Array, data_range: float, mask: Mask | None = None, *, definition: Definition = "reference"
) -> Score:
    """Peak signal-to-noise ratio, 10 log10(data_range² / MSE), in dB; inf for equal images.

    The total is that of the bands' mean MSE, in both definitions. ``data_range``: largest minus smallest value that the
    images can have. Huynh-Thu and Ghanbari 2008, doi:10.1049/el:20080522.
    """
    return _one("psnr", reference, image, mask, definition, data_range)


def ssim(
    reference: Array, image: Array, data_range: float, mask: Mask | None = None, *, definition: Definition = "reference"
) -> Score:
    """Structural similarity, 1 for equal images; the total is the mean of the bands'.

    (2 m_x m_y + C1)(2 s_xy + C2) / ((m_x² + m_y² + C1)(s_x² + s_y² + C2)) with C1 = (0.01 data_range)² and
    C2 = (0.03 data_range)², averaged over all windows that lie in the image and whose pixels all count. Reference:
    Gaussian window of 11 x 11 pixels with sigma 1.5, population covariance; Wang et al. 2004,
    doi:10.1109/TIP.2003.819861. up42: uniform window of 7 x 7, sample covariance.
    """
    return _one("ssim", reference, image, mask, definition, data_range)


def fsim(
    reference: Array, image: Array, data_range: float, mask: Mask | None = None, *, definition: Definition = "reference"
) -> Score:
    """Feature similarity, 1 for equal images; see `s2sr_qgis.core.similarity.fsim`.

    Zhang et al. 2011, doi:10.1109/TIP.2011.2109730.
    """
    return _one("fsim", reference, image, mask, definition, data_range)


def issm(
    reference: Array, image: Array, data_range: float, mask: Mask | None = None, *, definition: Definition = "reference"
) -> Score:
    """Information-theoretic statistic similarity, see `s2sr_qgis.core.similarity.issm`.

    Aljanabi et al. 2019, doi:10.1080/22797254.2019.1628617.
    """
    return _one("issm", reference, image, mask, definition, data_range)


def sre(reference: Array, image: Array, mask: Mask | None = None, *, definition: Definition = "reference") -> Score:
    """Signal to reconstruction error ratio, 10 log10(mean(x)² / MSE), in dB; inf for equal images.

    The total is the mean of the bands'. Lanaras et al. 2018, doi:10.1016/j.isprsjprs.2018.09.018. up42:
    10 log10(mean(x)² / (|x - y| / n)), the total from the bands' mean ratio; it depends on the number n of pixels.
    """
    return _one("sre", reference, image, mask, definition)


def sam(reference: Array, image: Array, mask: Mask | None = None, *, definition: Definition = "reference") -> Score:
    """Spectral angle, the mean over pixels of arccos(x·y / (|x| |y|)), in degrees; it has no bands.

    A pixel counts when every band does and neither spectrum is zero, in both definitions (at zero spectra the package
    answers 0 for the whole image). Yuhas, Goetz and Boardman 1992, JPL Publication 92-14, pp. 147-149.
    """
    return _one("sam", reference, image, mask, definition)


def uiq(reference: Array, image: Array, mask: Mask | None = None, *, definition: Definition = "reference") -> Score:
    """Universal image quality index, 1 for equal images; the total is the mean of the bands'.

    Q = 4 s_xy m_x m_y / ((s_x² + s_y²)(m_x² + m_y²)), averaged over every 8 x 8 window whose pixels all count. Where
    both windows are flat, Q is 2 m_x m_y / (m_x² + m_y²), and 1 where both are zero. Wang and Bovik 2002,
    doi:10.1109/97.995823. up42: Q is 0 where both windows are flat or both have mean 0; the total is the mean over all
    windows of all bands.
    """
    return _one("uiq", reference, image, mask, definition)


def ergas(reference: Array, image: Array, ratio: float = 1.0, mask: Mask | None = None) -> Score:
    """Relative dimensionless global error, 0 for equal images; it has no bands.

    100 h/l sqrt(mean over bands of MSE / mean(x)²), where ``ratio`` is l/h: pixel size before super-resolution over
    pixel size after, as 2 for 20 m to 10 m. Wald 2000, Quality of high resolution synthesised images: is there a simple
    criterion?, Proc. Fusion of Earth Data, pp. 99-103.
    """
    return measure(reference, image, ["ergas"], data_range=1.0, mask=mask, ratio=ratio)["ergas"]


def q2n(reference: Array, image: Array, mask: Mask | None = None) -> Score:
    """Hypercomplex quality index Q2n, 1 for equal images; it has no bands; see
    `s2sr_qgis.core.similarity.hypercomplex`.

    Garzelli and Nencini 2009, doi:10.1109/LGRS.2009.2022650.
    """
    return _one("q2n", reference, image, mask)


def spectral_correlation(reference: Array, image: Array, mask: Mask | None = None) -> Score:
    """Mean over pixels of the Pearson correlation over bands between the two spectra; it has no bands.

    A pixel counts when every band does and neither spectrum is flat. NaN for fewer than 3 bands. The spectral
    correlation mapper of De Carvalho and Meneses 2000, JPL Publication 00-18; unlike the spectral angle it does not see
    an offset.
    """
    return _one("spectral_correlation", reference, image, mask)


def spatial_shift(reference: Array, image: Array, mask: Mask | None = None) -> Score:
    """How far the image lies from the reference, in pixels, 0 for equal images; see `s2sr_qgis.core.similarity.shift`.

    Guizar-Sicairos et al. 2008, doi:10.1364/OL.33.000156.
    """
    return _one("spatial_shift", reference, image, mask)


def _one(
    name: str,
    reference: Array,
    image: Array,
    mask: Mask | None,
    definition: Definition = "reference",
    data_range: float = 1.0,
) -> Score:
    found = measure(reference, image, [name], definition=definition, data_range=data_range, mask=mask)
    return found[name]
