"""What the pictures of a report are drawn from, gathered block by block; the memory does not grow with the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .histogram import Histogram
from .measure import Block, Float, Setup
from .pixel import angle_map

MOST_CELLS = 600
"""Largest side of the maps, in cells."""

MOST_BANDS = 12
"""Bands with pictures of their own; of more, so many are chosen evenly."""

SCATTER_BINS, ERROR_BINS = 1024, 2**16
"""Bins an axis, at most, over all values that occur; the drawing joins them."""

SCATTER_FINEST, ERROR_FINEST = 2.0**-11, 2.0**-20
"""Narrowest bins as shares of the data range."""


class Cells(NamedTuple):
    """Sums over the pixels of each cell of the map.

    Attributes:
        x, y: of reference and image, (shown bands, rows, columns).
        counts: pixels that count, the same shape.
        squares, values: of the squared differences in every band, and how many those are, (rows, columns).
        angles, spectra: of the spectral angles in degrees, and how many those are, (rows, columns).
    """

    x: Float
    y: Float
    counts: Float
    squares: Float
    values: Float
    angles: Float
    spectra: Float


class Part(NamedTuple):
    """What a block gives: sums of the cells that it touches, where they lie, and its histograms."""

    row: int
    col: int
    cells: Cells
    scatter: list[Histogram]
    errors: list[Histogram]


class Pictures:
    """Maps, scatters and histograms of a comparison; takes blocks as an accumulator does.

    Attributes:
        bands: names of those with pictures of their own.
        cell: side of a map's cell in pixels; a cell is the mean of its pixels that count.
        scatter: of each such band, reference (first axis) against image.
        errors: of each such band, image - reference.
    """

    halo = 0

    def __init__(self, bands: Sequence[str], setup: Setup) -> None:
        few = min(setup.bands, MOST_BANDS)
        self._shown = np.linspace(0, setup.bands - 1, few).round().astype(int)
        self.bands = tuple(bands[index] for index in self._shown)
        self.cell = -(-max(setup.height, setup.width) // MOST_CELLS)
        shape = -(-setup.height // self.cell), -(-setup.width // self.cell)
        self._sums = Cells(*(np.zeros((few, *shape)) for _ in range(3)), *(np.zeros(shape) for _ in range(4)))
        self._range = setup.data_range
        nothing = np.zeros((2, 0))
        self.scatter = [self._scatter(nothing)] * few
        self.errors = [self._errors(nothing)] * few

    def observe(self, block: Block) -> Part:
        """See `Accumulator`."""
        own = np.s_[:, block.own[0], block.own[1]]
        x, y, valid = block.x[own], block.y[own], block.valid[own]
        row, col = block.row + (block.own[0].start or 0), block.col + (block.own[1].start or 0)
        rows, cols = self._starts(row, x.shape[1]), self._starts(col, x.shape[2])

        def summed(values: NDArray[Any]) -> Float:
            lines = np.add.reduceat(values, rows, axis=-2, dtype=np.float64)
            return np.asarray(np.add.reduceat(lines, cols, axis=-1), np.float64)

        squares, values = np.zeros(x.shape[1:]), np.zeros(x.shape[1:])
        for a, b, counts in zip(x, y, valid, strict=True):  # one at a time: there may be many
            squares += np.square(a - b)
            values += counts
        angles = angle_map(x, y, valid)
        chosen = self._shown
        cells = Cells(
            *(np.stack([summed(image[index]) for index in chosen]) for image in (x, y, valid)),
            *map(summed, (squares, values, np.nan_to_num(angles), np.isfinite(angles))),
        )
        scatter, errors = [], []
        for index in chosen:
            pair = np.stack([x[index][valid[index]], y[index][valid[index]]])
            scatter.append(self._scatter(pair))
            errors.append(self._errors(pair))
        return Part(row // self.cell, col // self.cell, cells, scatter, errors)

    def take(self, part: Part) -> None:
        """See `Accumulator`."""
        for whole, piece in zip(self._sums, part.cells, strict=True):
            rows, cols = (slice(start, start + n) for start, n in zip(part[:2], piece.shape[-2:], strict=True))
            whole[..., rows, cols] += piece
        self.scatter = [mine.merged(its) for mine, its in zip(self.scatter, part.scatter, strict=True)]
        self.errors = [mine.merged(its) for mine, its in zip(self.errors, part.errors, strict=True)]

    def means(self) -> tuple[Float, Float]:
        """Reference and image, (bands, rows, columns); NaN where no pixel counts."""
        return _ratio(self._sums.x, self._sums.counts), _ratio(self._sums.y, self._sums.counts)

    def differences(self) -> Float:
        """Mean of image - reference, (bands, rows, columns)."""
        return _ratio(self._sums.y - self._sums.x, self._sums.counts)

    def root_mean_squares(self) -> Float:
        """Root of the mean squared difference over the pixels and bands of each cell, (rows, columns)."""
        return np.sqrt(_ratio(self._sums.squares, self._sums.values))

    def angles(self) -> Float:
        """Mean spectral angle in degrees, (rows, columns)."""
        return _ratio(self._sums.angles, self._sums.spectra)

    def _scatter(self, pair: Float) -> Histogram:
        return Histogram.of(pair, SCATTER_BINS, self._range * SCATTER_FINEST)

    def _errors(self, pair: Float) -> Histogram:
        return Histogram.of(pair[1:] - pair[:1], ERROR_BINS, self._range * ERROR_FINEST)

    def _starts(self, start: int, length: int) -> NDArray[np.intp]:
        """Where, in a block's own rows or columns, the cells that it touches begin."""
        first = -(-start // self.cell) * self.cell - start
        starts = np.arange(first, length, self.cell)
        return starts if first == 0 else np.concatenate([[0], starts])


def _ratio(sums: Float, counts: Float) -> Float:
    return np.asarray(np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0), np.float64)
