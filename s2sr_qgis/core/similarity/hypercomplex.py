"""Q2n: the universal image quality index of whole spectra, as hypercomplex numbers.

A spectrum of up to 2^n bands is a hypercomplex number z of 2^n parts, one a band, the missing ones zero; numbers are
multiplied by the rule of Cayley and Dickson, and z* is z with all parts but the first negated. Over blocks of 32 x 32
pixels that do not overlap,

    Q2n = 2 |s_12| / (s_1² + s_2²) · 2 |m_1| |m_2| / (|m_1|² + |m_2|²),

with the means m of z1 and z2, s_12 = mean(z1 z2*) - m_1 m_2* and s² = mean(|z|²) - |m|². Garzelli and Nencini 2009,
doi:10.1109/LGRS.2009.2022650; of one band it is the absolute value of Wang and Bovik's index. The toolbox of Vivone et
al. 2015, doi:10.1109/TGRS.2014.2361734, first scales every band of a block by the reference's mean and deviation there
and mirrors images up to whole blocks; here the values are taken as they are, and a block is what the image has of it.
"""

from __future__ import annotations

import numpy as np

from .measure import BLOCK_STEP, Array, Block, Float, Mask, Measure, Score, Setup
from .window import FLAT

SIDE = BLOCK_STEP
"""Side of Q2n's blocks; they start at multiples of it, as every `Block` does."""


class Q2n:
    """Mean of Q2n over blocks, each weighing as many pixels as count in it.

    So blocks at the right and lower edge and around nodata neither drop out nor weigh more than they show. Of flat
    blocks the first factor is 1, and the second where both means are zero.
    """

    halo = 0

    def __init__(self, setup: Setup) -> None:
        parts = 1 << (setup.bands - 1).bit_length()
        signs = multiplication(parts) * _conjugation(parts)
        self._signs = signs[: setup.bands, : setup.bands]
        # Which part of the product each pair of bands adds to.
        self._parts = (np.arange(parts)[:, None] ^ np.arange(parts))[: setup.bands, : setup.bands]
        self._size = parts
        self.sums = np.zeros(2)

    def observe(self, block: Block) -> Float:
        """How many pixels count, and the sum of their blocks' quality, each as often."""
        rows, cols = block.own
        sums = np.zeros(2)
        whole = cols.start + (cols.stop - cols.start) // SIDE * SIDE
        for top in range(rows.start, rows.stop, SIDE):
            down = slice(top, min(top + SIDE, rows.stop))
            for across, count in (
                (slice(cols.start, whole), (whole - cols.start) // SIDE),
                (slice(whole, cols.stop), 1),
            ):
                if across.stop > across.start:
                    x, y = (_side_by_side(z[:, down, across], count) for z in (block.x, block.y))
                    valid: Mask = np.all(_side_by_side(block.valid[:, down, across], count), axis=1)
                    sums += self._quality(x, y, valid)
        return sums

    def take(self, part: Float) -> None:
        """Add a block's sums."""
        self.sums += part

    def score(self) -> Score:
        """See `Accumulator`."""
        count, quality = self.sums
        return Score(None, float(quality / count) if count else float("nan"))

    def _quality(self, x: Float, y: Float, valid: Mask) -> Float:
        """Of blocks (n, bands, pixels) and where they count (n, pixels): pixels, and quality times pixels."""
        count = valid.sum(axis=1).astype(np.float64)
        some = np.maximum(count, 1.0)
        means = [(z * valid[:, None]).sum(axis=2) / some[:, None] for z in (x, y)]
        x, y = ((z - m[:, :, None]) * valid[:, None] for z, m in zip((x, y), means, strict=True))
        squares = sum(np.square(m).sum(axis=1) for m in means)
        spreads = (np.square(x).sum(axis=(1, 2)) + np.square(y).sum(axis=(1, 2))) / some
        covariances = self._signs * (x @ y.transpose(0, 2, 1)) / some[:, None, None]
        products = np.zeros((len(x), self._size))
        for part in range(self._size):
            products[:, part] = covariances[:, self._parts == part].sum(axis=1)
        lengths = np.sqrt(np.square(means[0]).sum(axis=1) * np.square(means[1]).sum(axis=1))
        flat, empty = spreads <= FLAT * squares, squares == 0
        contrast = np.where(flat, 1.0, 2 * np.sqrt(np.square(products).sum(axis=1)) / np.where(flat, 1.0, spreads))
        luminance = np.where(empty, 1.0, 2 * lengths / np.where(empty, 1.0, squares))
        return np.array([count.sum(), (count * contrast * luminance).sum()])


def multiplication(parts: int) -> Float:
    """Signs s of the products of unit numbers, e_i e_j = s[i, j] e_(i xor j), for a power of two of parts.

    From (a, b)(c, d) = (ac - d*b, da + bc*), halves of halves down to real numbers.
    """
    if parts == 1:
        return np.ones((1, 1))
    half = multiplication(parts // 2)
    conjugation = _conjugation(parts // 2)
    return np.block([[half, half.T], [half * conjugation, -half.T * conjugation]])


def _conjugation(parts: int) -> Float:
    return np.where(np.arange(parts) == 0, 1.0, -1.0)


def _side_by_side(values: Array, count: int) -> Array:
    """From (bands, rows, columns) to (count, bands, pixels), blocks that lie beside each other."""
    bands, rows, _ = values.shape
    return values.reshape(bands, rows, count, -1).transpose(2, 0, 1, 3).reshape(count, bands, -1)


MEASURES: tuple[Measure, ...] = (
    Measure(
        "q2n",
        "Q2n",
        "",
        1.0,
        {
            "reference": "Hypercomplex quality index, mean over blocks of 32 x 32 of 2 |s_12| / (s_1² + s_2²) · 2 "
            "|m_1| |m_2| / (|m_1|² + |m_2|²) of spectra as hypercomplex numbers; blocks weigh by the pixels that count "
            "in them. Garzelli and Nencini 2009, doi:10.1109/LGRS.2009.2022650.",
        },
        Q2n,
    ),
)
"""What this module adds to the catalogue."""
