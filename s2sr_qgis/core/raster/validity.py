"""Which pixels of a file have a value: by mask, by alpha band, by a band that says so, by an unmistakable number."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RasterWindow

FILLS = (-9999.0, -10000.0, -32768.0, -32767.0)
"""Numbers that stand for nodata in files that do not say so; no reflectance or digital number is one of them."""

HUGE = 1e6
"""No measurement of an optical image is as large as this, in any unit: 1e20, 3.4e38 and alike are nodata."""

_SIDE = 256
_VALIDITY = re.compile(r"^(alpha|data[_ ]?mask|valid([_ ]?mask)?|validity)$", re.IGNORECASE)


def is_validity(description: str | None) -> bool:
    """Whether a band's description says that the band is not 0 where the others have a value: ``dataMask``."""
    return bool(_VALIDITY.match((description or "").strip()))


@dataclass(frozen=True)
class Validity:
    """What says where a file's pixels have values: a band (alpha, ``dataMask``), and the bands that have a mask."""

    band: int | None = None
    masked: frozenset[int] = frozenset()

    @property
    def stated(self) -> bool:
        """Whether anything does."""
        return self.band is not None or bool(self.masked)


def validity_of(dataset: Any) -> Validity:
    """What says where an open file's pixels have values."""
    return Validity(validity_band(dataset), frozenset(n for n in dataset.indexes if has_mask(dataset, n)))


def validity_band(dataset: Any) -> int | None:
    """Number of the band that says which pixels have a value (alpha, ``dataMask``); None where there is none.

    Writers mark the fourth band of any image as alpha, near infrared too: an alpha band has two values at most.
    """
    if dataset.count < 2:
        return None
    for number, (colour, text) in enumerate(zip(dataset.colorinterp, dataset.descriptions, strict=True), start=1):
        if is_validity(text) or (colour == ColorInterp.alpha and _two_values(dataset, number)):
            return number
    return None


def _two_values(dataset: Any, number: int) -> bool:
    shape = min(dataset.height, _SIDE), min(dataset.width, _SIDE)
    values = np.unique(dataset.read(number, out_shape=shape))
    return len(values) == 1 or (len(values) == 2 and values[0] == 0)


def has_mask(dataset: Any, number: int) -> bool:
    """Whether a mask of the file, or beside it (``.msk``), says where this band has a value."""
    flags = dataset.mask_flag_enums[number - 1]
    if MaskFlags.all_valid in flags or MaskFlags.alpha in flags:
        return False
    # NODATA_VALUES is nodata of all bands together, which no band's own nodata says.
    return MaskFlags.nodata not in flags or dataset.nodatavals[number - 1] is None


def masked(
    dataset: Any,
    numbers: list[int],
    validity: Validity,
    window: RasterWindow | None = None,
    shape: tuple[int, int] | None = None,
) -> NDArray[np.bool_] | None:
    """Where bands have a value by mask, alpha or validity band, (bands, h, w) or (1, h, w); None: everywhere."""
    found = None
    if validity.band is not None:
        alpha = dataset.read([validity.band], window=window, out_shape=None if shape is None else (1, *shape))
        found = np.isfinite(alpha) & (alpha > 0)
    own = [number in validity.masked for number in numbers]
    if any(own):
        masks = dataset.read_masks(numbers, window=window, out_shape=None if shape is None else (len(numbers), *shape))
        masks = (masks > 0) | ~np.array(own)[:, None, None]
        found = masks if found is None else found & masks
    return None if found is None or found.all() else found


def unmistakable(pixels: NDArray[Any], nodata: float | None) -> list[float]:
    """The numbers among an image's pixels that can only be nodata, though the file does not say so; sorted, few."""
    if pixels.dtype.kind == "u":
        return []
    values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels.ravel()
    odd = values[np.isin(values, FILLS) | (np.abs(values.astype(np.float64)) >= HUGE)]
    return [v for v in map(float, np.unique(odd)[:4]) if nodata is None or not math.isclose(v, nodata, rel_tol=1e-6)]


def fill_of(dtype: np.dtype[Any]) -> float:
    """What pixels without value become when they are read: NaN, or 0 in integers."""
    return math.nan if dtype.kind == "f" else 0.0
