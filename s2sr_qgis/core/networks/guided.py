"""Detail that follows from the fine bands by local regression, as a start for the network.

Within a small square a coarse band is nearly a linear function of one or two fine ones; its slopes are found on the
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


def guided_detail(fine: Any, low: Any, factor: int, guides: Sequence[Sequence[int]]) -> Any:
    """Detail of each coarse band from its guides: (n, H, W, f), (n, h, w, c) → (n, H, W, c), H = h · ``factor``.

    ``guides``: for each of the c coarse bands one or two channels of ``fine``.
    """
    exact: dict[str, Any] = {"dtype": "float32"}
    box, up = LocalMean(RADIUS, **exact), BilinearUpsampling(factor, **exact)
    coarse = keras.layers.AveragePooling2D(factor, **exact)(fine)
    detail = keras.layers.Subtract(**exact)([fine, up(coarse)])

    def covariance(one: Any, other: Any) -> Any:
        return box(one * other) - box(one) * box(other)

    found = []
    for band, channels in enumerate(guides):
        target = low[..., band : band + 1]
        guide = [coarse[..., channel : channel + 1] for channel in channels]
        variance = [covariance(one, one) for one in guide]
        shared = [covariance(one, target) for one in guide]
        ridge = NOISE + RIDGE * sum(variance[1:], variance[0]) / len(guide)
        variance = [one + ridge for one in variance]
        if len(guide) == 1:
            slopes = [shared[0] / variance[0]]
        else:
            both = covariance(*guide)
            determinant = variance[0] * variance[1] - both * both
            slopes = [
                (variance[1] * shared[0] - both * shared[1]) / determinant,
                (variance[0] * shared[1] - both * shared[0]) / determinant,
            ]
        parts = [
            up(ops.clip(slope, -STEEPEST, STEEPEST)) * detail[..., channel : channel + 1]
            for slope, channel in zip(slopes, channels, strict=True)
        ]
        found.append(sum(parts[1:], parts[0]))
    return ops.concatenate(found, axis=-1)
