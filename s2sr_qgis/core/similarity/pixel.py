"""Measures of pixels and spectra: RMSE, PSNR, SRE, ERGAS, spectral angle and spectral correlation.

All come from sums over pixels, so a block needs no surroundings. Blocks are worked on in pieces that stay in the
processor's cache; since those are turned to float64 one by one, a block's images may be integers here, too. A spectrum
counts where all bands do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .measure import Array, Block, Float, Mask, Measure, Score, Setup, averaged

ERROR_PIECE, SPECTRA_PIECE = 1 << 17, 1 << 14
"""Pixels of a piece, at most, where a row is not longer."""

LEAST_BANDS = 3
"""Bands that a spectral correlation needs: between two points it is always 1 or -1."""


class Errors:
    """Sums over a band's pixels that count: how many, x, and (x - y)²; `Comparison` observes them once for all."""

    halo = 0
    observes = "errors"
    integers = True

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.sums = np.zeros((3, setup.bands))

    def observe(self, block: Block) -> Float:
        """The three sums of each band, (3, bands)."""
        sums = np.zeros_like(self.sums)
        rows, cols = block.own
        length = cols.stop - cols.start
        room = np.empty((2, min(_step(length, ERROR_PIECE), rows.stop - rows.start), length))
        ones = np.ones(room[0].size)
        valid = block.valid[:, rows, cols]
        # Where every pixel counts, a single row may stand for all of them (see `measures.whole_block`).
        unique = valid[:1, :1] if valid.strides[:2] == (0, 0) else valid
        sums[0] = valid[0].size if unique.all() else np.count_nonzero(valid, axis=(1, 2))
        for piece in _pieces(block.own, ERROR_PIECE):
            x, difference = room[:, : piece.stop - piece.start]
            for band in range(self.setup.bands):
                np.copyto(x, block.x[band, piece, cols])
                np.copyto(difference, block.y[band, piece, cols])
                difference -= x
                sums[1, band] += np.dot(x.ravel(), ones[: x.size])
                sums[2, band] += np.dot(difference.ravel(), difference.ravel())
        return sums

    def take(self, part: Float) -> None:
        """Add a block's sums."""
        self.sums += part

    def means(self) -> Float:
        """Mean of x and of (x - y)² over each band's pixels, (2, bands); NaN where none counts."""
        count = self.sums[0]
        means: Float = np.divide(self.sums[1:], count, out=np.full((2, len(count)), np.nan), where=count > 0)
        return means


class Rmse(Errors):
    """Reference: sqrt(MSE); up42: the same over the data range. Total: mean of the bands'."""

    def score(self) -> Score:
        """See `Accumulator`."""
        _, mse = self.means()
        scale = self.setup.data_range if self.setup.definition == "up42" else 1.0
        return averaged(np.sqrt(mse) / scale)


class Psnr(Errors):
    """10 log10(data range² / MSE), in both definitions. Total: that of the bands' mean MSE."""

    def score(self) -> Score:
        """See `Accumulator`."""
        _, mse = self.means()
        signal = np.array(float(self.setup.data_range) ** 2)
        return Score(decibel(signal, mse), float(decibel(signal, mse.mean())))


class Sre(Errors):
    """Reference: 10 log10(mean(x)² / MSE), total the mean in dB.

    up42: the squares' sum under a root, 10 log10(mean(x)² / (|x - y| / n)), total that of the bands' mean ratio.
    """

    def score(self) -> Score:
        """See `Accumulator`."""
        mean, mse = self.means()
        if self.setup.definition == "reference":
            return averaged(decibel(mean**2, mse))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(mse == 0, np.inf, mean**2 / np.sqrt(mse / self.sums[0]))
        return Score(decibel(ratio, np.ones_like(ratio)), float(decibel(ratio.mean(), np.array(1.0))))


class Ergas(Errors):
    """100 h/l sqrt(mean over bands of MSE / mean(x)²), where h/l is one over the setup's ratio."""

    def score(self) -> Score:
        """See `Accumulator`."""
        mean, mse = self.means()
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(mse == 0, 0.0, mse / mean**2)
        return Score(None, float(100 / self.setup.ratio * np.sqrt(relative.mean())))


