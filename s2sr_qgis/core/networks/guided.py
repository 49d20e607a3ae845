"""Detail that follows from the fine bands by local regression, as a start for the network.

Within a small square a coarse band is nearly a linear function of a few fine ones; its slopes are found on the
coarse grid, where all are known, and applied to the fine bands' detail. That is the guided filter (He, Sun and Tang
2013, doi:10.1109/TPAMI.2012.213), in pansharpening context-based injection (Aiazzi et al. 2006,
doi:10.14358/PERS.72.5.591). It adapts to ground and air that the training never saw; the network adds the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from .layers import LocalMean, bilinear

RADIUS = 5
"""Of the square that slopes are fitted in, in pixels of the coarse band."""

STEEPEST = 4.0
"""Bound of a slope; what lies beyond it is noise over flat ground."""

NOISE = 1e-8
RIDGE = 1e-3
"""Added to the variance of a guide: the square of 1 DN (in reflectance), and a share of the variance itself."""


def guided_detail(
    fine: Sequence[Any],
    coarse: Any,
    low: Any,
    guides: Sequence[Sequence[int]],
    radius: int = RADIUS,
    *,
    spread: Callable[[Any], Any] | None = None,
    ridge: float = RIDGE,
    own_ridge: bool = False,
    smooth: bool = False,
) -> list[Any]:
    """Detail of each coarse band from its guides, as planes (see `layers`), on the grid and the places of ``fine``.

    Args:
        fine: the guides, planes (n, g, …) of each place in a pixel of some grid, reflectance.
        coarse: their means in the pixels of the coarse bands, (n, g, h, w).
        low: the coarse bands, (n, c, h, w), reflectance.
        guides: for each of the c coarse bands the channels of ``fine`` that it follows.
        radius: of the square that slopes are fitted in, in pixels of the coarse bands.
        spread: brings planes of the coarse bands' grid to the grid of ``fine``, where that is another one.
        ridge: added to the variances of the guides, as a share of them.
        own_ridge: share of each guide's own variance, not of all guides' mean. Visible bands vary little beside near
            infrared and are held back most by the mean, which is right where they tell little.
        smooth: whether slopes change from place to place within a pixel of that grid; it takes twice the time.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for band, each in enumerate(guides):
        groups.setdefault(tuple(sorted(each)), []).append(band)
    # Bands of the same guides are solved together, and all is brought to the grid at once: fewer operations.
    planes = [coarse]
    for own, bands in groups.items():
        slopes = _slopes(taken(coarse, own), taken(low, bands), radius, ridge, own_ridge)
        planes += [slopes[:, i] for i in range(len(own))]
    known = ops.concatenate(planes, axis=1)
    if spread:
        known = spread(known)
    count = coarse.shape[1]
    finer = bilinear(known if smooth else known[:, :count], math.isqrt(len(fine)))
    return [
        _at_place(place - taken(each, range(count)), each if smooth else known, groups)
        for place, each in zip(fine, finer, strict=True)
    ]


def _at_place(image: Any, planes: Any, groups: dict[tuple[int, ...], list[int]]) -> Any:
    """The detail of all bands at one place, (n, c, …), from that of the guides.

    ``planes``: as many as ``image`` has, then the slopes, guide by guide of each group of bands.
    """
    found = []
    start = image.shape[1]
    for own, bands in groups.items():
        products = []
        for channel in own:
            products.append(planes[:, start : start + len(bands)] * _one(image, channel))
            start += len(bands)
        found.append(sum(products[1:], products[0]))
    together = found[0] if len(found) == 1 else ops.concatenate(found, axis=1)
    order = [band for bands in groups.values() for band in bands]
    return taken(together, [order.index(band) for band in range(len(order))])


def consistent(
    image: Sequence[Any], low: Any, down: Callable[[Sequence[Any]], Any], up: Callable[[Any], list[Any]]
) -> list[Any]:
    """An image, planes of each place, that looks nearly like ``low`` in the coarse pixels: back-projection, one pass.

    What it lacks there is upsampled and added (Irani and Peleg 1991, doi:10.1016/1049-9652(91)90045-L).

    Args:
        image: planes (n, c, …) of each place in a pixel of some grid.
        low: how it should look, (n, c, h, w).
        down: how planes of all places look in the pixels of ``low``.
        up: upsamples planes of ``low``'s grid to the places of ``image``.
    """
    lacking = up(low - down(image))
    return [planes + added for planes, added in zip(image, lacking, strict=True)]


def taken(planes: Any, chosen: Sequence[int]) -> Any:
    """Some of the planes, in the order given."""
    first = chosen[0]
    if list(chosen) == list(range(planes.shape[1])):
        return planes
    if list(chosen) == list(range(first, first + len(chosen))):
        return planes[:, first : first + len(chosen)]
    return ops.concatenate([_one(planes, channel) for channel in chosen], axis=1)


def _one(planes: Any, channel: int) -> Any:
    return planes[:, channel : channel + 1]


def _slopes(guides: Any, bands: Any, radius: int, ridge: float, own_ridge: bool) -> Any:
    """Slopes of all bands on each guide, (n, guides, bands, h, w), from squares of the coarse grid.

    What follows is written for few operations on many planes: ONNX Runtime loads a graph in a time that grows with the
    square of its nodes.
    """
    count = guides.shape[1]
    both = ops.concatenate([guides, bands], axis=1)[:, None]
    moments = ops.concatenate([both, guides[:, :, None] * both], axis=1)
    means = LocalMean(radius, dtype="float32")(moments)
    mean = means[:, :1]
    covariances = means[:, 1:] - ops.swapaxes(mean[:, :, :count], 1, 2) * mean
    return ops.clip(_solved(covariances, ridge, own_ridge), -STEEPEST, STEEPEST)


def _solved(equations: Any, share: float, own_ridge: bool) -> Any:
    """The slopes of the ridge regression in every pixel, (n, guides, bands, h, w), by Gauss-Jordan elimination.

    Written out, so that it exports and runs everywhere. The matrix is positive definite: it needs no pivoting.

    Args:
        equations: covariance of each guide with all guides and, behind them, all bands: (n, guides, guides + bands, h,
            w).
        share: added to the variances, of each guide's own or of their mean.
        own_ridge: which of the two.
    """
    count = equations.shape[1]
    variances = [equations[:, i : i + 1, i : i + 1] for i in range(count)]
    mean = sum(variances[1:], variances[0]) / count
    for variance in variances:
        # The first row's guide goes out of all others; the row itself goes behind them, so that each comes first once.
        ridge = NOISE + share * (variance if own_ridge else mean)
        first = equations[:, :1, 1:] / ops.maximum(equations[:, :1, :1] + ridge, ridge)
        others = equations[:, 1:, 1:] - equations[:, 1:, :1] * first
        equations = ops.concatenate([others, first], axis=1)
    return equations
