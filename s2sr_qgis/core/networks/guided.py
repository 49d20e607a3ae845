"""Detail that follows from the fine bands by local regression, as a start for the network.

Within a small square a coarse band is nearly a linear function of a few fine ones; its slopes are found on the
coarse grid, where all are known, and applied to the fine bands' detail. That is the guided filter (He, Sun and Tang
2013, doi:10.1109/TPAMI.2012.213), in pansharpening context-based injection (Aiazzi et al. 2006,
doi:10.14358/PERS.72.5.591). It adapts to ground and air that the training never saw; the network adds the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from .layers import BilinearUpsampling, LocalMean

RADIUS = 5
"""Of the square that slopes are fitted in, in pixels of the coarse band."""

STEEPEST = 4.0
"""Bound of a slope; what lies beyond it is noise over flat ground."""

NOISE = 1e-8
RIDGE = 1e-3
"""Added to the variance of a guide: the square of 1 DN (in reflectance), and a share of the variance itself."""


def guided_detail(fine: Any, low: Any, factor: int, guides: Sequence[Sequence[int]], radius: int = RADIUS) -> Any:
    """Detail of each coarse band from its guides: (n, H, W, f), (n, h, w, c) → (n, H, W, c), H = h · ``factor``.

    Args:
        fine: the guides, reflectance.
        low: the coarse bands, reflectance.
        factor: how much coarser they are.
        guides: for each of the c coarse bands the channels of ``fine`` that it follows.
        radius: of the square that slopes are fitted in, in pixels of the coarse bands.
    """
    exact: dict[str, Any] = {"dtype": "float32"}
    box, up = LocalMean(radius, **exact), BilinearUpsampling(factor, **exact)
    coarse = keras.layers.AveragePooling2D(factor, **exact)(fine)
    detail = keras.layers.Subtract(**exact)([fine, up(coarse)])

    channels = sorted({channel for each in guides for channel in each})
    bands = [_part(coarse, channel) for channel in channels] + [_part(low, band) for band in range(len(guides))]
    place = {channel: index for index, channel in enumerate(channels)}
    pairs = [(i, j) for i in range(len(bands)) for j in range(min(i + 1, len(channels)))]
    # All means at once: the graph is a tenth as large, and several times as fast, as with one by one.
    means = box(ops.concatenate([*bands, *(bands[i] * bands[j] for i, j in pairs)], axis=-1))
    covariance = {
        (i, j): _part(means, len(bands) + index) - _part(means, i) * _part(means, j)
        for index, (i, j) in enumerate(pairs)
    }

    triangles: dict[tuple[int, ...], list[list[Any]]] = {}
    slopes: list[Any] = []
    for band, each in enumerate(guides):
        own = tuple(sorted(place[channel] for channel in each))
        if own not in triangles:
            triangles[own] = _cholesky([[covariance[i, j] for j in own[: row + 1]] for row, i in enumerate(own)])
        slopes += _solve(triangles[own], [covariance[len(channels) + band, j] for j in own])
    steep = up(ops.clip(ops.concatenate(slopes, axis=-1), -STEEPEST, STEEPEST))
    found, start = [], 0
    for each in guides:
        own_detail = ops.concatenate([_part(detail, channel) for channel in sorted(each)], axis=-1)
        found.append(ops.sum(steep[..., start : start + len(each)] * own_detail, axis=-1, keepdims=True))
        start += len(each)
    return ops.concatenate(found, axis=-1)


def _part(tensor: Any, channel: int) -> Any:
    return tensor[..., channel : channel + 1]


def _cholesky(square: list[list[Any]]) -> list[list[Any]]:
    """The triangle of the guides' covariance matrix plus the ridge, in every pixel.

    Written out, so that it exports and runs everywhere. ``square``: the matrix' lower triangle, each (n, h, w, 1).
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
    """The slopes of the ridge regression. ``right``: covariance of each guide with the target."""
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
    return sum((a * b for a, b in zip(one, other, strict=True)), 0.0)
