"""Back-projection: make a sharpened band, degraded again, agree with the band it was made from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..raster.degradation import degrade
from ..raster.resample import upsample

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]


def margin(factor: int, passes: int) -> int:
    """How many fine pixels from an edge the result of `back_project` may depend on that edge."""
    return (3 * passes + 1) * factor if passes else 0


def back_project(image: Float, original: Float, valid: Mask, factor: int, passes: int) -> tuple[Float, Float, Float]:
    """Add to a sharpened band what its degraded version lacks, ``passes`` times (Irani and Peleg 1991).

    ``image``: float32 (H, W), sharpened. ``original``, ``valid``: float32 and bool (H / factor, W / factor), the band
    as recorded; where it is not valid nothing is corrected and nothing is learnt. Returns the corrected image and the
    residuals, original minus degraded, before and after: float32 (H / factor, W / factor), 0 where not valid.
    """
    known = None if valid.all() else valid.repeat(factor, axis=0).repeat(factor, axis=1)

    def residual_of(result: Float) -> Float:
        return np.where(valid, original - degrade(result, factor, valid=known), np.float32(0))

    before = residual = residual_of(image)
    for _ in range(passes):
        image = image + upsample(residual, factor, "bilinear")
        residual = residual_of(image)
    return image, before, residual
