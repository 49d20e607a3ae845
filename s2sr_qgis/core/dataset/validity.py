"""Which windows of an image have a value in every pixel; read by strips, so that no image is too large."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..progress import Progress
from ..raster.grid import Grid, Window
from ..raster.image import Image
from ..raster.superimpose import valid_pixels as has_value

Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]

STRIP = 32 * 2**20
"""Bytes of a strip that is read at a time, where a row of patches is not larger."""


def valid_pixels(pixels: NDArray[Any], nodata: float | None) -> Mask:
    """Where every band of an image (bands, h, w) has a value, (h, w)."""
    good: Mask = np.all(has_value(pixels, nodata), axis=0)
    return good


def check_size(image: Image, size: int) -> None:
    """Raise `InputError` where an image is smaller than ``size`` x ``size`` pixels."""
    width, height = image.grid.width, image.grid.height
    if min(width, height) < size:
        raise InputError(
            f"{image_name(image)} has {width} x {height} pixels, less than one patch of {size} x {size}; "
            "choose smaller patches or a larger image."
        )


def check_mask(image: Image, mask: Image | None, place: bool = True) -> None:
    """Raise `InputError` where a mask has another size than the image, or, with ``place``, lies elsewhere."""
    if mask is None:
        return
    ours, its = image.grid, mask.grid
    if (ours.width, ours.height) != (its.width, its.height):
        raise InputError(
            f"The mask {image_name(mask)} has {its.width} x {its.height} pixels, but the image has "
            f"{ours.width} x {ours.height}; give a mask on the image's grid."
        )
    apart = max(abs(a - b) for a, b in zip(ours.bounds, its.bounds, strict=True))
    if place and its.crs and (its.crs != ours.crs or apart > ours.spacing / 2):
        raise InputError(f"The mask {image_name(mask)} lies elsewhere than the image; give a mask on the image's grid.")


def image_name(image: Image) -> str:
    """How to call an image in a message: its file, where it is one."""
    return str(getattr(image, "path", "The image"))


def strips(
    rows: Integers, size: int, grid: Grid, bands: int, read: Callable[[Window], Mask], progress: Progress
) -> Iterator[tuple[Integers, Mask]]:
    """Upper rows of windows ``size`` pixels high, some at a time, with what ``read`` gives over their ground."""
    height = max(STRIP // (4 * bands * grid.width), size)
    while len(rows):
        progress.check()
        part = rows[rows + size <= rows[0] + height]
        yield part, read(Window(0, int(rows[0]), grid.width, int(part[-1] - part[0]) + size))
        rows = rows[len(part) :]


def all_within(valid: Mask, rows: Integers, columns: Integers, size: int) -> Mask:
    """Whether all pixels of the windows at these upper-left corners are valid, (rows, columns)."""
    bad = np.pad(~valid, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    r, c = rows[:, None], columns[None, :]
    whole: Mask = bad[r + size, c + size] - bad[r, c + size] - bad[r + size, c] + bad[r, c] == 0
    return whole
