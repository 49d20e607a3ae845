"""The pictures of a report, drawn from what `Pictures` has gathered of one or more candidates."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from .histogram import Histogram
from .measure import Float
from .page import Picture, address, composite, png
from .pictures import Pictures

DIVERGING, SEQUENTIAL, DENSITY = "RdBu_r", "viridis", "magma_r"
SHOWN = 98
"""Percentile at which the colours of maps end; what is beyond has the last colour."""

_LEVELS, _COLOURS = 40, 128
_GREY = 217
_CELLS = 500_000
"""Cells of all maps of a gallery together, more are joined: bounds the page's size."""

_MODEL, _OTHERS = "#1f5fa8", ("#c2571a", "#5b8c2a", "#7a4fa3")

Colours = tuple[str, float, float]
"""Name of the colour map, lowest and highest value."""


@dataclass(frozen=True)
class Gallery:
    """Pictures that belong together, so many beside each other on a wide page, and the bar of their colours.

    ``charts``: they have text, so that a narrow page shows them below each other.
    """

    title: str
    text: str
    pictures: list[Picture]
    columns: int
    bar: Picture | None = None
    charts: bool = False


def galleries(names: Sequence[str], all_of: Sequence[Pictures], unit: str) -> Iterator[Gallery]:
    """All that there is to show, one after the other. ``unit``: of the images' values, may be empty."""
    first, shown = all_of[0], f" ({unit})" if unit else ""
    many = len(names) > 1
    yield _composites(names, all_of)
    squares = [pictures.root_mean_squares() for pictures in all_of]
    labels = [f"{name}: RMS difference" if many else "RMS difference" for name in names]
    yield _maps(
        "Size of the difference", "Root mean square over the bands.", squares, labels, ("RMS difference", unit),
        max(len(names), 2),
    )  # fmt: skip
    signed = [pictures.differences()[index] for index in range(len(first.bands)) for pictures in all_of]
    labels = [f"{band}, {name}" if many else band for band in first.bands for name in names]
    yield _maps(
        "Sign of the difference", "Image minus reference: red where the image is higher, blue where it is lower.",
        signed, labels, ("difference", unit), 3 if len(names) == 1 else min(2 * len(names), 4), signed=True,
    )  # fmt: skip
    if len(first.bands) > 1:
        angles = [pictures.angles() for pictures in all_of]
        labels = [f"{name}: spectral angle" if many else "Spectral angle" for name in names]
        yield _maps(
            "Spectral angle", "Angle between the spectra of reference and image: a change of colour, not of "
            "brightness.", angles, labels, ("spectral angle", "°"), max(len(names), 2),
        )  # fmt: skip
    yield _scatters(names, all_of, shown)
    yield _errors(names, all_of, shown)


def _stretched(image: Float, ends: Float) -> Float:
    """(bands, h, w) to (h, w, 3) between 0 and 1; ``ends`` (2, bands) are black and full; light grey: no value."""
    known = np.isfinite(image).all(axis=0)
    low, high = ends[..., None, None]
    scaled = np.clip((image - low) / np.maximum(high - low, 1e-9), 0, 1)
    return np.moveaxis(np.broadcast_to(np.where(known, scaled, _GREY / 255), (3, *known.shape)), 0, -1)


def _composites(names: Sequence[str], all_of: Sequence[Pictures]) -> Gallery:
    bands = composite(all_of[0].bands)
    images = [all_of[0].means()[0][bands], *(pictures.means()[1][bands] for pictures in all_of)]
    titles = ["Reference", *(names if len(names) > 1 else ["Image"])]
    known = np.isfinite(images[0]).all(axis=0)
    ends = np.percentile(images[0][:, known], (2, 98), axis=1) if known.any() else np.zeros((2, len(bands)))
    step = _step(images)
    pictures = [
        Picture(_colour_png(_stretched(_reduced(image, step), ends)), f"Overview: {title}", title)
        for title, image in zip(titles, images, strict=True)
    ]
    shown = ", ".join(all_of[0].bands[index] for index in bands)
    each = _cell(all_of[0].cell * step)
    text = f"{'Bands' if len(bands) > 1 else 'Band'} {shown}, all stretched alike. {each} Grey: no value."
    return Gallery("Overview", text, pictures, max(len(pictures), 2))


