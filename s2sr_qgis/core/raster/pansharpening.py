"""Pansharpening, and BundleToPerfectSensor: superimpose, then pansharpen. As OTB's applications of those names do it.

The three methods are OTB's: "rcs" (ratio of the panchromatic image to its local mean), "lmvm" (local mean and variance
matching, de Béthune et al. 1998) and "bayes" (Fasbender et al. 2008, doi:10.1109/TGRS.2008.917131).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import InputError
from ..progress import Progress
from .grid import Grid, Window
from .image import Image
from .superimpose import Compat, Engine, Interpolation, as_type, check_name, output_nodata, superimpose, valid_pixels
from .tiles import crop, tiles

Method = Literal["rcs", "lmvm", "bayes"]
Float = NDArray[np.float32]
Real = NDArray[np.float64]
Mask = NDArray[np.bool_]

RADIUS = 3
"""Of the square that local means and deviations are taken over, in pixels of the panchromatic image."""
LAMBDA = np.float32(0.9999)
"""Weight of the panchromatic image in "bayes". OTB computes 1 - lambda in float32, which changes the fourth digit."""
BLOCK = 512
"""Side of the windows by which "bayes" reads the whole image for its statistics."""
NO_DEVIATION = 1e-10
"""A local mean or deviation below this divides nothing."""


def bundle_to_perfect_sensor(
    pan: Image,
    xs: Image,
    *,
    method: Method = "rcs",
    interpolation: Interpolation = "bicubic",
    fill: float = 0.0,
    engine: Engine = "auto",
    compat: Compat = "none",
    dtype: DTypeLike = np.float32,
    progress: Progress | None = None,
) -> Image:
    """Superimpose a multispectral image on a panchromatic one and pansharpen it; see `superimpose` and `pansharpen`.

    ``fill``: what OTB takes for the multispectral image beyond its edges; with ``compat`` "none" there is no value.

    Raises `InputError` also where the two differ in CRS or do not overlap.
    """
    if pan.grid.crs != xs.grid.crs:
        raise InputError(
            f"The multispectral and the panchromatic image differ in coordinate reference system ({xs.grid.crs} and "
            f"{pan.grid.crs}); bring one to the other's, with gdalwarp."
        )
    left, bottom, right, top = xs.grid.bounds
    xmin, ymin, xmax, ymax = pan.grid.bounds
    if min(right, xmax) <= max(left, xmin) or min(top, ymax) <= max(bottom, ymin):
        raise InputError(
            f"The multispectral image {xs.grid.bounds} and the panchromatic image {pan.grid.bounds} do not overlap; "
            "name two images of the same ground."
        )
    superimposed = superimpose(xs, pan.grid, interpolation=interpolation, fill=fill, engine=engine, compat=compat)
    return pansharpen(pan, superimposed, method=method, engine=engine, compat=compat, dtype=dtype, progress=progress)


def pansharpen(
    pan: Image,
    xs: Image,
    *,
    method: Method = "rcs",
    engine: Engine = "auto",
    compat: Compat = "none",
    dtype: DTypeLike = np.float32,
    progress: Progress | None = None,
) -> Image:
    """Give the bands of ``xs`` the detail of ``pan``, one band on the same grid; computed when they are read.

    ``compat`` "none": pixels without value, in either image, enter no mean, deviation or statistic, and have none in
    the result (NaN; nodata of ``xs`` or 0 in an integer ``dtype``); integers are rounded. "otbtf": the numbers of OTB
    8.1. ``engine`` "otb" runs OTB itself. "bayes" reads both images completely before the first window, and asks
    ``progress`` whether to stop.

    Raises `InputError` for images that do not fit together and for an unknown name, `MissingPackageError` where the
    engine is absent.
    """
    check_name("method", method, get_args(Method))
    check_name("engine", engine, get_args(Engine))
    check_name("compat", compat, get_args(Compat))
    if len(pan.bands) != 1:
        raise InputError(f"The panchromatic image has {len(pan.bands)} bands, but must have one; pick one of them.")
    if not same_grid(pan.grid, xs.grid):
        raise InputError(
            "The multispectral and the panchromatic image are not on one grid; superimpose the first on the second."
        )
    if engine == "otb":
        from .otb import otb_pansharpen

        return otb_pansharpen(pan, xs, method=method, dtype=dtype)
    return PansharpenedImage(pan, xs, method, compat, dtype, progress or Progress())


def same_grid(one: Grid, other: Grid) -> bool:
    """Whether two grids have the same pixels, to a hundredth of one."""
    tolerance = 0.01 * one.spacing
    return (one.crs, one.width, one.height) == (other.crs, other.width, other.height) and all(
        math.isclose(a, b, abs_tol=tolerance) for a, b in zip(one.bounds, other.bounds, strict=True)
    )


class PansharpenedImage:
    """What the native engine of `pansharpen` gives: an `Image` that reads a window and a halo of 3 pixels."""

    def __init__(
        self, pan: Image, xs: Image, method: Method, compat: Compat, dtype: DTypeLike, progress: Progress
    ) -> None:
        self._pan, self._xs = pan, xs
        self._method: Method = method
        self._compat = compat
        self._progress = progress
        self.grid = pan.grid
        self.dtype = np.dtype(dtype)
        has_value = xs.nodata is not None and not math.isnan(xs.nodata)
        self._fill = xs.nodata if has_value and xs.nodata is not None else 0.0
        self.nodata = xs.nodata if compat == "otbtf" else output_nodata(None, self._fill, compat, self.dtype)

    @property
    def bands(self) -> Sequence[str]:
        """Those of the multispectral image."""
        return self._xs.bands

    def read(self, window: Window | None = None) -> NDArray[Any]:
        """See `Image.read`."""
        window = window or self.grid.window
        halo = 0 if self._method == "bayes" else RADIUS
        wanted = window.grown(halo)
        around = wanted.clipped(self.grid.width, self.grid.height)
        pan, xs, valid = self._pixels(around)
        if halo:
            pan, xs = _with_edges(pan, around, wanted), _with_edges(xs, around, wanted)
            valid = None if valid is None else _with_edges(valid, around, wanted)
        if self._method == "rcs":
            known = None if valid is None else valid_pixels(pan, self._pan.nodata)
            result = _rcs(pan, xs, known)
        elif self._method == "lmvm":
            result = _lmvm(pan, xs, valid)
        else:
            result = self._fusion.apply(pan, xs)
        if self._compat == "otbtf":
            if self._method == "rcs":
                result = self._with_otb_nodata(result, crop(pan, wanted, window), crop(xs, wanted, window))
        elif valid is not None:
            result[~crop(valid, wanted, window)] = np.nan
        return as_type(result, self.dtype, self._compat, self._fill)

    def _pixels(self, window: Window) -> tuple[Float, Float, Mask | None]:
        """Both images, (1, h, w) and (bands, h, w), and which pixels have a value; None: all, or OTB does not care."""
        pan, xs = self._pan.read(window), self._xs.read(window)
        pixels = pan.astype(np.float32), xs.astype(np.float32)
        if self._compat == "otbtf":
            return *pixels, None
        valid = valid_pixels(xs, self._xs.nodata) & valid_pixels(pan, self._pan.nodata)
        if self._method == "bayes":  # which mixes the bands
            valid = np.broadcast_to(valid.all(axis=0), xs.shape)
        return *pixels, None if valid.all() else valid

    def _with_otb_nodata(self, result: Float, pan: Float, xs: Float) -> Float:
        """OTB's "rcs" alone knows nodata: of its inputs' centre pixels, not of those in the local mean."""
        if self._xs.nodata is None:
            return result
        result = np.where(xs == np.float32(self._xs.nodata), xs, result)
        if self._pan.nodata is None:
            return result
        return np.where(pan == np.float32(self._pan.nodata), np.float32(self._xs.nodata), result)

    @cached_property
    def _fusion(self) -> _Fusion:
        """Statistics of the whole image: sums of products of (1, xs ..., pan), in float64."""
        size = len(self.bands) + 2
        moments = np.zeros((size, size))
        for tile in tiles(self.grid.window, BLOCK, 0, 1):
            self._progress.check()
            pan, xs, valid = self._pixels(tile.core)
            samples = np.concatenate([np.ones_like(pan), xs, pan]).reshape(size, -1).astype(np.float64)
            if valid is not None:
                samples = samples[:, valid[0].ravel()]
            moments += samples @ samples.T
        return _fusion(moments)


# What OTB rounds to float32 on the way is rounded here: it decides to which side an integer is truncated.


def _rcs(pan: Float, xs: Float, pan_valid: Mask | None) -> Float:
    mean = _local(pan, pan_valid)[0].astype(np.float32)
    ratio = np.divide(_inner(pan), mean, out=np.ones(mean.shape, np.float32), where=np.abs(mean) > NO_DEVIATION)
    return _inner(xs) * ratio


def _lmvm(pan: Float, xs: Float, valid: Mask | None) -> Float:
    pan_mean, pan_deviation = _local(pan, valid)
    xs_mean, xs_deviation = _local(xs, valid)
    scale = np.divide(1.0, pan_deviation, out=np.ones(pan_deviation.shape), where=pan_deviation > NO_DEVIATION)
    detail = ((_inner(pan) - pan_mean) * xs_deviation).astype(np.float32)
    return (detail * scale + xs_mean).astype(np.float32)


class _Fusion(NamedTuple):
    """The linear combination that "bayes" is: weights of the bands (b, b), of the panchromatic image (b,), offset."""

    of_xs: Real
    of_pan: Real
    offset: np.float32

    def apply(self, pan: Float, xs: Float) -> Float:
        flat = xs.reshape(len(xs), -1).T.astype(np.float64)
        detail = (pan.reshape(-1) - self.offset).astype(np.float64)
        result = flat @ self.of_xs + detail[:, None] * self.of_pan
        return result.T.reshape(xs.shape).astype(np.float32)


def _fusion(moments: Real) -> _Fusion:
    """The weights that follow from the sums of products of (1, xs ..., pan). Raises `InputError` where there are none.

    The regression of pan on the bands gives beta and its residual variance; the bands' covariance is the prior.
    """
    count = moments[0, 0]
    bands = len(moments) - 2
    if count <= bands + 2:
        raise InputError(
            f"Only {count:.0f} pixels have a value in both images, too few for 'bayes'; choose rcs or lmvm."
        )
    gram, cross, power = moments[:-1, :-1], moments[:-1, -1], moments[-1, -1]
    mean = gram[0, 1:] / count
    covariance = (gram[1:, 1:] / count - np.outer(mean, mean)) * (count / (count - 1))
    try:
        beta = np.linalg.solve(gram, cross)
        prior = np.linalg.inv(covariance)
        residual = power - 2 * beta @ cross + beta @ gram @ beta
        variance = np.float64(np.float32(np.float32(residual) / np.float32(count - bands - 1)))
        if not variance > 0:
            raise np.linalg.LinAlgError
        slope = beta[1:]
        doubled, rest = np.float64(2 * LAMBDA), np.float64(2 * (np.float32(1) - LAMBDA))
        ridge = np.full(bands, 1e-12)  # OTB's, on all bands but the first
        ridge[0] = 0.0
        posterior = np.linalg.inv(doubled * np.outer(slope, slope) / variance + rest * prior + np.diag(ridge))
    except np.linalg.LinAlgError as error:
        raise InputError(
            "The bands depend linearly on each other, or one of them is constant, which 'bayes' cannot work with; "
            "choose rcs or lmvm."
        ) from error
    return _Fusion(rest * prior @ posterior, doubled * slope / variance @ posterior, np.float32(beta[0]))


def _local(image: Float, valid: Mask | None) -> tuple[Real, Real]:
    """Mean and deviation (n - 1) of each pixel's square; ``image``: (bands, h + 6, w + 6). Both (bands, h, w).

    With ``valid``: of the valid pixels alone; 0 where there are none.
    """
    values = image.astype(np.float64)
    side = 2 * RADIUS + 1
    count: Real | np.float64 = np.float64(side * side)
    if valid is not None:
        values = np.where(valid, values, 0.0)
        count = np.maximum(_box_sum(valid.astype(np.float64)), 1.0)
    total = _box_sum(values)
    spread = np.maximum(_box_sum(values * values) - total * total / count, 0.0)
    deviation = np.sqrt(spread / np.maximum(count - 1.0, 1.0))
    return total * (1.0 / count), deviation


def _box_sum(values: Real) -> Real:
    side = 2 * RADIUS + 1
    width, height = values.shape[-1] - side + 1, values.shape[-2] - side + 1
    rows = np.asarray(sum(values[..., :, k : k + width] for k in range(side)))
    return np.asarray(sum(rows[..., k : k + height, :] for k in range(side)))


def _inner(image: Float) -> Float:
    return image[..., RADIUS:-RADIUS, RADIUS:-RADIUS]


def _with_edges(image: NDArray[Any], have: Window, want: Window) -> NDArray[Any]:
    """Extend an image that covers ``have`` to ``want`` by repeating its outermost pixels."""
    rows = (have.row - want.row, want.row + want.height - have.row - have.height)
    cols = (have.col - want.col, want.col + want.width - have.col - have.width)
    return np.pad(image, [(0, 0), rows, cols], mode="edge") if any(rows + cols) else image
