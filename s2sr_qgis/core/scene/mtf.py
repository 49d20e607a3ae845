"""The blur of the degradation: one sigma for every band, or each band's own from the sensor's MTF."""

from __future__ import annotations

import math
from collections.abc import Iterable

MTF_AT_NYQUIST: dict[str, float] = {
    "B01": 0.32,
    "B02": 0.26,
    "B03": 0.28,
    "B04": 0.24,
    "B05": 0.38,
    "B06": 0.34,
    "B07": 0.34,
    "B08": 0.26,
    "B8A": 0.33,
    "B09": 0.26,
    "B11": 0.22,
    "B12": 0.23,
}
"""Modulation transfer of MSI at the Nyquist frequency, from ESA's calibration of Sentinel-2A as used by SupReME and
S2Sharp (Lanaras et al. 2017, doi:10.1109/CVPRW.2017.194; Ulfarsson et al. 2019, doi:10.1109/TGRS.2019.2906048)."""


def sensor_sigma(band: str) -> float:
    """The sigma, in pixels of the band, of the Gaussian whose response at the Nyquist frequency is the band's MTF."""
    return math.sqrt(-2 * math.log(MTF_AT_NYQUIST[band])) / math.pi


def blur_sigmas(bands: Iterable[str], factor: int, sigma: float | None, sensor_mtf: bool) -> dict[str, float]:
    """The sigma of each band's Gaussian before a reduction by ``factor``, in pixels of the finer grid.

    With ``sensor_mtf``, the Gaussian whose response at the coarser grid's Nyquist frequency is the band's MTF, sigma =
    factor * sqrt(-2 ln(MTF)) / pi; else ``sigma``, or 1 / factor as in DSen2 where it is None.
    """
    if sensor_mtf:
        return {band: factor * sensor_sigma(band) for band in bands}
    return dict.fromkeys(bands, 1 / factor if sigma is None else sigma)
