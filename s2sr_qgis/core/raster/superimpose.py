"""Superimpose: an image resampled to another image's grid, as OTB's application of that name does it.

The convention is that of every room: a position counts in pixels of the moving image, its first pixel's centre is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray
from rasterio.crs import CRS
from rasterio.warp import transform
from scipy.sparse import csr_matrix

from ..errors import InputError
from .grid import Grid, Window
from .image import Image

Interpolation = Literal["bicubic", "linear", "nearest"]
Engine = Literal["auto", "native", "otb"]
Compat = Literal["none", "otbtf"]
Real = NDArray[np.float64]
Taps = tuple[NDArray[np.intp], Real]
"""Indices of source pixels and their weights, both (taps, ...) for positions (...)."""

LATTICE = 10
"""OTB reprojects only every tenth pixel of the grid, and interpolates the displacements between (its default)."""


def superimpose(
    moving: Image,
    grid: Grid,
    *,
    interpolation: Interpolation = "bicubic",
    fill: float = 0.0,
    engine: Engine = "auto",
    compat: Compat = "none",
    dtype: DTypeLike = np.float32,
) -> Image:
    """Resample an image to a grid, whatever the CRS of either; pixels are computed when they are read.

    "bicubic" is Keys' kernel with alpha -0.5, the weights divided by their sum. Pixels are points: reducing is without
    antialiasing. Up to half a pixel beyond the outermost centres the edge is replicated.

    ``compat`` "none": a pixel whose position lies outside the moving image or in one of its pixels without value has
    none itself: NaN, in an integer ``dtype`` ``fill``. Other pixels without value have no weight. Integers are rounded.
    ``compat`` "otbtf": the numbers of OTB 8.1's Superimpose. ``fill`` lies outside, nodata is interpolated as if it
    were a value, and integers are truncated. ``engine`` "otb" runs OTB itself, so ``compat`` has no say there.

    Raises `InputError` for an image without CRS where the grid has one (or the reverse) and for an unknown name,
    `MissingPackageError` where the engine is absent.
    """
    check_name("interpolation", interpolation, get_args(Interpolation))
    check_name("engine", engine, get_args(Engine))
    check_name("compat", compat, get_args(Compat))
    if bool(moving.grid.crs) != bool(grid.crs):
        which = "grid" if moving.grid.crs else "image to be superimposed"
        raise InputError(f"The {which} has no coordinate reference system; assign one, with gdal_edit.py -a_srs.")
    if engine == "otb":
        from .otb import otb_superimpose

        return otb_superimpose(moving, grid, interpolation=interpolation, fill=fill, dtype=dtype)
    return SuperimposedImage(moving, grid, interpolation, fill, compat, dtype)


class SuperimposedImage:
    """What the native engine of `superimpose` gives: an `Image` that reads of its source what a window needs."""

    def __init__(
        self, moving: Image, grid: Grid, interpolation: Interpolation, fill: float, compat: Compat, dtype: DTypeLike
    ) -> None:
        self._moving = moving
        self._interpolation: Interpolation = interpolation
        self._fill = fill
        self._compat = compat
        self.grid = grid
        self.dtype = np.dtype(dtype)
        self.nodata = output_nodata(moving.nodata, fill, compat, self.dtype)

    @property
    def bands(self) -> Sequence[str]:
        """Those of the moving image."""
        return self._moving.bands

    def read(self, window: Window | None = None) -> NDArray[Any]:
        """See `Image.read`."""
        rows, cols = self._positions(window or self.grid.window)
        source = self._moving.grid
        inside = within(rows, source.height) & within(cols, source.width)
        if inside.all():
            return as_type(self._interpolated(rows, cols, inside), self.dtype, self._compat, self._fill)
        empty = math.nan if self._compat == "none" else self._fill
        result = np.full((len(self.bands), *inside.shape), empty, np.float64)
        if inside.any():
            # Positions outside are moved to the edge only to give the taps something to stand on.
            rows, cols = (np.clip(p, -0.5, n - 0.5) for p, n in ((rows, source.height), (cols, source.width)))
            values = self._interpolated(rows, cols, inside)
            np.copyto(result, values, where=inside)
        return as_type(result, self.dtype, self._compat, self._fill)

    def _interpolated(self, rows: Real, cols: Real, inside: NDArray[np.bool_]) -> Real:
        source = self._moving.grid
        row_taps = taps(rows, source.height, self._interpolation)
        col_taps = taps(cols, source.width, self._interpolation)
        needed = bounding_window(row_taps, col_taps, inside)
        pixels = self._moving.read(needed)
        # Pixels that are outside, and in a reprojected window far off, may need what was not read.
        row_taps = (np.clip(row_taps[0] - needed.row, 0, needed.height - 1), row_taps[1])
        col_taps = (np.clip(col_taps[0] - needed.col, 0, needed.width - 1), col_taps[1])
        valid = None if self._compat == "otbtf" else valid_pixels(pixels, self._moving.nodata)
        image = pixels.astype(np.float64)
        if valid is None or valid.all():
            return weighted(image, row_taps, col_taps)
        weight = weighted(valid.astype(np.float64), row_taps, col_taps)
        total = weighted(np.where(valid, image, 0.0), row_taps, col_taps)
        nearest = [
            np.clip(centre_index(p, n) - first, 0, size - 1)
            for p, n, first, size in (
                (rows, source.height, needed.row, needed.height),
                (cols, source.width, needed.col, needed.width),
            )
        ]
        usable = valid[:, nearest[0], nearest[1]] & (weight > 1e-6)
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=usable)

    def _positions(self, window: Window) -> tuple[Real, Real]:
        """Where the pixels of a window lie in the moving image: rows (h, 1) or (h, w), columns (1, w) or (h, w)."""
        source, grid = self._moving.grid, self.grid
        cols = np.arange(window.col, window.col + window.width, dtype=np.float64)[None, :]
        rows = np.arange(window.row, window.row + window.height, dtype=np.float64)[:, None]
        x, y = _ground(grid, rows, cols)
        if self._compat == "otbtf" and grid.crs:
            dx, dy = _otb_displacement(grid, source.crs, x, y)
            x, y = x + dx, y + dy
        elif source.crs != grid.crs:
            x, y = reprojected(grid.crs, source.crs, *np.broadcast_arrays(x, y))
        return _position(source, x, y)


def _ground(grid: Grid, rows: Real, cols: Real) -> tuple[Real, Real]:
    """Coordinates of pixels' centres; (h, 1) and (1, w) are enough."""
    return (grid.x + 0.5 * grid.spacing) + cols * grid.spacing, (
        grid.y - 0.5 * grid.pixel_height
    ) - rows * grid.pixel_height


