"""Reading many small windows of several images in few reads of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from ..progress import Progress
from ..raster.grid import Grid, Window
from ..raster.image import Image

Patches = list[NDArray[Any]]

AT_ONCE = 64 * 2**20
"""Bytes of all images that are read at a time, where the patches of one place are not larger."""

APART = 8
"""Ground read at a time is at most so much larger than the patches on it."""


def covers(grid: Grid, window: Window) -> bool:
    """Whether a window lies wholly on a grid."""
    return window == window.clipped(grid.width, grid.height)


def cut_patches(
    places: Sequence[Sequence[Window]], images: Sequence[Image], progress: Progress
) -> Iterator[tuple[int, Patches]]:
    """The place's number and the pixels of its window of each image, (bands, h, w), for each place, in order.

    Neighbouring places are read together, as far as memory allows, since an image may be costly to compute. Reports
    0 to 100 percent.
    """
    weights = [len(image.bands) * image.dtype.itemsize for image in images]
    first = 0
    while first < len(places):
        progress.check()
        progress.progress(100 * first / len(places), "Cutting patches")
        ground, last, needed = list(places[first]), first + 1, _bytes(places[first], weights)
        while last < len(places):
            wider = [_around(a, b) for a, b in zip(ground, places[last], strict=True)]
            needed += _bytes(places[last], weights)
            if _bytes(wider, weights) > min(AT_ONCE, APART * needed):
                break
            ground, last = wider, last + 1
        pixels = [image.read(window) for image, window in zip(images, ground, strict=True)]
        for number in range(first, last):
            yield (
                number,
                [
                    read[:, w.row - g.row : w.row - g.row + w.height, w.col - g.col : w.col - g.col + w.width]
                    for read, g, w in zip(pixels, ground, places[number], strict=True)
                ],
            )
        first = last


def _bytes(windows: Sequence[Window], weights: Sequence[int]) -> int:
    return sum(w.width * w.height * weight for w, weight in zip(windows, weights, strict=True))


def _around(a: Window, b: Window) -> Window:
    left, top = min(a.col, b.col), min(a.row, b.row)
    right, bottom = max(a.col + a.width, b.col + b.width), max(a.row + a.height, b.row + b.height)
    return Window(left, top, right - left, bottom - top)
