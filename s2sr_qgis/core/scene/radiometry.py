"""Unit, scale and radiometric offset of a scene's pixels."""

from __future__ import annotations

import math

import numpy as np

from ..jobs import SceneOptions
from .files import FilePool, sample
from .product import Found

QUANTIFICATION = 10000.0
"""DN that mean reflectance 1 in every Sentinel-2 product so far."""

OFFSET_SHOWS = 1000.0
"""Where even the darkest pixels lie above this DN, they probably carry the 1000 of baseline 04.00."""


def settle(
    found: dict[str, Found], options: SceneOptions, pool: FilePool, warnings: list[str]
) -> dict[str, tuple[float, float]]:
    """(offset, quantification) by band: the user's word, the product's, the file's tags, then the plainest guess."""
    chosen: dict[str, tuple[float, float]] = {}
    guessed: list[str] = []
    for name, band in found.items():
        offset, quantification = _from_tags(band)
        if band.quantification is not None:
            quantification = band.quantification
        if band.offset is not None:
            offset = band.offset
        if options.quantification is not None:
            quantification = options.quantification
        if options.radiometric_offset is not None:
            offset = float(options.radiometric_offset)
        if quantification is None:
            quantification = _guess_quantification(band, pool)
        if offset is None:
            offset = 0.0
            if quantification != 1:
                guessed.append(name)
        chosen[name] = offset, quantification
    if any(quantification == 1 for _, quantification in chosen.values()) and options.quantification is None:
        warnings.append("The pixels are numbers near 0 to 1 without a scale tag: they are taken for reflectance.")
    if guessed and (darkest({name: found[name] for name in guessed}, pool) or 0) > OFFSET_SHOWS:
        warnings.append(
            "Nothing states the radiometric offset, so 0 is used, but even the darkest pixels lie above 1000 DN: "
            "products from baseline 04.00 on carry 1000 DN; if this is one, give a radiometric offset of -1000."
        )
    return chosen


def _from_tags(band: Found) -> tuple[float | None, float | None]:
    scale, shift = band.header.scales[band.index - 1], band.header.offsets[band.index - 1]
    if (scale, shift) == (1.0, 0.0) or scale == 0 or not math.isfinite(scale + shift):
        return None, None
    # The tags are decimal fractions: -0.1 / 0.0001 must give -1000 and not -1000.0000000000001.
    return round(shift / scale, 6), round(1 / scale, 6)


def _guess_quantification(band: Found, pool: FilePool) -> float:
    if not band.header.dtypes[band.index - 1].startswith("float"):
        return QUANTIFICATION
    values = sample(pool, band.file, band.index, band.header)
    values = values[np.isfinite(values)]
    # Reflectance stays near 1 (glint and clouds reach 2 or 3); DN of the same ground go into the thousands.
    return 1.0 if values.size and float(np.percentile(np.abs(values), 99)) < 10 else QUANTIFICATION


def darkest(found: dict[str, Found], pool: FilePool) -> float | None:
    """The lowest 1st percentile of the dark bands' DN in a decimated copy; None without such bands or pixels."""
    lowest = None
    for name in ("B12", "B11", "B04"):
        if name in found:
            band = found[name]
            values = sample(pool, band.file, band.index, band.header)
            values = values[np.isfinite(values) & (values != 0)]
            if values.size:
                value = float(np.percentile(values, 1))
                lowest = value if lowest is None else min(lowest, value)
    return lowest
