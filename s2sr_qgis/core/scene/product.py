"""What a product is called and what that says: level, platform, acquisition time, processing baseline."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timezone

from .files import Header, RasterFile
from .scene import Level

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
