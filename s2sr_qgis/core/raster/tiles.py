"""Cutting a grid into windows with a halo, mirroring at its edges, filling what is not valid."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .grid import Window

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class Tile:
    """``core``: the pixels that a tile gives. ``padded``: what has to be seen for them, even beyond the grid's edge."""

    core: Window
    padded: Window


def tiles(area: Window, size: int, halo: int, multiple: int) -> list[Tile]:
    """Cut an area into tiles of ``size`` × ``size`` pixels (less at its right and lower edge), row by row.

    Every padded window has at least ``halo`` pixels around its core, and corners and sides that are multiples of
    ``multiple``, so that a network sees every pixel in the same phase whatever the tile size.
    """
    return [
        Tile(core, snapped(core.grown(halo), multiple))
        for row in range(area.row, area.row + area.height, size)
        for col in range(area.col, area.col + area.width, size)
        for core in [Window(col, row, size, size).clipped(area.col + area.width, area.row + area.height)]
    ]


def snapped(window: Window, multiple: int) -> Window:
    """The smallest window that covers this one and has corners on multiples of ``multiple``."""
    left, top = (math.floor(value / multiple) * multiple for value in (window.col, window.row))
    right = math.ceil((window.col + window.width) / multiple) * multiple
    bottom = math.ceil((window.row + window.height) / multiple) * multiple
    return Window(left, top, right - left, bottom - top)


def enclosing(windows: Iterable[Window]) -> Window:
    """The smallest window that contains all of these."""
    found = list(windows)
    left, top = min(w.col for w in found), min(w.row for w in found)
    right, bottom = max(w.col + w.width for w in found), max(w.row + w.height for w in found)
    return Window(left, top, right - left, bottom - top)


def crop(image: NDArray[_T], have: Window, want: Window) -> NDArray[_T]:
    """The part ``want`` of an image (..., h, w) that covers ``have``; both windows on the image's own grid."""
    row, col = want.row - have.row, want.col - have.col
    return image[..., row : row + want.height, col : col + want.width]


def mirrored(image: NDArray[_T], have: Window, want: Window) -> NDArray[_T]:
    """Extend an image (..., h, w) that covers ``have`` to ``want``, which contains it, by mirroring at its edges.

    The edge pixel is repeated (half-sample symmetry): only so is the mirror image of a coarse band the coarse image of
    the mirrored ground.
    """
    rows = (have.row - want.row, want.row + want.height - have.row - have.height)
    cols = (have.col - want.col, want.col + want.width - have.col - have.width)
    if not any(rows + cols):
        return image
    return np.pad(image, [(0, 0)] * (image.ndim - 2) + [rows, cols], mode="symmetric")


def mirror(first: int, count: int, size: int) -> NDArray[np.intp]:
    """The pixels that ``count`` positions from ``first`` on show along an axis of ``size`` pixels, mirrored beyond it.

    As `mirrored`, and for positions however far outside.
    """
    place = np.arange(first, first + count) % (2 * size)
    return np.where(place < size, place, 2 * size - 1 - place)


def fill(image: Float, valid: Mask, reach: float) -> Float:
    """Give invalid pixels the value of the nearest valid one within ``reach`` pixels, 0 where there is none.

    ``image``, ``valid``: (h, w). The bound on the distance keeps the result independent of how the image was cut.
    """
    if valid.all():
        return image
    if not valid.any():
        return np.zeros_like(image)
    from scipy.ndimage import distance_transform_edt  # a fifth of a second that most scenes need not wait for

    distance, nearest = distance_transform_edt(~valid, return_indices=True)
    return np.where(distance <= reach, image[tuple(nearest)], np.float32(0))
