"""The charts of a report: scatters of reference against image, and histograms of the error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .histogram import Histogram
from .maps import colour_bar
from .measure import Float
from .page import Gallery, Picture, png
from .pictures import Pictures

DENSITY = "magma_r"
_MODEL, _OTHERS = "#1f5fa8", ("#c2571a", "#5b8c2a", "#7a4fa3")


def scatters(names: Sequence[str], all_of: Sequence[Pictures], unit: str) -> Gallery:
    """Density of pixels, reference against image, a picture a band."""
    pictures, counted = [], []
    for index, band in enumerate(all_of[0].bands):
        shown = [_cropped(each.scatter[index]) for each in all_of]
        counted.append((band, shown))
    most = max((int(h.max()) for _, shown in counted for h, _ in shown), default=1)
    for band, shown in counted:
        figure = Figure(figsize=(2.3 * len(names) + 0.2, 2.4), layout="constrained")
        low = min(float(x[0]) for _, x in shown)
        high = max(float(x[-1]) for _, x in shown)
        for number, (name, (counts, edges)) in enumerate(zip(names, shown, strict=True)):
            axes = figure.add_subplot(1, len(names), number + 1)
            axes.plot([low, high], [low, high], color="#777", linewidth=0.7, zorder=3)
            if counts.any():
                cells = np.ma.masked_equal(counts.T, 0)
                axes.pcolormesh(edges, edges, cells, norm=LogNorm(1, max(most, 2)), cmap=DENSITY, rasterized=True)
            axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel=f"reference{unit}")
            axes.set_ylabel("image" if len(names) == 1 else name)
            _small(axes)
        pictures.append(Picture(png(figure), f"Density of pixels, reference against image, {band}", band))
    text = "Reference against image: how many pixels have both values, in a logarithmic scale; the line is where both "
    text += "are equal. Axes leave out the rarest 0.1 % of the values at each end."
    bar = colour_bar((DENSITY, 1, max(most, 2)), "pixels", logarithmic=True)
    return Gallery("Reference against image", text, pictures, max(4 - len(names), 1), bar, charts=True)


def errors(names: Sequence[str], all_of: Sequence[Pictures], unit: str) -> Gallery:
    """Histograms of image - reference, a picture a band with all candidates."""
    pictures = []
    for index, band in enumerate(all_of[0].bands):
        histograms = [pictures_of.errors[index] for pictures_of in all_of]
        reach = max((_reach(histogram) for histogram in histograms), default=1.0)
        figure = Figure(figsize=(2.8, 2.1), layout="constrained")
        axes = figure.add_subplot()
        beyond = []
        for number, (name, histogram) in enumerate(zip(names, histograms, strict=True)):
            edges, shares = _around_zero(histogram, reach)
            colour = _MODEL if number == 0 else _OTHERS[(number - 1) % len(_OTHERS)]
            axes.stairs(100 * shares, edges, color=colour, label=name, linewidth=1.1, fill=False)
            if number == 0:
                axes.stairs(100 * shares, edges, color=colour, alpha=0.25, fill=True)
            beyond.append(f"{max(1 - shares.sum(), 0):.1%}" + (f" of {name}" if len(names) > 1 else ""))
            limits = float(edges[0]), float(edges[-1])
            axes.set_xlim(*limits)
        axes.axvline(0, color="#777", linewidth=0.7)
        axes.set(xlabel=f"image − reference{unit}", ylabel="% of the pixels")
        axes.set_ylim(bottom=0)
        if len(names) > 1:
            axes.legend(fontsize=8, frameon=False, handlelength=1.2)
        _small(axes)
        caption = f"{band}; beyond the axis: {', '.join(beyond)}"
        pictures.append(Picture(png(figure), f"Histogram of the error, {band}", caption))
    return Gallery("Errors", "How often each difference occurs, in bins around zero.", pictures, 3, charts=True)


def _cropped(histogram: Histogram, bins: int = 90) -> tuple[NDArray[np.int64], Float]:
    """A scatter's counts without the rarest values, in about so many bins, and the edges, those of both axes."""
    if not histogram.counts.any():
        return np.zeros((1, 1), np.int64), np.array([0.0, 1.0])
    low, high = np.inf, -np.inf
    for axis in (0, 1):
        counts = histogram.counts.sum(axis=1 - axis)
        below: Float = np.cumsum(counts) / counts.sum()
        edges = histogram.edges(axis)
        low = min(low, float(edges[int(np.searchsorted(below, 0.001, "right"))]))
        high = max(high, float(edges[min(int(np.searchsorted(below, 0.999)) + 1, len(edges) - 1)]))
    width = histogram.width
    joined = _joined((high - low) / bins, width)
    start = math.floor(low / width / joined) * joined
    count = max(-(-round(high / width - start) // joined), 1)
    whole = np.zeros((count * joined, count * joined), np.int64)
    to, where = [], []
    for first, length in zip(histogram.first, histogram.counts.shape, strict=True):
        target, source = max(first - start, 0), max(start - first, 0)
        size = max(min(count * joined - target, length - source), 0)
        to.append(slice(target, target + size))
        where.append(slice(source, source + size))
    whole[tuple(to)] = histogram.counts[tuple(where)]
    joint = whole.reshape(count, joined, count, joined).sum(axis=(1, 3))
    return joint, (start + joined * np.arange(count + 1, dtype=np.float64)) * width


def _reach(histogram: Histogram) -> float:
    """The difference that 99 of 100 pixels keep below."""
    total = histogram.counts.sum()
    if not total:
        return 0.0
    edges = np.abs(histogram.edges())
    far = np.maximum(edges[:-1], edges[1:])
    order = np.argsort(far)
    place = int(np.searchsorted(np.cumsum(histogram.counts[order]), 0.99 * total))
    return float(far[order][place])


def _around_zero(histogram: Histogram, reach: float, bins: int = 30) -> tuple[Float, Float]:
    """Edges of 2 ``bins`` + 1 bins centred on zero that cover ``reach``, and the share of all values in each."""
    width = histogram.width
    joined = _joined(max(reach / bins, 2 * width), width, odd=True)
    if width != 1:  # bins of 1 hold one integer each
        joined += joined % 2  # so that half of the bins joined around zero are below it
    numbers = histogram.first[0] + np.arange(len(histogram.counts))
    groups = (numbers + joined // 2) // joined + bins
    inside = (groups >= 0) & (groups <= 2 * bins)
    counts = np.bincount(groups[inside], histogram.counts[inside], minlength=2 * bins + 1)
    edges = (np.arange(2 * bins + 2, dtype=np.float64) - bins - 0.5) * (joined * width)
    return edges, np.asarray(counts / max(int(histogram.counts.sum()), 1), np.float64)


def _joined(wanted: float, width: float, odd: bool = False) -> int:
    """How many bins to join for about a width; whole numbers above 1, so that integers do not fall unevenly."""
    if wanted > 1 >= width:
        whole = math.ceil(wanted)
        return int((whole | 1 if odd else whole) / width)
    return max(math.ceil(wanted / width), 1)


def _small(axes: Any) -> None:
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    axes.locator_params(nbins=4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
