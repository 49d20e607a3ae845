"""What a product is called and what that says: level, platform, acquisition time, processing baseline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from .files import Header, RasterFile
from .scene import Level

_PLATFORM = re.compile(r"(?:S(?:entinel)?[-_ ]?2)([A-D])(?![a-z0-9])", re.IGNORECASE)
_LEVEL = re.compile(r"(?:MSI_?L?|Level-?|(?:^|[_-])L)(1C|2A)", re.IGNORECASE)
_TIME = re.compile(r"(\d{8})T(\d{5,6})(?!\d)")
_BASELINE = re.compile(r"(?:^|[_. -])N(\d\d)\.?(\d\d)(?=[_. -]|$)")
_PRODUCT = re.compile(r"S2[A-D]_(?:MSI|OPER|USER)|SENTINEL2[A-DX]_\d{8}", re.IGNORECASE)
_MUSCATE = re.compile(r"SENTINEL2[A-DX]_\d{8}-\d{6}-\d{3}_L2A_T\d{2}[A-Z]{3}_", re.IGNORECASE)
_HARMONIZED = re.compile(r"(?<![a-z])harmoni[sz]ed", re.IGNORECASE)
_BASELINE_TAG = re.compile(r"(?:^|_)PROCESSING_?BASELINE$", re.IGNORECASE)
_UNIT_TAG = re.compile(r"^(?:BOA_|L2A_BOA_)?QUANTIFICATION_VALUE$", re.IGNORECASE)

OFFICIAL = 20
"""Baselines of ESA lie below this; Sen2Cor run at home writes 99.99 or 99.33."""

MUSCATE_NODATA = -10000.0
"""Nodata of MUSCATE's (Theia's) reflectances, which their files do not tag."""


@dataclass
class Found:
    """One band as a reader found it. ``offset`` and ``quantification`` are None where nothing states them.

    ``checked``: what is stated is of the product, while the file may be a copy that is scaled already (STAC).
    """

    file: RasterFile
    header: Header
    index: int = 1
    offset: float | None = None
    quantification: float | None = None
    checked: bool = False


@dataclass
class Facts:
    """What a product says of itself.

    ``baseline_from``: what states the baseline, for a sentence, where it is not the product's metadata. ``offset``:
    what the product's family states. ``nodata``: a convention of the product's family that its files need not tag.
    """

    name: str
    source: str
    level: Level | None = None
    platform: str | None = None
    acquired: datetime | None = None
    baseline: str | None = None
    baseline_from: str = ""
    offset: float | None = None
    nodata: float | None = None
    warnings: list[str] = field(default_factory=list)

    def learn(self, tags: Mapping[str, str]) -> None:
        """Take from a raster's tags what names do not say."""
        for key, text in tags.items():
            named = text if _PRODUCT.search(text) else ""
            self.level = self.level or (level_of(text) if "LEVEL" in key.upper() else None) or level_of(named)
            self.platform = self.platform or platform_of(named)
            self.acquired = self.acquired or _compact_time(named)
            stated = text.strip() if _BASELINE_TAG.search(key) else baseline_of(named)
            if not self.baseline and stated and re.fullmatch(r"\d{1,2}\.\d\d", stated):
                self.baseline, self.baseline_from = stated.zfill(5), f"the tag {key}"
            if _HARMONIZED.search(text):
                self.offset = 0.0


def facts_from_names(source: str, name: str, *more: str) -> Facts:
    """What file and folder names tell: level, platform, acquisition time, baseline."""
    texts = (name, *more)
    facts = Facts(name, source)
    for text in texts:
        facts.level = facts.level or level_of(text)
        facts.platform = facts.platform or platform_of(text)
        facts.acquired = facts.acquired or _compact_time(text)
        if not facts.baseline and baseline_of(text):
            facts.baseline, facts.baseline_from = baseline_of(text), f"the name {text}"
        if _MUSCATE.search(text):
            facts.offset, facts.nodata = 0.0, MUSCATE_NODATA
        if _HARMONIZED.search(text):
            facts.offset = 0.0
    return facts


def product_names(path: Path) -> list[str]:
    """The names of a path and of the folders above it that are product names, nearest first, without suffix."""
    names = [part.name for part in (path, *path.parents)]
    return [re.sub(r"\.(SAFE|zip)$", "", name, flags=re.IGNORECASE) for name in names if _PRODUCT.search(name)]


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
    """``05.09`` from a product name's ``N0509``, ``02.01`` from an old granule's ``N02.01``."""
    found = _BASELINE.search(product) if re.search(r"S2[A-D]|MSI|Sentinel", product, re.IGNORECASE) else None
    return f"{found.group(1)}.{found.group(2)}" if found else None


def offset_of_baseline(baseline: str | None) -> float | None:
    """The offset that a processing baseline implies in unharmonised pixels; None where it is not known."""
    found = re.fullmatch(r"(\d\d)\.(\d\d)", baseline or "")
    if not found or int(found.group(1)) >= OFFICIAL:
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
