"""The shift between two images of the same ground on one grid, to a fraction of a pixel, block by block.

Cross-correlation of the images' detail with an up-sampled peak (Guizar-Sicairos et al. 2008, doi:10.1364/OL.33.000156).
Detail is the band between two Gaussians: what is finer than a Sentinel-2 pixel is in one of the images only, and full
whitening (phase correlation proper) lets just that noise decide; what is coarser is light and season.

The measure is the median shift of blocks spread evenly over the image. The blocks lie where the image's size puts them,
however the image comes in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

from ..raster.tiles import fill
from .measure import Block, Measure, Score, Setup

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

SMALLEST = 16
"""Side of the smallest block, in pixels, that a shift is looked for in."""

SIDE = 64
"""Side of a block; half of that in an image with few of them."""

MOST = 24
"""Most rows, and most columns, of blocks that are looked at."""

LEAST_QUALITY = 0.5
"""Correlation of the detail below which a block's peak is taken for chance."""

_FINE, _COARSE = 0.7, 3.0
_MOST_INVALID = 0.01
_STEPS = 10, 50
_OUTLIER = 4.0
_LARGEST_SPREAD = 2.0
_FEW, _ALONE = 5, 0.7  # fewer blocks than that cannot vouch for each other, so each must be that clear


@dataclass(frozen=True)
class ShiftBlock:
    """The shift of one block, in pixels.

    ``row``, ``col``: its centre. ``dx``, ``dy``: how far the image must go to the right and down to lie on the
    reference. ``quality``: correlation of the detail, 0 to 1. ``used``: not taken for an outlier.
    """

    row: float
    col: float
    dx: float
    dy: float
    quality: float
    used: bool = True


