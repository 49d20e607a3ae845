"""The bands of Sentinel-2's MultiSpectral Instrument (MSI) by name.

Centre wavelengths and bandwidths: Sentinel-2 MSI Technical Guide, mean of S2A and S2B, in nanometres.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class BandInfo:
    """One MSI band: ``resolution`` in metres, ``wavelength`` and ``bandwidth`` in nm, ``band_id`` as in SAFE's XML."""

    name: str
    resolution: int
    wavelength: float
    bandwidth: float
    band_id: int


BANDS: dict[str, BandInfo] = {
    b.name: b
    for b in (
        BandInfo("B01", 60, 442.5, 20, 0),
        BandInfo("B02", 10, 492.3, 66, 1),
        BandInfo("B03", 10, 559.4, 36, 2),
        BandInfo("B04", 10, 664.8, 31, 3),
        BandInfo("B05", 20, 704.0, 15, 4),
        BandInfo("B06", 20, 739.8, 15, 5),
        BandInfo("B07", 20, 781.3, 20, 6),
        BandInfo("B08", 10, 832.9, 106, 7),
        BandInfo("B8A", 20, 864.4, 21, 8),
        BandInfo("B09", 60, 944.1, 20, 9),
        BandInfo("B10", 60, 1375.2, 30, 10),
        BandInfo("B11", 20, 1612.0, 92, 11),
        BandInfo("B12", 20, 2193.9, 180, 12),
    )
}
"""Every MSI band in the order of the SAFE XML's ``band_id``."""

SHARPENED_ORDER: tuple[str, ...] = tuple(name for name in BANDS if name != "B10")
"""The bands of a sharpened product, in order. B10 (cirrus) is never sharpened and L2A has none."""

_NAME = re.compile(r"^B?0*(\d{1,2}|8A)$", re.IGNORECASE)
_IN_TEXT = re.compile(r"(?<![A-Za-z0-9])(B(?:0?[1-9]|1[0-2]|8A))(?![A-Za-z0-9])", re.IGNORECASE)


def band_name(text: str) -> str:
    """The two-digit name of a band however it is spelt: ``b2``, ``B2``, ``02`` → ``B02``; ``8a`` → ``B8A``."""
    found = _NAME.match(text.strip())
    name = "B" + found.group(1).upper().zfill(2) if found else ""
    if name not in BANDS:
        raise InputError(f"'{text}' is no Sentinel-2 band; the bands are {', '.join(BANDS)}.")
    return name


def band_in(text: str | None) -> str | None:
    """The band that a description names, such as ``B8A, central wavelength 865 nm``; None where it names none."""
    found = _IN_TEXT.search(text or "")
    return band_name(found.group(1)) if found else None


def bands_at(resolution: int) -> tuple[str, ...]:
    """Names of the bands recorded at 10, 20 or 60 m (B10 left out)."""
    return tuple(b.name for b in BANDS.values() if b.resolution == resolution and b.name != "B10")
