"""What people call Sentinel-2's bands in the files that they make: band numbers, common names, wavelengths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import InputError
from .bands import BANDS, band_name

COMMON: dict[str, str] = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "cirrus": "B10",
    "swir16": "B11",
    "swir22": "B12",
}
"""Earth Search's asset names; stackstac and odc-stac take them over."""

_OTHER = {
    "coastalaerosol": "B01",
    **{f"{prefix}{number}": band for prefix in ("re", "vre", "vegetationrededge") for number, band in
       ((1, "B05"), (2, "B06"), (3, "B07"), (4, "B8A"))},
    "rededge4": "B8A",
    "nir1": "B08",
    "broadnir": "B08",
    "nirbroad": "B08",
    "nir2": "B8A",
    "narrownir": "B8A",
    "nirnarrow": "B8A",
    "watervapour": "B09",
    "watervapor": "B09",
    "swircirrus": "B10",
    "swir1": "B11",
    "swir2": "B12",
}  # fmt: skip
_VAGUE = ("rededge", "vegetationrededge", "re", "swir", "swir3")
_NUMBER = re.compile(r"(?<![A-Za-z0-9])(B(?:0?[1-9]|1[0-2]|8A))(?![A-Za-z0-9])", re.IGNORECASE)
_COUNTED = re.compile(r"^band[ _-]*0*(\d{1,2}|8A)$", re.IGNORECASE)
_BESIDE = re.compile(r"\([^)]*\)|\[[^]]*\]|\b\d+(?:\.\d+)? ?(?:nm|um|µm|m)\b", re.IGNORECASE)
_BEFORE = re.compile(
    r"^(?:(?:nbart?|sr|boa|toa|brdf|msi|s2[a-d]?|sen2[a-d]?|sentinel[ _-]?2[a-d]?|l1c|l2a|reflectance|\d{8}(?:t\d{6})?)"
    r"[ _.:-]+)*",
    re.IGNORECASE,
)
_TOLERANCE = 12
"""How far, in nm, a stated wavelength may lie from a band's own: S2A, S2B and S2C differ by less."""


def bands_named(texts: Sequence[str | None], label: str) -> list[str | None]:
    """The band that each of a raster's descriptions means; None for those that mean none.

    Understood are band numbers (``B8A``, ``B04 - Red``, ``Band 4``) and common names (``red``, ``nir08``, ``swir_1``).
    Raises `InputError` where names could mean several bands. ``label``: the file as the user knows it.
    """
    plain = [_plain(text) for text in texts]
    common = _dialect({word for word in plain if word})
    named: list[str | None] = []
    vague = []
    for text, word in zip(texts, plain, strict=True):
        numbers = {band_name(found) for found in _NUMBER.findall(text or "")}
        # Two bands in one description are an index made of them, such as (B08-B04)/(B08+B04).
        if len(numbers) == 1:
            named.append(numbers.pop())
        elif numbers:
            named.append(None)
        else:
            named.append(common.get(word) or _counted(text))
            if named[-1] is None and word in _VAGUE:
                vague.append(str(text))
    if vague:
        raise InputError(
            f"{label} has bands called {', '.join(vague)}, which can mean several Sentinel-2 bands; "
            "give the band names in file order (B02,B03,…; '-' skips a band)."
        )
    if any(named) and _in_file_order(texts, named):
        raise InputError(
            f"The bands of {label} are only counted ({texts[0]}, {texts[-1]}), so nothing tells which is which "
            "(B8A may be the ninth); give the band names in file order (B02,B03,…)."
        )
    return named


def band_called(text: str) -> str:
    """One band that the user names, by number or by common name. Raises `InputError`."""
    return COMMON.get(_plain(text)) or _OTHER.get(_plain(text)) or band_name(text)


def bands_by_wavelength(wavelengths: Sequence[float | None]) -> list[str | None]:
    """The band nearest to each centre wavelength (nm or µm); None where none is near or two are the same."""
    named: list[str | None] = []
    for value in wavelengths:
        nanometres = None if value is None else value * 1000 if value < 20 else value
        name = min(BANDS, key=lambda band: abs(BANDS[band].wavelength - (nanometres or 0)))
        near = nanometres is not None and abs(BANDS[name].wavelength - nanometres) <= _TOLERANCE
        named.append(name if near else None)
    found = [name for name in named if name]
    return named if len(set(found)) == len(found) else [None] * len(named)


def _plain(text: str | None) -> str:
    words = _BEFORE.sub("", _BESIDE.sub("", text or "").strip())
    return re.sub(r"[^a-z0-9]", "", words.lower())


def _dialect(words: set[str]) -> Mapping[str, str]:
    """Common names by band, as the names beside them show that they are meant."""
    names = {**_OTHER, **COMMON}
    if "swir3" in words:  # Geoscience Australia counts 1.4, 1.6 and 2.2 µm
        names |= {"swir1": "B10", "swir2": "B11", "swir3": "B12"}
    if words & {"broadnir", "nirbroad"}:  # FORCE calls B8A NIR
        names["nir"] = "B8A"
    return names


def _counted(text: str | None) -> str | None:
    found = _COUNTED.match((text or "").strip())
    number = found.group(1).upper().zfill(2) if found else ""
    return f"B{number}" if f"B{number}" in BANDS else None


def _in_file_order(texts: Sequence[str | None], named: Sequence[str | None]) -> bool:
    """Whether the names only count the bands of the file: 'Band 1', 'Band 2', … or B1 … B9 and on."""
    counted = [f"B{number:02}" for number in range(1, len(named) + 1)]
    counted = [name for name in counted if name in BANDS]
    if sorted(name for name in named if name) != counted:
        return False
    return len(named) > 8 or all(_COUNTED.match((text or "").strip()) for text in texts)
