"""Detail that follows from the fine bands by local regression, as a start for the network.

Within a small square a coarse band is nearly a linear function of a few fine ones; its slopes are found on the
coarse grid, where all are known, and applied to the fine bands' detail. That is the guided filter (He, Sun and Tang
2013, doi:10.1109/TPAMI.2012.213), in pansharpening context-based injection (Aiazzi et al. 2006,
doi:10.14358/PERS.72.5.591). It adapts to ground and air that the training never saw; the network adds the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from .layers import LocalMean

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
    up: Callable[[Any], list[Any]],
    radius: int = RADIUS,
    *,
    ridge: float = RIDGE,
    own_ridge: bool = False,
) -> list[Any]:
    """Detail of each coarse band from its guides, as planes (see `layers`), on the grid and the places of ``fine``.

    Args:
        fine: the guides, planes (n, g, …) of each place, reflectance.
        coarse: their means in the pixels of the coarse bands, (n, g, h, w).
        low: the coarse bands, (n, c, h, w), reflectance.
        guides: for each of the c coarse bands the channels of ``fine`` that it follows.
        up: upsamples planes of the coarse bands' grid to the places of ``fine``.
        radius: of the square that slopes are fitted in, in pixels of the coarse bands.
        ridge: added to the variances of the guides, as a share of them.
        own_ridge: share of each guide's own variance, not of all guides' mean. Visible bands vary little beside near
            infrared and are held back most by the mean, which is right where they tell little.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for band, each in enumerate(guides):
        groups.setdefault(tuple(sorted(each)), []).append(band)
    # Bands of the same guides are solved together, and all slopes upsampled at once: the graph is a tenth as large.
    slopes = [
        slope
        for own, bands in groups.items()
        for slope in _slopes(taken(coarse, own), taken(low, bands), radius, ridge, own_ridge)
    ]
    finer = up(ops.concatenate([coarse, *slopes], axis=1))
    return [_at_place(place, planes, groups) for place, planes in zip(fine, finer, strict=True)]


def _at_place(fine: Any, planes: Any, groups: dict[tuple[int, ...], list[int]]) -> Any:
    """The detail of all bands at one place, (n, c, …). ``planes``: the guides' smooth images, then all slopes."""
    start = fine.shape[1]
    image = fine - planes[:, :start]
    found: dict[int, Any] = {}
    for own, bands in groups.items():
        count = len(bands)
        slopes = planes[:, start : start + len(own) * count]
        start += len(own) * count
        seen = taken(image, own)
        if count == 1:
            total = ops.sum(slopes * seen, axis=1, keepdims=True)
        else:
            products = [slopes[:, i * count : (i + 1) * count] * _one(seen, i) for i in range(len(own))]
            total = sum(products[1:], products[0])
        if len(groups) == 1:
            return total
        found.update({band: _one(total, index) for index, band in enumerate(bands)})
    return ops.concatenate([found[band] for band in range(len(found))], axis=1)


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
    if list(chosen) == list(range(first, first + len(chosen))):
        return planes[:, first : first + len(chosen)]
    return ops.concatenate([_one(planes, channel) for channel in chosen], axis=1)


def _one(planes: Any, channel: int) -> Any:
    return planes[:, channel : channel + 1]


def _slopes(guides: Any, bands: Any, radius: int, ridge: float, own_ridge: bool) -> list[Any]:
    """For each guide the slopes of all bands on it, (n, bands, h, w), from squares of the coarse grid.

    What follows is written for few operations on many planes: ONNX Runtime loads a graph in a time that grows with the
    square of its nodes.
    """
    count, targets = guides.shape[1], bands.shape[1]
    # Of the guides' products with each other the lower triangle, column by column.
    products = [guides[:, i:] * _one(guides, i) for i in range(count)]
    products += [_one(guides, i) * bands for i in range(count)]
    means = LocalMean(radius, dtype="float32")(ops.concatenate([guides, bands, *products], axis=1))
    mean, band_mean = means[:, :count], means[:, count : count + targets]
    start = count + targets
    columns = []
    for i in range(count):
        columns.append(means[:, start : start + count - i] - mean[:, i:] * _one(mean, i))
        start += count - i
    right = [
        means[:, start + i * targets : start + (i + 1) * targets] - _one(mean, i) * band_mean for i in range(count)
    ]
    slopes = ops.clip(_solved(columns, ops.stack(right, axis=1), ridge, own_ridge), -STEEPEST, STEEPEST)
    return [slopes[:, i] for i in range(count)]


def _solved(columns: list[Any], right: Any, share: float, own_ridge: bool) -> Any:
    """The slopes of the ridge regression by Cholesky's decomposition, in every pixel, (n, guides, bands, h, w).

    Written out, so that it exports and runs everywhere.

    Args:
        columns: of the guides' covariance matrix, from the diagonal down: (n, guides − i, h, w).
        right: covariance of each guide with the bands, (n, guides, bands, h, w).
        share: added to the variances, of each guide's own or of their mean.
        own_ridge: which of the two.
    """
    variances = [_one(column, 0) for column in columns]
    mean = sum(variances[1:], variances[0]) / len(variances)
    pivots, below, forward = [], [], []
    rest = list(columns)
    for i, variance in enumerate(variances):
        ridge = NOISE + share * (variance if own_ridge else mean)
        pivots.append(ops.sqrt(ops.maximum(_one(rest[i], 0) + ridge, ridge)))
        forward.append(right[:, :1] / pivots[i][:, :, None])
        if i + 1 == len(columns):
            break
        column = rest[i][:, 1:] / pivots[i]
        for j in range(i + 1, len(columns)):
            rest[j] = rest[j] - column[:, j - i - 1 :] * _one(column, j - i - 1)
        below.append(column[:, :, None])
        right = right[:, 1:] - below[i] * forward[i]
    slopes = forward[-1] / pivots[-1][:, :, None]
    for i in reversed(range(len(below))):
        known = ops.sum(below[i] * slopes, axis=1, keepdims=True)
        slopes = ops.concatenate([(forward[i] - known) / pivots[i][:, :, None], slopes], axis=1)
    return slopes