def _position(grid: Grid, x: Real, y: Real) -> tuple[Real, Real]:
    """Rows and columns, fractions of pixels counted from the first one's centre, of coordinates."""
    left, top = grid.x + 0.5 * grid.spacing, grid.y - 0.5 * grid.pixel_height
    return (top - y) * (1.0 / grid.pixel_height), (x - left) * (1.0 / grid.spacing)


def _otb_displacement(grid: Grid, crs: CRS, x: Real, y: Real) -> tuple[Real, Real]:
    """How far OTB moves pixels' centres, (h, w): bilinear between the displacements of every tenth pixel.

    OTB goes through longitude and latitude even where both CRS are the same. Its rounding decides ties, and between
    metres and degrees it is seen in the third decimal of a value: every operation is done in OTB's order.
    """
    unit_x, unit_y = LATTICE * grid.spacing, LATTICE * grid.pixel_height
    left, top = grid.x + 0.5 * grid.spacing, grid.y - 0.5 * grid.pixel_height
    at_col, at_row = (x - left) * (1.0 / unit_x), (top - y) * (1.0 / unit_y)
    base_col, base_row = np.floor(at_col), np.floor(at_row)
    right, down = at_col - base_col, at_row - base_row
    knots_x = left + unit_x * np.arange(base_col.min(), base_col.max() + 2)
    knots_y = top - unit_y * np.arange(base_row.min(), base_row.max() + 2)
    kx, ky = np.meshgrid(knots_x, knots_y)
    moved = reprojected(CRS.from_epsg(4326), crs, *reprojected(grid.crs, CRS.from_epsg(4326), kx, ky))
    i, j = (base_row - base_row.min()).astype(np.intp), (base_col - base_col.min()).astype(np.intp)
    dx, dy = (
        (1.0 - right) * (1.0 - down) * d[i, j]
        + right * (1.0 - down) * d[i, j + 1]
        + (1.0 - right) * down * d[i + 1, j]
        + right * down * d[i + 1, j + 1]
        for d in (moved[0] - kx, moved[1] - ky)
    )
    return dx, dy


def check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    """Raise `InputError` for a name that is none of the known ones."""
    if name not in known:
        raise InputError(f"The {what} '{name}' is not known; choose one of {', '.join(known)}.")


def reprojected(source: CRS, target: CRS, x: Real, y: Real) -> tuple[Real, Real]:
    """Coordinates of one CRS in another, in the shape given; where there are none: infinite."""
    xs, ys = transform(source, target, x.ravel(), y.ravel())
    return np.asarray(xs, np.float64).reshape(x.shape), np.asarray(ys, np.float64).reshape(y.shape)


def within(position: Real, size: int) -> NDArray[np.bool_]:
    """Which positions lie on an axis of that many pixels."""
    return (position >= -0.5) & (position < size - 0.5)


