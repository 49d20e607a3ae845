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
) -> list[Any]:
    """Detail of each coarse band from its guides, as planes (see `layers`), on the grid and the places of ``fine``.

    Args:
        fine: the guides, planes (n, g, …) of each place, reflectance.
        coarse: their means in the pixels of the coarse bands, (n, g, h, w).
        low: the coarse bands, (n, c, h, w), reflectance.
        guides: for each of the c coarse bands the channels of ``fine`` that it follows.
        up: upsamples planes of the coarse bands' grid to the places of ``fine``.
        radius: of the square that slopes are fitted in, in pixels of the coarse bands.
    """
    detail = [place - smooth for place, smooth in zip(fine, up(coarse), strict=True)]

    found: dict[int, list[Any]] = {}
    for own in dict.fromkeys(tuple(sorted(each)) for each in guides):
        # Bands of the same guides are solved together, each operation on all of them at once.
        bands = [band for band, each in enumerate(guides) if tuple(sorted(each)) == own]
        slopes = [up(slope) for slope in _slopes(_taken(coarse, own), _taken(low, bands), radius)]
        total = [
            _dot([slope[place] for slope in slopes], [_one(image, channel) for channel in own])
            for place, image in enumerate(detail)
        ]
        if len(bands) == len(guides):
            return total
        found.update({band: [_one(image, index) for image in total] for index, band in enumerate(bands)})
    return [ops.concatenate([found[band][place] for band in range(len(guides))], axis=1) for place in range(len(fine))]


def _taken(planes: Any, chosen: Sequence[int]) -> Any:
    """Some of the planes, in the order given."""
    return ops.concatenate([_one(planes, channel) for channel in chosen], axis=1)


def _one(planes: Any, channel: int) -> Any:
    return planes[:, channel : channel + 1]


def _slopes(guides: Any, bands: Any, radius: int) -> list[Any]:
    """For each guide the slopes of all bands on it, (n, bands, h, w), from squares of the coarse grid."""
    count, targets = guides.shape[1], bands.shape[1]
    pairs = [(i, j) for i in range(count) for j in range(i + 1)]
    # All means at once: the graph is a tenth as large, and several times as fast, as with one by one.
    products = [_one(guides, i) * _one(guides, j) for i, j in pairs]
    products += [_one(guides, i) * bands for i in range(count)]
    means = LocalMean(radius, dtype="float32")(ops.concatenate([guides, bands, *products], axis=1))
    mean, band_mean = means[:, :count], means[:, count : count + targets]
    start = count + targets
    square: list[list[Any]] = [[] for _ in range(count)]
    for index, (i, j) in enumerate(pairs):
        square[i].append(_one(means, start + index) - _one(mean, i) * _one(mean, j))
    start += len(pairs)
    right = [
        means[:, start + i * targets : start + (i + 1) * targets] - _one(mean, i) * band_mean for i in range(count)
    ]
    return [ops.clip(slope, -STEEPEST, STEEPEST) for slope in _solve(_cholesky(square), right)]


def _cholesky(square: list[list[Any]]) -> list[list[Any]]:
    """The triangle of the guides' covariance matrix plus the ridge, in every pixel.

    Written out, so that it exports and runs everywhere. ``square``: the matrix' lower triangle, each (n, 1, h, w).
    """
    size = len(square)
    ridge = NOISE + RIDGE * sum((square[i][i] for i in range(1, size)), square[0][0]) / size
    lower: list[list[Any]] = []
    for i in range(size):
        row: list[Any] = []
        for j in range(i):
            row.append((square[i][j] - _dot(row, lower[j][:j])) / lower[j][j])
        pivot = square[i][i] + ridge - _dot(row, row)
        row.append(ops.sqrt(ops.maximum(pivot, ridge)))
        lower.append(row)
    return lower


def _solve(lower: list[list[Any]], right: list[Any]) -> list[Any]:
    """The slopes of the ridge regression. ``right``: covariance of each guide with the bands, (n, bands, h, w)."""
    size = len(right)
    forward: list[Any] = []
    for i in range(size):
        forward.append((right[i] - _dot(lower[i][:i], forward)) / lower[i][i])
    slopes: list[Any] = [None] * size
    for i in reversed(range(size)):
        above = range(i + 1, size)
        slopes[i] = (forward[i] - _dot([lower[j][i] for j in above], [slopes[j] for j in above])) / lower[i][i]
    return slopes


def _dot(one: Sequence[Any], other: Sequence[Any]) -> Any:
    products = [a * b for a, b in zip(one, other, strict=True)]
    return sum(products[1:], products[0]) if products else 0.0
