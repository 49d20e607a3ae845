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
    used = sorted({channel for channels in guides for channel in channels})
    bands = {channel: coarse[..., channel : channel + 1] for channel in used}
    targets = [low[..., band : band + 1] for band in range(len(guides))]
    means = {id(band): box(band) for band in [*bands.values(), *targets]}
    known: dict[tuple[int, int], Any] = {}

    def covariance(one: Any, other: Any) -> Any:
        key = (min(id(one), id(other)), max(id(one), id(other)))
        if key not in known:
            known[key] = box(one * other) - means[id(one)] * means[id(other)]
        return known[key]

    found = []
    for target, channels in zip(targets, guides, strict=True):
        guide = [bands[channel] for channel in channels]
        square = [[covariance(one, other) for other in guide[: row + 1]] for row, one in enumerate(guide)]
        slopes = _solve(square, [covariance(one, target) for one in guide])
        parts = [
            up(ops.clip(slope, -STEEPEST, STEEPEST)) * detail[..., channel : channel + 1]
            for slope, channel in zip(slopes, channels, strict=True)
        ]
        found.append(sum(parts[1:], parts[0]))
    return ops.concatenate(found, axis=-1)


def _solve(square: list[list[Any]], right: list[Any]) -> list[Any]:
    """Slopes of a ridge regression in every pixel: Cholesky, written out, so that it exports and runs everywhere.

    Args:
        square: lower triangle of the guides' covariance matrix, each entry (n, h, w, 1).
        right: their covariance with the target.
    """
    size = len(right)
    ridge = NOISE + RIDGE * sum((square[i][i] for i in range(1, size)), square[0][0]) / size
    lower: list[list[Any]] = []
    for i in range(size):
        row: list[Any] = []
        for j in range(i):
            row.append((square[i][j] - _dot(row[:j], lower[j][:j])) / lower[j][j])
        pivot = square[i][i] + ridge - _dot(row, row)
        row.append(ops.sqrt(ops.maximum(pivot, ridge)))
        lower.append(row)
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
