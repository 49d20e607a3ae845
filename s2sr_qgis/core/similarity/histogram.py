"""Histograms of values that come in blocks and whose range is known only at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Histogram:
    """Counts in bins [i w, (i + 1) w) along each axis, w a power of two.

    Bins of twice the width are pairs of bins, so that merged histograms are exactly that of all the values together,
    whatever the blocks.

    Attributes:
        counts: one axis a variable.
        exponent: the bins' width is 2 to this power.
        first: number i of the first bin, an axis.
        most: bins an axis; the width doubles where more would be needed.
    """

    counts: Counts
    exponent: int
    first: tuple[int, ...]
    most: int

    @classmethod
    def of(cls, values: NDArray[np.floating[Any]], most: int, finest: float) -> Histogram:
        """The histogram of finite values (axes, n). ``finest``: the bins are about so wide at least."""
        axes, size = values.shape
        exponent = math.floor(math.log2(finest))
        if not size:
            return cls(np.zeros((0,) * axes, np.int64), exponent, (0,) * axes, most)
        low, high = values.min(axis=1), values.max(axis=1)
        exponent = _exponent(low, high, exponent, most)
        first = np.floor(np.ldexp(low, -exponent)).astype(np.int64)
        shape = tuple(np.floor(np.ldexp(high, -exponent)).astype(np.int64) - first + 1)
        places = np.floor(np.ldexp(values, -exponent)).astype(np.int64) - first[:, None]
        flat = places[0]
        for axis in range(1, axes):
            flat = flat * shape[axis] + places[axis]
        counts = np.bincount(flat, minlength=math.prod(shape)).reshape(shape)
        return cls(counts.astype(np.int64), exponent, tuple(first.tolist()), most)

    @property
    def width(self) -> float:
        """Of a bin."""
        return math.ldexp(1.0, self.exponent)

    def edges(self, axis: int = 0) -> NDArray[np.float64]:
        """Of the bins along an axis."""
        return (self.first[axis] + np.arange(self.counts.shape[axis] + 1)) * self.width

    def merged(self, other: Histogram) -> Histogram:
        """The histogram of both ones' values."""
        if not other.counts.size:
            return self
        if not self.counts.size:
            return other
        one, two = self, other
        while True:
            exponent = max(one.exponent, two.exponent)
            one, two = one._coarser(exponent), two._coarser(exponent)
            first = tuple(map(min, one.first, two.first))
            ends = tuple(map(max, one._ends(), two._ends()))
            shape = tuple(end - start for start, end in zip(first, ends, strict=True))
            if max(shape) <= self.most:
                break
            one = one._coarser(exponent + 1)
        counts = np.zeros(shape, np.int64)
        for part in (one, two):
            place = tuple(
                slice(start - origin, start - origin + length)
                for start, origin, length in zip(part.first, first, part.counts.shape, strict=True)
            )
            counts[place] += part.counts
        return Histogram(counts, exponent, first, self.most)

    def _ends(self) -> tuple[int, ...]:
        return tuple(start + length for start, length in zip(self.first, self.counts.shape, strict=True))

    def _coarser(self, exponent: int) -> Histogram:
        """The same values in wider bins."""
        factor = 1 << (exponent - self.exponent)
        if factor == 1:
            return self
        counts = self.counts
        for axis, start in enumerate(self.first):
            # Where each run of bins that become one begins.
            number = (start + np.arange(counts.shape[axis])) // factor
            counts = np.add.reduceat(counts, np.flatnonzero(np.diff(number, prepend=number[0] - 1)), axis=axis)
        return Histogram(counts, exponent, tuple(start // factor for start in self.first), self.most)


def _exponent(low: NDArray[Any], high: NDArray[Any], least: int, most: int) -> int:
    """The smallest exponent, not below ``least``, that needs no more than ``most`` bins with numbers that are exact."""
    span, largest = float((high - low).max()), float(max(np.abs(low).max(), np.abs(high).max()))
    exponent = max(
        least,
        math.floor(math.log2(span / most)) if span > 0 else least,
        math.frexp(largest)[1] - 52,
    )
    while (np.floor(np.ldexp(high, -exponent)) - np.floor(np.ldexp(low, -exponent))).max() >= most:
        exponent += 1
    return exponent
