"""The figures of a pair of images, and what they must be for a dataset."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from ..jobs import CreateCrossSensorDatasetJob
from ..progress import Progress
from ..raster.grid import Window
from ..similarity.shift import ShiftBlock

Float = NDArray[np.float32]


@dataclass(frozen=True)
class PairLimits:
    """What a pair must keep. ``max_shift`` in Sentinel-2 pixels; ``min_overlap`` a share of the reference's ground."""

    max_shift: float = 1.0
    max_days: float = 60.0
    min_correlation: float = 0.3
    min_overlap: float = 0.05

    @classmethod
    def of(cls, job: CreateCrossSensorDatasetJob) -> PairLimits:
        """The limits that a job sets."""
        return cls(job.max_shift, job.max_days, job.min_correlation)


@dataclass(frozen=True)
class BandRelation:
    """One pair of bands: low-resolution value = ``slope`` × reference + ``offset``; None where it cannot be told."""

    name: str
    reference: str
    slope: float | None
    offset: float | None
    correlation: float | None


@dataclass(frozen=True)
class Samples:
    """What the check saw, for pictures.

    ``cells``: (n, 2, bands), low-resolution value and reference. ``overview``: both images, (2, bands, h, w), NaN
    where invalid. ``best``: the clearest block, on the low-resolution grid.
    """

    cells: Float
    overview: Float
    best: Window | None


@dataclass(frozen=True)
class PairCheck:
    """Figures of a pair. Pixels are the low-resolution image's unless they are called Sentinel-2's.

    Attributes:
        ratio: how many pixels of the reference one pixel is wide.
        width, height: of the low-resolution image in pixels.
        sentinel2_pixel: side of a Sentinel-2 pixel in pixels.
        overlap: share of the reference's ground where the low-resolution image has values.
        valid: share of the common pixels that can be used: values in both images, no cloud.
        clouds: share of the ground where both have values; None where that is not known.
        days: between the two images; None where that is not known.
        blocks: the shifts found, of ``tried`` blocks looked at.
        bands: the radiometric relation of each pair of bands.
        read: share of the common ground that was looked at.
        corrected: (dx, dy) in pixels that the low-resolution image was moved by before this check.
        samples: for pictures; no part of the figures.
    """

    ratio: int
    width: int
    height: int
    sentinel2_pixel: float
    overlap: float
    valid: float
    clouds: float | None
    days: float | None
    blocks: list[ShiftBlock]
    tried: int
    bands: list[BandRelation]
    read: float
    corrected: tuple[float, float] | None = None
    samples: Samples | None = field(default=None, repr=False, compare=False)

    @property
    def dx(self) -> float | None:
        """How far to move the low-resolution image to the right: the median of the blocks in use, in pixels."""
        return self._median("dx")

    @property
    def dy(self) -> float | None:
        """How far to move the low-resolution image down: the median of the blocks in use, in pixels."""
        return self._median("dy")

    @property
    def shift(self) -> float | None:
        """Length of the median shift in Sentinel-2 pixels; None where no block shows it."""
        return None if self.dx is None or self.dy is None else math.hypot(self.dx, self.dy) / self.sentinel2_pixel

    @property
    def spread(self) -> float | None:
        """How far the blocks in use lie from their median, in Sentinel-2 pixels: a robust standard deviation."""
        if self.dx is None or self.dy is None:
            return None
        off = [math.hypot(block.dx - self.dx, block.dy - self.dy) for block in self.blocks if block.used]
        return 1.4826 * float(np.median(off)) / self.sentinel2_pixel

    def _median(self, name: str) -> float | None:
        used = [getattr(block, name) for block in self.blocks if block.used]
        return float(np.median(used)) if used else None

    def figures(self) -> dict[str, Any]:
        """Every figure as JSON has it."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("samples", "blocks", "bands")}
        shift = {name: getattr(self, name) for name in ("dx", "dy", "shift", "spread")}
        return {**plain, **shift, "blocks": [asdict(b) for b in self.blocks], "bands": [asdict(b) for b in self.bands]}


def reasons(check: PairCheck, limits: PairLimits) -> list[str]:
    """Why a pair is beyond the limits, one sentence each; empty where it keeps them."""
    if check.overlap == 0:
        return [
            "The Sentinel-2 scene and the reference do not overlap: nowhere do both have values; choose a scene that "
            "covers the reference."
        ]
    found = []
    if check.overlap < limits.min_overlap:
        found.append(
            f"The Sentinel-2 scene covers only {check.overlap:.1%} of the reference, less than "
            f"{limits.min_overlap:.0%}; choose another scene."
        )
    if check.days is not None and check.days > limits.max_days:
        found.append(
            f"The two images lie {check.days:.0f} days apart, more than {limits.max_days:g}; choose a scene nearer in "
            "time or raise --max-days."
        )
    if check.valid == 0:
        return [*found, "Clouds cover all that the two images share; choose a clearer scene."]
    return found + _shift_reasons(check, limits) + _band_reasons(check, limits)


def _shift_reasons(check: PairCheck, limits: PairLimits) -> list[str]:
    if check.shift is None:
        return [
            f"The shift between the images cannot be measured: none of {check.tried} blocks has texture that both "
            "show; choose a clearer scene or a larger area."
        ]
    if check.shift > limits.max_shift:
        return [
            f"The images are shifted by {check.shift:.2f} Sentinel-2 pixels, more than {limits.max_shift:g}; correct "
            "that with --coregister or raise --max-shift."
        ]
    return []


def _band_reasons(check: PairCheck, limits: PairLimits) -> list[str]:
    found = []
    for band in check.bands:
        names = f"Band {band.name} of the Sentinel-2 scene and band {band.reference} of the reference"
        if band.correlation is None:
            found.append(f"{names} cannot be compared: one is the same everywhere; choose another area.")
        elif band.correlation < limits.min_correlation:
            found.append(
                f"{names} correlate by {band.correlation:.2f} only, less than {limits.min_correlation:g}; check the "
                "order of the bands or choose another scene."
            )
    return found


def refuse(check: PairCheck, limits: PairLimits, *, force: bool = False, progress: Progress | None = None) -> list[str]:
    """Raise `DatasetError` with the reasons where a pair is beyond the limits; forced, log them and return them."""
    found = reasons(check, limits)
    if found and not force:
        raise DatasetError(f"{' '.join(found)} To make the dataset all the same, use --force (QGIS: Force).")
    for sentence in found:
        (progress or Progress()).log(sentence, "warning")
    return found