def cuts(length: int) -> list[tuple[int, int]]:
    """(first, past the last) pixel of the blocks along one side: nearly equal, all of them or `MOST` spread evenly."""
    if length <= 0:
        return []
    side = SIDE if length >= 4 * SIDE else max(SIDE // 2, SMALLEST)
    edges = np.linspace(0, length, max(1, round(length / side)) + 1).round().astype(int)
    chosen = np.linspace(0, len(edges) - 2, min(len(edges) - 1, MOST)).round().astype(int)
    return [(int(edges[i]), int(edges[i + 1])) for i in chosen]


def block_shift(reference: Float, moving: Float, valid: Mask) -> tuple[float, float, float] | None:
    """How far ``moving`` must go to lie on ``reference``: (dx, dy, quality), by the band that shows it best.

    ``reference``, ``moving``: (bands, h, w), the same bands of the same pixels. ``valid``: (h, w), where both have
    values. None where the block is too small, has too much nodata or no texture, or where the shift is more than a
    quarter of its side.
    """
    height, width = valid.shape
    if min(height, width) < SMALLEST or np.count_nonzero(~valid) > _MOST_INVALID * valid.size:
        return None
    taper = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    best: tuple[float, Float, Float, NDArray[np.float64]] | None = None
    for band, other in zip(reference, moving, strict=True):
        fixed, free = _detail(band, valid), _detail(other, valid)
        if fixed is None or free is None:
            continue
        place, quality = _peak(fixed * taper, free * taper, 1)
        if best is None or quality > best[0]:
            best = quality, fixed, free, place
    if best is None:
        return None
    quality, fixed, free, place = best
    # The taper stands still and draws the peak towards no shift, the less so the nearer the images already are.
    for steps in _STEPS:
        more, quality = _peak(fixed * taper, shift(free, place, order=3, mode="reflect") * taper, steps)
        place = place + more
    if np.abs(place).max() > min(height, width) / 4:
        return None
    return float(place[1]), float(place[0]), quality


def sift(blocks: list[ShiftBlock]) -> list[ShiftBlock]:
    """Mark blocks as not used: those of poor quality, those far from the rest, and all where they do not agree."""
    quality = np.array([block.quality for block in blocks])
    good = quality >= LEAST_QUALITY
    if np.count_nonzero(good) < _FEW:
        good = quality >= _ALONE
    if good.any():
        places = np.array([(block.dx, block.dy) for block in blocks])
        distance = np.abs(places - np.median(places[good], axis=0)).max(axis=1)
        spread = 1.4826 * float(np.median(distance[good]))
        # Among noise every block has a best place, but each another one.
        good &= (distance <= max(_OUTLIER * spread, 0.1)) & (spread <= _LARGEST_SPREAD)
    return [replace(block, used=bool(used)) for block, used in zip(blocks, good, strict=True)]


def _detail(band: Float, valid: Mask) -> Float | None:
    """What lies between the two Gaussians, or None where there is nothing but rounding."""
    image = fill(np.where(valid, band, np.float32(0)), valid, float(max(band.shape)))
    level = float(np.abs(image).max())
    image = image - image.mean(dtype=np.float64).astype(np.float32)
    detail: Float = gaussian_filter(image, _FINE, mode="nearest") - gaussian_filter(image, _COARSE, mode="nearest")
    return detail if float(detail.std()) > 1e-5 * level else None


def _peak(fixed: NDArray[np.floating], free: NDArray[np.floating], steps: int) -> tuple[NDArray[np.float64], float]:
    """(rows, columns) that ``free`` must go to lie on ``fixed``, by 1 / ``steps``, and the correlation there."""
    from skimage.registration import phase_cross_correlation

    found: Any = phase_cross_correlation(fixed, free, upsample_factor=steps, normalization=None)  # type: ignore[no-untyped-call]
    place, error, _ = found
    return np.asarray(place, np.float64), float(np.sqrt(max(0.0, 1 - float(error) ** 2)))


Cell = tuple[int, int]
_Piece = tuple[Cell, tuple[slice, slice], Float, Mask]


@dataclass
class _Pending:
    """A block of which a part has come: images (2, bands, h, w), where they count (h, w), pixels still to come."""

    images: Float
    valid: Mask
    missing: int


@dataclass(frozen=True)
class _Part:
    counted: bool
    equal: bool
    found: list[ShiftBlock]
    pieces: list[_Piece]


@dataclass
class SpatialShift:
    """The measure at work; a block that lies across the parts' seams is put together as they come."""

    setup: Setup
    halo: int = 0
    blocks: list[ShiftBlock] = field(default_factory=list)
    _pending: dict[Cell, _Pending] = field(default_factory=dict)
    _counted: bool = False
    _equal: bool = True

    def __post_init__(self) -> None:
        self._rows, self._columns = cuts(self.setup.height), cuts(self.setup.width)

    def observe(self, block: Block) -> _Part:
        """See `Accumulator`."""
        rows, columns = block.own
        images = np.stack([block.x[:, rows, columns], block.y[:, rows, columns]])
        valid = block.valid[:, rows, columns]
        shared: Mask = np.logical_and.reduce(valid)
        equal = bool(((images[0] == images[1]) | ~valid).all())
        top, left = block.row + rows.start, block.col + columns.start
        found: list[ShiftBlock] = []
        pieces: list[_Piece] = []
        for i, (cell_rows, ours_rows) in _overlaps(self._rows, top, shared.shape[0]):
            for j, (cell_columns, ours_columns) in _overlaps(self._columns, left, shared.shape[1]):
                values = images[:, :, ours_rows, ours_columns].astype(np.float32)
                counts = shared[ours_rows, ours_columns].copy()
                if counts.shape == self._size((i, j)):
                    found += self._look((i, j), values, counts)
                else:
                    pieces.append(((i, j), (cell_rows, cell_columns), values, counts))
        return _Part(bool(valid.any()), equal, found, pieces)

    def take(self, part: _Part) -> None:
        """See `Accumulator`."""
        self._counted |= part.counted
        self._equal &= part.equal
        self.blocks += part.found
        for cell, place, values, counts in part.pieces:
            if cell not in self._pending:
                size = self._size(cell)
                images = np.zeros((*values.shape[:2], *size), np.float32)
                self._pending[cell] = _Pending(images, np.zeros(size, bool), math.prod(size))
            pending = self._pending[cell]
            pending.images[(..., *place)] = values
            pending.valid[place] = counts
            pending.missing -= counts.size
            if not pending.missing:
                self.blocks += self._look(cell, pending.images, pending.valid)
                del self._pending[cell]

    def vector(self) -> tuple[float, float]:
        """(dx, dy): how far the image must go to the right and down to lie on the reference, in pixels."""
        if self._counted and self._equal:
            return 0.0, 0.0
        used = [block for block in sift(self.blocks) if block.used]
        if not used:
            return math.nan, math.nan
        dx, dy = np.median([(block.dx, block.dy) for block in used], axis=0)
        return float(dx), float(dy)

    def score(self) -> Score:
        """See `Accumulator`."""
        return Score(None, math.hypot(*self.vector()))

    def _size(self, cell: Cell) -> tuple[int, int]:
        (top, bottom), (left, right) = self._rows[cell[0]], self._columns[cell[1]]
        return bottom - top, right - left

    def _look(self, cell: Cell, images: Float, valid: Mask) -> list[ShiftBlock]:
        found = block_shift(images[0], images[1], valid)
        if found is None:
            return []
        (top, bottom), (left, right) = self._rows[cell[0]], self._columns[cell[1]]
        return [ShiftBlock((top + bottom - 1) / 2, (left + right - 1) / 2, *found)]


def _overlaps(spans: list[tuple[int, int]], first: int, length: int) -> list[tuple[int, tuple[slice, slice]]]:
    """The spans that share pixels with [first, first + length): their index, and the shared part in each."""
    found = []
    for index, (start, stop) in enumerate(spans):
        low, high = max(start, first), min(stop, first + length)
        if low < high:
            found.append((index, (slice(low - start, high - start), slice(low - first, high - first))))
    return found


MEASURES = (
    Measure(
        name="spatial_shift",
        title="Spatial shift",
        unit="px",
        perfect=0.0,
        definitions={
            "reference": "Length of the median shift of up to 24 x 24 blocks, each where the detail of the two images "
            "correlates best, to 1/50 pixel; blocks without texture and outliers are left out. Guizar-Sicairos et al. "
            "2008, doi:10.1364/OL.33.000156."
        },
        create=SpatialShift,
    ),
)