class Spectra:
    """Sums of a figure of two spectra over the pixels that have it.

    Where no pixel has it but some are equal and merely lack what the figure is about (zero spectra have no angle), the
    score is that of equal images.
    """

    halo = 0
    integers = True
    perfect = 0.0

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.sums = np.zeros(3)

    def local(self, x: Float, y: Float) -> tuple[Float, Mask, Mask]:
        """The figure of each pixel, where it means something, and where both spectra have nothing to compare."""
        raise NotImplementedError

    def observe(self, block: Block) -> Float:
        """How many pixels count, the sum of their figures, and how many have nothing to compare."""
        sums = np.zeros(3)
        for rows in _pieces(block.own, SPECTRA_PIECE):
            place = slice(None), rows, block.own[1]
            figures, found, empty = self.local(*(np.asarray(z[place], np.float64) for z in (block.x, block.y)))
            valid = block.valid[place]
            if not valid.all():
                counts = valid.all(axis=0)
                found &= counts
                empty &= counts
            number = np.count_nonzero(found)
            total = figures.sum() if number == found.size else figures[found].sum()
            sums += np.array([number, total, np.count_nonzero(empty)])
        return sums

    def take(self, part: Float) -> None:
        """Add a block's sums."""
        self.sums += part

    def score(self) -> Score:
        """See `Accumulator`."""
        count, total, empty = self.sums
        return Score(None, float(total / count) if count else self.perfect if empty else float("nan"))


class Sam(Spectra):
    """Mean over pixels of arccos(x·y / (|x| |y|)) in degrees, in both definitions; zero spectra do not count."""

    def local(self, x: Float, y: Float) -> tuple[Float, Mask, Mask]:
        """See `Spectra`."""
        xx, yy, cosine = _product(x, x), _product(y, y), _product(x, y)
        lengths = np.sqrt(np.multiply(xx, yy, out=xx), out=xx)
        found, empty = _comparable(lengths, x, y)
        np.copyto(lengths, 1.0, where=~found)
        cosine /= lengths
        np.clip(cosine, -1.0, 1.0, out=cosine)
        angles = np.arccos(cosine, out=cosine)
        angles *= 180 / np.pi
        return angles, found, empty


class SpectralCorrelation(Spectra):
    """Mean over pixels of the correlation over bands between two spectra; flat spectra do not count."""

    perfect = 1.0

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        if setup.bands < LEAST_BANDS:
            self.perfect = float("nan")

    def local(self, x: Float, y: Float) -> tuple[Float, Mask, Mask]:
        """See `Spectra`."""
        if len(x) < LEAST_BANDS:
            nowhere = np.zeros(x.shape[1:], bool)
            return np.zeros(x.shape[1:]), nowhere, nowhere
        # From the first band on, so that a flat spectrum's deviations are exactly zero.
        x, y = x[1:] - x[0], y[1:] - y[0]
        bands = len(x) + 1
        sum_x, sum_y = x.sum(axis=0), y.sum(axis=0)
        xx = _product(x, x) - sum_x * sum_x / bands
        yy = _product(y, y) - sum_y * sum_y / bands
        xy = _product(x, y) - sum_x * sum_y / bands
        lengths = np.sqrt(np.maximum(xx, 0.0) * np.maximum(yy, 0.0))
        found, empty = _comparable(lengths, x, y)
        correlation: Float = np.divide(xy, lengths, out=np.zeros_like(xy), where=found)
        return np.clip(correlation, -1.0, 1.0), found, empty


def angle_map(x: Float, y: Float, valid: Mask) -> Float:
    """Spectral angle of every pixel in degrees, (H, W), NaN where a spectrum does not count or is zero."""
    bands, height, width = x.shape
    angles = np.empty((height, width))
    sam = Sam(Setup(bands, height, width, data_range=1.0))
    for rows in _pieces((slice(0, height), slice(0, width)), SPECTRA_PIECE):
        figures, found, _ = sam.local(x[:, rows], y[:, rows])
        angles[rows] = np.where(found & valid[:, rows].all(axis=0), figures, np.nan)
    return angles


