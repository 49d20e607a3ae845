"""The rules of OTBTF's PatchesSelection: which pixels, which coordinates, which of train, valid, test.

From app/otbPatchesSelection.cxx of https://github.com/remicres/otbtf, version 4.3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..progress import Progress
from ..raster.grid import Window
from ..raster.image import Image
from .validity import Integers, Mask, all_within, strips


def positions(length: int, radius: int, step: int, offset: int, padded: bool) -> tuple[Integers, Integers]:
    """Pixels along one axis that may become points, and their places in the chessboard; `%` and `/` are C++'s."""
    pixels = np.arange(radius, length - radius)
    from_start = pixels + padded - (radius + 1)
    taken = np.fmod(from_start, step) == int(np.fmod(offset, step))
    return pixels[taken], np.trunc(from_start[taken] / step).astype(np.int64)


def accepted(
    image: Image,
    rows: Integers,
    columns: Integers,
    radius: int,
    mask: Image | None,
    nodata: float | None,
    progress: Progress,
) -> Mask:
    """Which of the positions become points, (rows, columns)."""
    if nodata is None and mask is None:
        return np.ones((len(rows), len(columns)), bool)
    size = 1 if nodata is None else 2 * radius + 1

    def valid(window: Window) -> Mask:
        masked = None if mask is None else np.clip(mask.read(window)[0], 0, 255).astype(np.uint8)
        if nodata is None and masked is not None:
            one: Mask = masked == 1
            return one
        good: Mask = (image.read(window).astype(np.float32) != np.float32(nodata or 0)).any(axis=0)
        return good if masked is None else good & (masked != 0)

    reach = size // 2
    parts = [
        all_within(strip, part - part[0], columns - reach, size)
        for part, strip in strips(rows - reach, size, image.grid, len(image.bands), valid, progress)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(columns)), bool)


def coordinates(corner: float, spacing: float, pixels: Integers, size: int, padded: bool) -> NDArray[np.float64]:
    """In ITK's order of operations, since the last bit decides which pixel PatchesExtraction finds."""
    first = corner + 0.5 * spacing
    index = pixels.astype(np.float64)
    centres = (first - spacing) + spacing * (index + 1) if padded else first + spacing * index
    return centres if size % 2 else centres - 0.5 * abs(spacing)


def labels(count: int, shares: Sequence[float], random: bool) -> Integers:
    """The group (0, 1, 2) of each of ``count`` samples: the one with the smallest counter, in float32, (count,).

    A counter grows by the inverse of its group's share, a share of 0 starts full. With ``random`` the groups are then
    mixed as libstdc++ does it, always in the same way.
    """
    given = np.asarray(shares, np.float32)
    total = given[0] + given[1] + given[2]
    growth = [np.float32(total / share) if share > 0 else np.float32(0) for share in given]
    counters = [np.float32(0) if share > 0 else np.float32(count) for share in given]
    found = []
    for _ in range(count):
        label = counters.index(min(counters))
        found.append(label)
        counters[label] = counters[label] + growth[label]
    if random:
        _shuffle(found)
    return np.array(found, np.int64)


def _shuffle(items: list[int]) -> None:
    """libstdc++'s std::shuffle with a fresh std::default_random_engine, which is minstd_rand0 with seed 1."""
    most = 2**31 - 3  # the engine's largest number less its smallest
    state = 1

    def below(bound: int) -> int:
        nonlocal state
        scale = most // bound
        while True:
            state = state * 16807 % (2**31 - 1)
            if state - 1 < bound * scale:
                return (state - 1) // scale

    def swap(a: int, b: int) -> None:
        items[a], items[b] = items[b], items[a]

    n, first = len(items), 1
    if n == 0 or most // n < n:
        for i in range(1, n):
            swap(i, below(i + 1))
        return
    if n % 2 == 0:
        swap(1, below(2))
        first = 2
    for i in range(first, n, 2):  # one number serves two swaps
        one, other = divmod(below((i + 1) * (i + 2)), i + 2)
        swap(i, one)
        swap(i + 1, other)