def centre_index(position: Real, size: int) -> NDArray[np.intp]:
    """The pixel in which a position lies; halves go up."""
    return np.clip(np.floor(position + 0.5), 0, size - 1).astype(np.intp)


def taps(position: Real, size: int, interpolation: Interpolation) -> Taps:
    """The source pixels of positions along one axis and their weights; beyond the edge its pixel is repeated."""
    if interpolation == "nearest":
        return centre_index(position, size)[None], np.ones((1, *position.shape))
    if interpolation == "linear":
        base = np.floor(position)
        offset = position - base
        reach, weights = np.arange(2), np.stack([1 - offset, offset])
    else:
        base = np.floor(position + 0.5)
        reach = np.arange(-2, 3)
        steps = reach.reshape(-1, *[1] * position.ndim)
        weights = keys_cubic(np.abs(steps - (position - base)))
        weights = weights / weights.sum(axis=0)
    index = base[None] + reach.reshape(-1, *[1] * position.ndim)
    return np.clip(index, 0, size - 1).astype(np.intp), weights


def keys_cubic(distance: Real) -> Real:
    """Keys' convolution kernel (1981, doi:10.1109/TASSP.1981.1163711) with alpha -0.5; ``distance`` in pixels, >= 0."""
    d, alpha = distance, -0.5
    square = d * d
    cube = square * d  # the power function takes many times as long
    near = (alpha + 2) * cube - (alpha + 3) * square + 1
    far = alpha * cube - 5 * alpha * square + 8 * alpha * d - 4 * alpha
    return np.where(d <= 1, near, np.where(d <= 2, far, 0.0))


def weighted(image: Real, rows: Taps, cols: Taps) -> Real:
    """Sums of an image (bands, h, w) over taps: along one axis after the other where rows and columns are separate."""
    (row, row_weight), (col, col_weight) = rows, cols
    if row.shape[-1] == 1 and col.shape[-2] == 1:
        part = np.asarray(sum(w * image[:, :, i[0]] for i, w in zip(col, col_weight, strict=True)))
        # The rows are as many as those of the result: a sparse matrix adds them up without images between.
        count = row.shape[1]
        places = np.tile(np.arange(count), len(row)), row[:, :, 0].ravel()
        matrix = csr_matrix((row_weight[:, :, 0].ravel(), places), (count, image.shape[1]))
        total = np.empty((len(image), count, part.shape[2]))
        for band, sums in zip(part, total, strict=True):
            sums[...] = matrix @ band
        return total
    total = np.zeros((len(image), *np.broadcast_shapes(row.shape[1:], col.shape[1:])))
    flat = np.ascontiguousarray(image).reshape(len(image), -1)
    for i, v in zip(row, row_weight, strict=True):
        for j, w in zip(col, col_weight, strict=True):
            place, weight = i * image.shape[2] + j, v * w
            for band, sums in zip(flat, total, strict=True):
                sums += weight * band[place]
    return total


def bounding_window(rows: Taps, cols: Taps, inside: NDArray[np.bool_]) -> Window:
    """The smallest window with all source pixels of the positions that are inside."""
    (top, bottom), (left, right) = (_used(index, inside) for index, _ in (rows, cols))
    return Window(left, top, right - left + 1, bottom - top + 1)


def _used(index: NDArray[np.intp], inside: NDArray[np.bool_]) -> tuple[int, int]:
    """Smallest and largest index of the positions that are inside; an axis of length 1 stands for the whole one."""
    if not inside.all():
        seen = inside
        for axis, length in enumerate(index.shape[1:]):
            seen = np.any(seen, axis=axis, keepdims=True) if length == 1 else seen
        index = index[:, seen]
    return int(index.min()), int(index.max())


def valid_pixels(pixels: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Which pixels have a value: neither NaN nor the nodata value."""
    valid = np.isfinite(pixels) if pixels.dtype.kind == "f" else np.ones(pixels.shape, bool)
    if nodata is not None and not math.isnan(nodata):
        valid &= pixels != nodata
    return valid


def output_nodata(nodata: float | None, fill: float, compat: Compat, dtype: np.dtype[Any]) -> float:
    """The nodata value of a result: OTB tags it with the source's, else with the fill."""
    if compat == "otbtf":
        return fill if nodata is None else nodata
    return math.nan if dtype.kind == "f" else fill


def as_type(values: NDArray[np.floating[Any]], dtype: np.dtype[Any], compat: Compat, fill: float) -> NDArray[Any]:
    """Values in the type of the result: integers clamped, and rounded or as OTB truncated; NaN becomes ``fill``."""
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    # OTB's pipelines are of float32, and 99.9999999 is 100 there.
    whole = np.trunc(values.astype(np.float32)) if compat == "otbtf" else np.rint(values)
    whole = np.where(np.isnan(whole), fill, whole.astype(np.float64))
    return np.clip(whole, limits.min, limits.max).astype(dtype)