def _maps(
    title: str, text: str, maps: Sequence[Float], labels: Sequence[str], bar: tuple[str, str], columns: int,
    signed: bool = False,
) -> Gallery:  # fmt: skip
    """Maps in one scale of colours. ``bar``: what it shows, and the unit."""
    what, unit = bar
    values = np.abs(np.concatenate([image[np.isfinite(image)] for image in maps]))
    end = float(np.percentile(values, SHOWN)) if values.size else 0.0
    end = end or (float(values.max()) if values.size else 0.0) or 1.0
    beyond = float((values > end).mean()) if values.size else 0.0
    colours = (DIVERGING, -end, end) if signed else (SEQUENTIAL, 0.0, end)
    step = _step(maps)
    pictures = [
        Picture(_map_png(_reduced(image, step), colours), f"Map, {label}", label)
        for label, image in zip(labels, maps, strict=True)
    ]
    scale = (
        f"Colours end at {'±' if signed else ''}{end:.3g}{'' if unit == '°' else ' '}{unit}".rstrip()
        + f", percentile {SHOWN} of all maps here"
    )
    scale += f" ({beyond:.1%} lie beyond)." if beyond else "."
    return Gallery(
        title,
        f"{text} {scale} Grey: no value.",
        pictures,
        columns,
        _bar(colours, f"{what} ({unit})" if unit else what, signed),
    )


def _scatters(names: Sequence[str], all_of: Sequence[Pictures], unit: str) -> Gallery:
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
    bar = _bar((DENSITY, 1, max(most, 2)), "pixels", logarithmic=True)
    return Gallery("Reference against image", text, pictures, max(4 - len(names), 1), bar, charts=True)


def _errors(names: Sequence[str], all_of: Sequence[Pictures], unit: str) -> Gallery:
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
    edges: Float = (np.arange(2 * bins + 2) - bins - 0.5) * (joined * width)
    return edges, np.asarray(counts / max(int(histogram.counts.sum()), 1), np.float64)


def _joined(wanted: float, width: float, odd: bool = False) -> int:
    """How many bins to join for about a width; whole numbers above 1, so that integers do not fall unevenly."""
    if wanted > 1 >= width:
        whole = math.ceil(wanted)
        return int((whole | 1 if odd else whole) / width)
    return max(math.ceil(wanted / width), 1)


def _step(maps: Sequence[Float]) -> int:
    """How many cells to join along each side, of maps (..., rows, columns)."""
    cells = sum(image.shape[-1] * image.shape[-2] for image in maps)
    return max(math.ceil(math.sqrt(cells / _CELLS)), 1)


def _reduced(image: Float, step: int) -> Float:
    """Means of ``step`` x ``step`` cells of a map (..., rows, columns), of those that are not NaN."""
    if step == 1:
        return image
    known = np.isfinite(image)
    sums, counts = np.where(known, image, 0.0), known.astype(np.float64)
    for axis in (-2, -1):
        starts = np.arange(0, image.shape[axis], step)
        sums, counts = (np.add.reduceat(values, starts, axis=axis) for values in (sums, counts))
    return np.asarray(np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0), np.float64)


def _cell(side: int) -> str:
    return "A cell is one pixel." if side == 1 else f"A cell is {side} × {side} pixels."


def _map_png(image: Float, colours: Colours) -> str:
    """A map (rows, columns) as a PNG with a palette; grey where it is NaN."""
    name, low, high = colours
    known = np.isfinite(image)
    scaled = np.clip((np.where(known, image, low) - low) / (high - low), 0, 1)
    levels = np.where(known, np.rint(scaled * (_LEVELS - 1)), _LEVELS).astype(np.uint8)
    palette = (colormaps[name](np.linspace(0, 1, _LEVELS))[:, :3] * 255).round().astype(np.uint8)
    picture = Image.fromarray(levels, "P")
    picture.putpalette(np.concatenate([palette, np.full((1, 3), _GREY, np.uint8)]).tobytes())
    return _saved(picture)


def _colour_png(image: Float) -> str:
    """A picture (rows, columns, 3) between 0 and 1 as a PNG with a palette."""
    return _saved(Image.fromarray((image * 255).round().astype(np.uint8)).quantize(_COLOURS))


def _saved(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return address(stream.getvalue(), "image/png")


def _bar(colours: Colours, label: str, signed: bool = False, logarithmic: bool = False) -> Picture:
    """The scale of the colours."""
    name, low, high = colours
    figure = Figure(figsize=(3.6, 0.55), layout="constrained")
    axes = figure.add_subplot()
    norm = LogNorm(low, high) if logarithmic else Normalize(low, high)
    extend = "neither" if logarithmic else "both" if signed else "max"
    bar = figure.colorbar(ScalarMappable(norm, name), cax=axes, orientation="horizontal", extend=extend)
    bar.set_label(label, fontsize=8)
    axes.tick_params(labelsize=7)
    return Picture(png(figure), f"Colours: {label}, {low:.3g} to {high:.3g}")


def _small(axes: Any) -> None:
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    axes.locator_params(nbins=4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