def decibel(signal: Array, noise: Array) -> Float:
    """10 log10(signal / noise); inf without noise, whatever the signal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(10.0 * np.log10(signal / noise), np.float64)
    return np.where(np.asarray(noise) == 0, np.inf, ratio)


def _comparable(lengths: Float, x: Float, y: Float) -> tuple[Mask, Mask]:
    """Where the product of two vectors' lengths is not zero, and where both vectors are."""
    found: Mask = lengths > 0
    if found.all():
        return found, ~found
    empty: Mask = np.logical_not(x.any(axis=0) | y.any(axis=0))
    return found, empty


def _product(x: Float, y: Float) -> Float:
    """Sum over bands of x y."""
    total: Float = x[0] * y[0]
    more = np.empty_like(total)
    for a, b in zip(x[1:], y[1:], strict=True):
        total += np.multiply(a, b, out=more)
    return total


def _step(length: int, pixels: int) -> int:
    """Rows of that length in a piece of so many pixels."""
    return max(1, pixels // max(1, length))


def _pieces(own: tuple[slice, slice], pixels: int) -> Iterator[slice]:
    """Rows of a block's own part, a few at a time."""
    rows, cols = own
    step = _step(cols.stop - cols.start, pixels)
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(start + step, rows.stop))


MEASURES: tuple[Measure, ...] = (
    Measure(
        "rmse",
        "RMSE",
        "values",
        0.0,
        {
            "reference": "Root mean square error, sqrt(mean((x - y)²)), in the images' units; total: mean of the "
            "bands'.",
            "up42": "sqrt(mean((x - y)²)) / data range; total: mean of the bands'.",
        },
        Rmse,
    ),
    Measure(
        "psnr",
        "PSNR",
        "dB",
        float("inf"),
        {
            "reference": "Peak signal-to-noise ratio, 10 log10(data range² / mean((x - y)²)); total: that of the "
            "bands' mean of mean((x - y)²). Huynh-Thu and Ghanbari 2008, doi:10.1049/el:20080522.",
            "up42": "20 log10(data range / sqrt(mean((x - y)²))); total: that of the bands' mean of mean((x - y)²).",
        },
        Psnr,
    ),
    Measure(
        "sre",
        "SRE",
        "dB",
        float("inf"),
        {
            "reference": "Signal to reconstruction error ratio, 10 log10(mean(x)² / mean((x - y)²)); total: mean of "
            "the bands'. Lanaras et al. 2018, doi:10.1016/j.isprsjprs.2018.09.018.",
            "up42": "10 log10(mean(x)² / (|x - y| / n)) with the norm not squared, so that it depends on the number n "
            "of pixels; total: 10 log10 of the bands' mean ratio.",
        },
        Sre,
    ),
    Measure(
        "sam",
        "SAM",
        "°",
        0.0,
        {
            "reference": "Spectral angle, mean over pixels of arccos(x·y / (|x| |y|)) between the two spectra; zero "
            "spectra do not count. Yuhas, Goetz and Boardman 1992, JPL Publication 92-14, pp. 147-149.",
            "up42": "Mean over pixels of arccos(x·y / (|x| |y|)); zero spectra, at which the package gives up and "
            "answers 0, do not count.",
        },
        Sam,
    ),
    Measure(
        "ergas",
        "ERGAS",
        "",
        0.0,
        {
            "reference": "Relative dimensionless global error, 100 h/l sqrt(mean over bands of mean((x - y)²) / "
            "mean(x)²); h/l is the pixel size after super-resolution over that before. Wald 2000, Quality of high "
            "resolution synthesised images: is there a simple criterion?, Fusion of Earth Data, pp. 99-103.",
        },
        Ergas,
    ),
    Measure(
        "spectral_correlation",
        "Spectral correlation",
        "",
        1.0,
        {
            "reference": "Mean over pixels of the Pearson correlation over bands between the two spectra (spectral "
            "correlation mapper); flat spectra do not count; needs 3 bands. De Carvalho and Meneses 2000, JPL "
            "Publication 00-18.",
        },
        SpectralCorrelation,
    ),
)
"""What this module adds to the catalogue."""
