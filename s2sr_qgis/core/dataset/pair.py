"""Do two images of one ground make training pairs? Their overlap, dates, shift, radiometry and clouds are measured.

The check looks at blocks spread evenly over the ground, at most 24 in each direction: a whole scene costs as little
memory and hardly more time than an extract, and its figures are then estimates from those blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, InputError
from ..progress import Progress
from ..raster.degradation import degrade
from ..raster.grid import Grid, Window
from ..raster.image import Image
from ..similarity.shift import ShiftBlock, block_shift, cuts, sift
from .pair_figures import PairCheck, PairLimits, Samples, reasons, refuse
from .pair_sums import Overview, Radiometry
from .validity import valid_pixels

__all__ = ["PairCheck", "PairLimits", "check_pair", "harmonized", "reasons", "refuse"]

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

_OFF_GRID = 0.05


def check_pair(
    lr: Image,
    reference: Image,
    *,
    days: float | None = None,
    clouds: Image | float | None = None,
    sentinel2_pixel: float = 1.0,
    corrected: tuple[float, float] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> PairCheck:
    """Measure a pair; nothing is refused here.

    Args:
        lr: the Sentinel-2 bands on the low-resolution grid.
        reference: the same bands of the finer image, in the same order; its pixels nest in the low-resolution ones.
        days: between the two, where both dates are known.
        clouds: one band on the low-resolution grid, not 0 where there is cloud or its shadow; or a share, where the
            clouds are nodata in ``lr`` already.
        sentinel2_pixel: side of a Sentinel-2 pixel in low-resolution pixels.
        corrected: (dx, dy) in low-resolution pixels that ``lr`` has been moved by.
        seed: of the pixels that the regression is drawn from.

    Raises `InputError` where the CRS, the number of bands, or the sizes of the masks differ, or the grids do not nest.
    """
    progress = progress or Progress()
    mask, cloudy_share = (None, clouds) if clouds is None or isinstance(clouds, float | int) else (clouds, None)
    _check_inputs(lr, reference, mask)
    ratio, common, corner = _common(lr.grid, reference.grid)
    rows, columns = cuts(common.height), cuts(common.width)
    radiometry = Radiometry(len(lr.bands), np.random.default_rng(seed))
    overview = Overview(rows, columns, len(lr.bands))
    blocks: list[ShiftBlock] = []
    windows: list[Window] = []
    counts = np.zeros(5, np.int64)  # pixels, with reference, with both, cloudy, clear
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            progress.check()
            window = Window(common.col + left, common.row + top, right - left, bottom - top)
            images, seen = _read(lr, reference, window, ratio, corner)
            both = seen[0] & seen[1]
            clear = both if mask is None else both & (mask.read(window)[0] == 0)
            cloudy = both & ~clear
            counts += [both.size, *(int(m.sum()) for m in (seen[1], both, cloudy, clear))]
            overview.put(i, j, images, seen)
            radiometry.add(images, clear)
            found = block_shift(images[1], images[0], clear)
            if found is not None:
                row, col = window.row + (window.height - 1) / 2, window.col + (window.width - 1) / 2
                blocks.append(ShiftBlock(row, col, *found))
                windows.append(window)
    pixels, known, shared, clouded, usable = (int(count) for count in counts)
    area = common.width * common.height * ratio**2 / (reference.grid.width * reference.grid.height)
    best = max(range(len(blocks)), key=lambda k: blocks[k].quality) if blocks else None
    return PairCheck(
        ratio=ratio,
        width=lr.grid.width,
        height=lr.grid.height,
        sentinel2_pixel=sentinel2_pixel,
        overlap=min(area, 1.0) * shared / max(known, 1),
        valid=usable / max(pixels, 1),
        clouds=cloudy_share if mask is None else clouded / max(shared, 1),
        days=days,
        blocks=sift(blocks),
        tried=len(rows) * len(columns),
        bands=radiometry.relations(lr.bands, reference.bands),
        read=pixels / max(common.width * common.height, 1),
        corrected=corrected,
        samples=Samples(radiometry.cells, overview.images, None if best is None else windows[best]),
    )


def harmonized(reference: Image, check: PairCheck) -> Image:
    """The reference with the radiometry of the low-resolution image: slope × value + offset, band by band, lazily.

    float32, NaN where a band has no value. Raises `DatasetError` where the check found no relation.
    """
    lacking = [band.name for band in check.bands if band.slope is None or band.offset is None]
    if lacking:
        raise DatasetError(
            f"The reference cannot be harmonized: no relation of the band {lacking[0]} was found; choose a larger area "
            "or leave out harmonize."
        )
    slopes = [band.slope for band in check.bands if band.slope is not None]
    offsets = [band.offset for band in check.bands if band.offset is not None]
    return _Harmonized(reference, slopes, offsets)


class _Harmonized:
    """An `Image`; see `harmonized`."""

    def __init__(self, image: Image, slopes: Sequence[float], offsets: Sequence[float]) -> None:
        self._image = image
        self._slopes, self._offsets = (np.array(v, np.float32)[:, None, None] for v in (slopes, offsets))
        self.grid = image.grid
        self.bands = image.bands
        self.nodata = math.nan
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def read(self, window: Window | None = None) -> NDArray[Any]:
        """See `Image.read`."""
        pixels = self._image.read(window)
        values: Float = pixels.astype(np.float32) * self._slopes + self._offsets
        if self._image.nodata is not None:
            values[pixels == self._image.nodata] = np.nan
        return values


def _check_inputs(lr: Image, reference: Image, mask: Image | None) -> None:
    if len(lr.bands) != len(reference.bands):
        raise InputError(
            f"The low-resolution image has {len(lr.bands)} bands and the reference {len(reference.bands)}; "
            "name as many Sentinel-2 bands as the reference has, in its order."
        )
    if mask is not None and (mask.grid.width, mask.grid.height) != (lr.grid.width, lr.grid.height):
        raise InputError(
            f"The cloud mask has {mask.grid.width} x {mask.grid.height} pixels, the low-resolution image "
            f"{lr.grid.width} x {lr.grid.height}; give a mask on the same grid."
        )


def _common(lr: Grid, reference: Grid) -> tuple[int, Window, tuple[int, int]]:
    """Ratio, the low-resolution pixels that lie on the reference, and the reference's (row, col) at ``lr``'s corner."""
    if lr.crs != reference.crs:
        raise InputError(
            f"The low-resolution image is in {_crs(lr)} and the reference in {_crs(reference)}; "
            "warp one to the CRS of the other."
        )
    ours, its = lr.bounds, reference.bounds
    if ours[0] >= its[2] or its[0] >= ours[2] or ours[1] >= its[3] or its[1] >= ours[3]:
        return max(round(lr.spacing / reference.spacing), 1), Window(0, 0, 0, 0), (0, 0)
    wide, high = lr.spacing / reference.spacing, lr.pixel_height / reference.pixel_height
    ratio = round(wide)
    x, y = (lr.x - reference.x) / reference.spacing, (reference.y - lr.y) / reference.pixel_height
    col, row = round(x), round(y)
    drift = max(abs(wide - ratio) * lr.width, abs(high - ratio) * lr.height)  # of the last pixel
    if ratio < 1 or drift > 0.5 or max(abs(x - col), abs(y - row)) > _OFF_GRID:
        raise InputError(
            f"The reference's pixels of {reference.spacing:g} do not nest in the low-resolution ones of "
            f"{lr.spacing:g}: the ratio is {wide:g} and the corners lie ({x:g}, {y:g}) pixels apart; resample one."
        )
    top, left = -(row // ratio), -(col // ratio)
    bottom, right = (reference.height - row) // ratio, (reference.width - col) // ratio
    return ratio, Window(left, top, right - left, bottom - top).clipped(lr.width, lr.height), (row, col)


def _crs(grid: Grid) -> str:
    return grid.crs.to_string() if grid.crs else "no CRS"


def _read(
    lr: Image, reference: Image, window: Window, ratio: int, corner: tuple[int, int]
) -> tuple[Float, tuple[Mask, Mask]]:
    """Low-resolution image and reference reduced to its grid, (2, bands, h, w), and where each is valid, (h, w)."""
    row, col = corner[0] + window.row * ratio, corner[1] + window.col * ratio
    coarse = lr.read(window)
    fine = reference.read(Window(col, row, window.width * ratio, window.height * ratio))
    seen, fine_seen = valid_pixels(coarse, lr.nodata), valid_pixels(fine, reference.nodata)
    whole = np.asarray(fine_seen.reshape(window.height, ratio, window.width, ratio).all(axis=(1, 3)))
    fine = np.where(fine_seen, fine, 0).astype(np.float32)
    coarse = np.where(seen, coarse, 0).astype(np.float32)
    return np.stack([coarse, degrade(fine, ratio, 0.0)]), (seen, whole)
