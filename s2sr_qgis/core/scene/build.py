"""What every reader shares: product names, the choice of radiometry, and putting a `Scene` together."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np

from ..errors import InputError
from ..jobs import SceneOptions
from .align import align
from .bands import BANDS
from .files import FilePool, Header, RasterFile, sample
from .scene import Level, Scene, SceneBand

QUANTIFICATION = 10000.0
"""DN that mean reflectance 1 in every Sentinel-2 product so far."""

OFFSET_SHOWS = 1000.0
"""Where even the darkest pixels lie above this DN, they probably carry the 1000 of baseline 04.00."""

_PLATFORM = re.compile(r"(?:S(?:entinel)?[-_ ]?2)([A-D])(?![a-z0-9])", re.IGNORECASE)
_LEVEL = re.compile(r"(?:MSI_?L?|Level-?|(?:^|[_-])L)(1C|2A)", re.IGNORECASE)
_TIME = re.compile(r"(\d{8})T(\d{5,6})(?!\d)")
_BASELINE = re.compile(r"_N(\d\d)(\d\d)(?:_|$)")


@dataclass
class Found:
    """One band as a reader found it. ``offset`` and ``quantification`` are None where nothing states them."""

    file: RasterFile
    header: Header
    index: int = 1
    offset: float | None = None
    quantification: float | None = None


@dataclass
class Facts:
    """What a product says of itself."""

    name: str
    source: str
    level: Level | None = None
    platform: str | None = None
    acquired: datetime | None = None
    baseline: str | None = None
    warnings: list[str] = field(default_factory=list)


def facts_from_names(source: str, name: str, *more: str) -> Facts:
    """What file and folder names tell: level, platform, acquisition time, baseline."""
    texts = (name, *more)
    facts = Facts(name, source)
    for text in texts:
        facts.level = facts.level or level_of(text)
        facts.platform = facts.platform or platform_of(text)
        facts.acquired = facts.acquired or _compact_time(text)
        facts.baseline = facts.baseline or baseline_of(text)
    return facts


def level_of(text: str) -> Level | None:
    """``L1C`` or ``L2A`` from a product's name, type or level."""
    found = _LEVEL.search(text)
    if not found:
        return None
    return "L1C" if found.group(1).upper() == "1C" else "L2A"


def platform_of(text: str) -> str | None:
    """``S2A`` … ``S2D`` from any of its spellings."""
    found = _PLATFORM.search(text)
    return f"S2{found.group(1).upper()}" if found else None


def baseline_of(product: str) -> str | None:
    """``05.09`` from a compact product name's ``N0509``."""
    found = _BASELINE.search(product)
    return f"{found.group(1)}.{found.group(2)}" if found else None


def offset_of_baseline(baseline: str | None) -> float | None:
    """The offset that a processing baseline implies in unharmonised pixels; None where it is not known."""
    found = re.fullmatch(r"(\d\d)\.(\d\d)", baseline or "")
    if not found:
        return None
    return -1000.0 if int(found.group(1)) >= 4 else 0.0


def iso_time(text: str | None) -> datetime | None:
    """An ISO time in UTC, or None."""
    try:
        time = datetime.fromisoformat((text or "").strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return time.astimezone(timezone.utc) if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _compact_time(text: str) -> datetime | None:
    found = _TIME.search(text)
    if not found:
        return None
    try:
        # BigEarthNet's names have lost leading zeros of the hour.
        time = datetime.strptime(found.group(1) + found.group(2).zfill(6), "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return time.replace(tzinfo=timezone.utc)


def build_scene(
    facts: Facts, found: dict[str, Found], options: SceneOptions, pool: FilePool, scl: RasterFile | None = None
) -> Scene:
    """Settle radiometry and common grid of the bands found. Raises `InputError`."""
    found = {name: found[name] for name in BANDS if name in found}
    if not found:
        raise InputError(f"{facts.source} holds no Sentinel-2 band.")
    for name, band in found.items():
        dtype = band.header.dtypes[band.index - 1]
        if dtype in ("uint8", "int8") or dtype.startswith("complex"):
            raise InputError(
                f"{name} of {band.file.label} has pixels of type {dtype}: a picture, not Sentinel-2's measurements."
            )
    warnings = list(facts.warnings)
    level = facts.level
    if options.processing_level:
        if level and level != options.processing_level:
            warnings.append(f"{facts.name} says {level}; it is treated as {options.processing_level}, as asked.")
        level = options.processing_level
    alignment = align({name: band.header for name, band in found.items()})
    warnings += alignment.warnings
    radiometry = _radiometry(found, options, pool, warnings)
    bands = {
        name: SceneBand(
            name=name,
            resolution=BANDS[name].resolution,
            stored_resolution=place.stored_resolution,
            offset=radiometry[name][0],
            quantification=radiometry[name][1],
            nodata=found[name].header.nodata[found[name].index - 1],
            dtype=found[name].header.dtypes[found[name].index - 1],
            file=found[name].file,
            index=found[name].index,
            col=place.col,
            row=place.row,
        )
        for name, place in alignment.places.items()
    }
    return Scene(
        name=facts.name,
        source=facts.source,
        level=level,
        platform=facts.platform,
        acquired=facts.acquired,
        baseline=facts.baseline,
        bands=bands,
        grid=alignment.grid,
        multiple=alignment.multiple,
        warnings=warnings,
        files=pool,
        scl=scl,
    )


def _radiometry(
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
