"""FSIM: the feature similarity index, from phase congruency and gradients.

S_PC = (2 PC_x PC_y + 0.85) / (PC_x² + PC_y² + 0.85) and S_G the same of the gradients with 160; FSIM is their product's
mean weighted by max(PC_x, PC_y). Zhang et al. 2011, doi:10.1109/TIP.2011.2109730.

``reference``: of each band as the paper's index of the luminance (no chrominance: FSIM, not FSIMc), brought to 0 to 255
by the data range and reduced to about 256 pixels on its shorter side by means of n x n pixels, n = max(1, round(side /
256)); gradients by Scharr / 16 with zeros outside the image. Rows and columns beyond the last whole n x n are left out.

``up42``: what image-similarity-measures 0.3.6 computes of each band: nothing is scaled or reduced, the congruency is
phasepack's, and gradients are Scharr's without the 16, rounded to integers and 0 where they are negative
(``ddepth=CV_16U``), the image mirrored at its edges. The package squares them in 16 bits: above 255 they wrap around.
That is overflow, and not followed here. Its constants fit 8-bit values only, so the score depends on the bit depth.

Both: the total is the bands' mean. A pixel that does not count takes the value of the nearest that does before the
Fourier transform, and has no weight. Without any feature in either image the mean has equal weights. Identical images
give exactly 1. The image is taken for periodic, so an odd or an even side, the pooling and the image's border make
small differences between an image and its mirrored or repeated forms; `up42` differs more, as it drops half of the
gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.ndimage import correlate1d, distance_transform_edt

from ..errors import InputError
from .measure import Block, Definition, Float, Mask, Measure, Score, Setup, averaged
from .phase_congruency import PhaseCongruency

SHORT_SIDE = 256
"""Pixels that the reference definition reduces the shorter side to, about."""

MOST_MEMORY = 4e9
"""Bytes that the transforms of an image may take; nothing larger is begun."""

_CONGRUENCY, _GRADIENT = 0.85, 160.0
_PIXEL, _BAND = 220, 17
"""Bytes for a pixel: of the transforms of one band, and of what is kept of each band."""


@dataclass(frozen=True)
class _Part:
    """Sums of cells (2, bands, rows, columns), where all of their pixels here count, and the first cell's place."""

    sums: Float
    valid: Mask
    row: int
    col: int


