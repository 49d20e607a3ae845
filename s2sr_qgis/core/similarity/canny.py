"""Canny's edges as OpenCV 4 finds them, ``cv2.Canny(image, 100, 200)``, to the pixel, for images that come in blocks.

Canny 1986, doi:10.1109/TPAMI.1986.4767851. Sobel gradients of 3 x 3 with the edge pixel repeated, |dx| + |dy| as their
size, thinning along the gradient's direction in steps of 45°, hysteresis over the 8 neighbours. Of several bands the
one with the largest gradient decides in each pixel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, label

from .measure import Mask

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int32]

LOW, HIGH = 100, 200
REACH = 2
"""Pixels around one that decide whether it can be an edge."""

STRIP = 1024
"""Rows that hysteresis looks at together."""

_TANGENT, _SHIFT = 13573, 15  # tan 22.5° in OpenCV's fixed point


def candidates(image: Bytes) -> tuple[Mask, Mask]:
    """Thinned edges above the low and above the high threshold, bool (h, w), of an image (bands, h, w).

    Of a part of an image, `REACH` pixels along the cuts are not right.
    """
    dx, dy = (
        correlate1d(
            correlate1d(image.astype(np.int32), [-1, 0, 1], axis, mode="nearest"), [1, 2, 1], other, mode="nearest"
        )
        for axis, other in ((2, 1), (1, 2))
    )
    size = np.abs(dx) + np.abs(dy)
    if len(image) > 1:
        strongest = size.argmax(axis=0)[np.newaxis]
        dx, dy, size = (np.take_along_axis(part, strongest, axis=0) for part in (dx, dy, size))
    dx, dy, size = dx[0], dy[0], size[0]
    edges = size > LOW
    edges[edges] = _thinned(dx, dy, size, *np.nonzero(edges))
    return edges, edges & (size > HIGH)


def hysteresis(weak: Bytes, strong: Bytes, width: int) -> Bytes:
    """Weak edges that hang together with strong ones, which are among them; all as bits, (H, bytes).

    Strip by strip, and again where a neighbouring strip has found more, so that memory is that of a strip.
    """
    edges, height = strong.copy(), len(strong)
    waiting = list(range(0, height, STRIP))
    while waiting:
        top = waiting.pop(0)
        first, last = max(top - 1, 0), min(top + STRIP + 1, height)
        before = edges[first:last].copy()
        if not before.any():
            continue
        parts, count = label(np.unpackbits(weak[first:last], axis=1, count=width), np.ones((3, 3)))
        kept = np.zeros(count + 1, bool)
        kept[parts[np.unpackbits(before, axis=1, count=width).view(bool)]] = True
        edges[first:last] = np.packbits(kept[parts], axis=1)
        changed = (edges[first:last] != before).any(axis=1)
        beside = [(first < top and changed[0], top - STRIP), (last > top + STRIP and changed[-1], top + STRIP)]
        waiting += [start for more, start in beside if more and start not in waiting]
    return edges


def _thinned(dx: Integers, dy: Integers, size: Integers, row: NDArray[np.intp], col: NDArray[np.intp]) -> Mask:
    """Whether the gradient at some pixels is the largest along its direction; outside the image it is 0."""
    around = np.pad(size, 1)
    here, x, y = size[row, col], dx[row, col].astype(np.int64), dy[row, col].astype(np.int64)
    flat, steep = np.abs(x) * _TANGENT, np.abs(y) << _SHIFT
    across, down = steep < flat, steep > flat + (np.abs(x) << (_SHIFT + 1))
    step_col = np.where(across, 1, np.where(down, 0, np.where((x ^ y) < 0, -1, 1)))
    step_row = np.where(across, 0, 1)
    behind = around[row + 1 - step_row, col + 1 - step_col]
    ahead = around[row + 1 + step_row, col + 1 + step_col]
    return np.asarray((here > behind) & ((here > ahead) | ((here == ahead) & (across | down))))