@dataclass
class Fsim:
    """The measure at work: means of cells, which are the pixels themselves where nothing is reduced.

    Raises `InputError` for an image whose transforms would need more than `MOST_MEMORY`.
    """

    setup: Setup
    halo: int = 0
    _sums: Float = field(init=False)
    _valid: Mask = field(init=False)

    def __post_init__(self) -> None:
        setup = self.setup
        self._cell = 1 if setup.definition == "up42" else max(1, round(min(setup.height, setup.width) / SHORT_SIDE))
        rows, columns = setup.height // self._cell, setup.width // self._cell
        needed = rows * columns * (_PIXEL + _BAND * setup.bands)
        if needed > MOST_MEMORY:
            raise InputError(
                f"FSIM by the definition {setup.definition} transforms the whole image: {setup.width} x {setup.height} "
                f"pixels of {setup.bands} bands would take {needed / 1e9:.1f} GB of memory, more than the "
                f"{MOST_MEMORY / 1e9:.0f} GB that it may; {_WAY_OUT[setup.definition]} or leave FSIM out."
            )
        self._sums = np.zeros((2, setup.bands, rows, columns))
        self._valid = np.ones((setup.bands, rows, columns), bool)

    def observe(self, block: Block) -> _Part | None:
        """See `Accumulator`."""
        top, left = block.row + block.own[0].start, block.col + block.own[1].start
        rows, row_starts = self._cells(top, block.own[0], self._valid.shape[1])
        columns, column_starts = self._cells(left, block.own[1], self._valid.shape[2])
        if not (row_starts.size and column_starts.size):
            return None
        images = np.stack([block.x[:, rows, columns], block.y[:, rows, columns]])
        valid = block.valid[:, rows, columns].copy()
        if self._cell > 1:
            images = np.add.reduceat(np.add.reduceat(images, row_starts, axis=2), column_starts, axis=3)
            valid = np.logical_and.reduceat(np.logical_and.reduceat(valid, row_starts, axis=1), column_starts, axis=2)
        return _Part(images, valid, top // self._cell, left // self._cell)

    def take(self, part: _Part | None) -> None:
        """See `Accumulator`."""
        if part is not None:
            place = np.s_[..., part.row : part.row + part.valid.shape[1], part.col : part.col + part.valid.shape[2]]
            self._sums[place] += part.sums
            self._valid[place] &= part.valid

    def score(self) -> Score:
        """See `Accumulator`."""
        scale = 1.0 if self.setup.definition == "up42" else 255 / (self.setup.data_range * self._cell**2)
        congruency = PhaseCongruency(self._valid.shape[1], self._valid.shape[2], self.setup.definition)
        bands = []
        for x, y, valid in zip(*self._sums, self._valid, strict=True):
            if valid.any():
                images = [_filled(image, valid) * scale for image in (x, y)]
                bands.append(_similarity(images, valid, congruency, self.setup.definition))
            else:
                bands.append(np.nan)
        return averaged(bands)

    def _cells(self, first: int, own: slice, cells: int) -> tuple[slice, np.ndarray[tuple[int], np.dtype[np.intp]]]:
        """The part of ``own`` that lies in whole cells, and where in it cells start; its first pixel starts one."""
        length = max(min(own.stop - own.start, cells * self._cell - first), 0)
        starts = np.flatnonzero(np.arange(first, first + length) % self._cell == 0)
        if length and (not starts.size or starts[0]):
            starts = np.concatenate([[0], starts])
        return slice(own.start, own.start + length), starts


_WAY_OUT = {"reference": "compare a part of the image", "up42": "use the definition reference, compare a part"}


def _filled(image: Float, valid: Mask) -> Float:
    """Pixels that do not count take the value of the nearest that does."""
    if valid.all():
        return image
    nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return np.asarray(image[tuple(nearest)], np.float64)


def _similarity(images: list[Float], valid: Mask, congruency: PhaseCongruency, definition: Definition) -> float:
    pc_x, pc_y = congruency.of(images, valid)
    gradient_x, gradient_y = (_gradient(image, definition) for image in images)
    alike = _alike(pc_x, pc_y, _CONGRUENCY) * _alike(gradient_x, gradient_y, _GRADIENT)
    weights = np.where(valid, np.maximum(pc_x, pc_y), 0.0)
    if not weights.any():
        weights = valid.astype(np.float64)
    return float((alike * weights).sum() / weights.sum())


def _alike(x: Float, y: Float, constant: float) -> Float:
    return np.asarray((2 * x * y + constant) / (x * x + y * y + constant), np.float64)


def _gradient(image: Float, definition: Definition) -> Float:
    """Length of Scharr's gradient."""
    up42 = definition == "up42"
    mode: Literal["mirror", "constant"] = "mirror" if up42 else "constant"
    smooth = np.array([3.0, 10.0, 3.0]) / (1 if up42 else 16)
    parts = []
    for axis in (0, 1):
        slope = correlate1d(image, [-1.0, 0.0, 1.0], axis=axis, mode=mode)
        part = correlate1d(slope, smooth, axis=1 - axis, mode=mode)
        parts.append(np.rint(np.maximum(part, 0)) if up42 else part)
    return np.hypot(*parts)


MEASURES = (
    Measure(
        name="fsim",
        title="FSIM",
        unit="",
        perfect=1.0,
        definitions={
            "reference": "Phase congruency (4 scales, 4 orientations) and Scharr gradients of each band, scaled to "
            "0-255 and reduced to about 256 pixels on the shorter side; mean of the bands. Zhang et al. 2011, "
            "doi:10.1109/TIP.2011.2109730.",
            "up42": "As image-similarity-measures 0.3.6: phase congruency of phasepack (6 orientations), gradients "
            "not normalised and without their negative parts, nothing scaled or reduced; mean of the bands.",
        },
        create=Fsim,
    ),
)
