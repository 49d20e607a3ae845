"""The pictures of a pair's report, each as the address of a PNG that holds its own bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..similarity.page import png
from .pair_figures import PairCheck

Float = NDArray[np.floating[Any]]

_WIDTH = 9.6
_SQUARES = 8
_EMPTY = 0.85
_BLUE, _RED, _GREY = "#1f5fa8", "#b42318", "#999999"


def overview(images: Float) -> str:
    """Low-resolution image and reference (2, bands, h, w), NaN where invalid, and a checkerboard of both."""
    first, second = (_stretched(image) for image in images)
    return _triptych(first, second)


def detail(lr: Float, reference: Float) -> str:
    """The same of one block, (bands, h, w) each in its own pixels."""
    ratio = reference.shape[1] // lr.shape[1]
    coarse = _stretched(lr).repeat(ratio, axis=0).repeat(ratio, axis=1)
    return _triptych(coarse, _stretched(reference))


def shift_map(check: PairCheck) -> str:
    """The shift of every block as an arrow, in its place; longer arrows where the shifts are small."""
    height = float(np.clip(_WIDTH * 0.7 * check.height / check.width, 2.2, 9))
    figure = Figure(figsize=(_WIDTH * 0.8, height), layout="constrained")
    axes = figure.add_subplot()
    used = np.array([(b.col, b.row, b.dx, b.dy, b.quality) for b in check.blocks if b.used]).reshape(-1, 5)
    rest = np.array([(b.col, b.row) for b in check.blocks if not b.used]).reshape(-1, 2)
    if len(rest):
        axes.plot(rest[:, 0], rest[:, 1], "x", color=_GREY, markersize=4)
    if len(used):
        longest = max(float(np.hypot(used[:, 2], used[:, 3]).max()), 0.05)
        apart = np.sqrt(check.width * check.height / max(check.tried, 1))
        reach = min(0.12 * max(check.width, check.height), 0.9 * apart)
        arrows = axes.quiver(
            *used[:, :4].T,
            used[:, 4],
            angles="xy",
            scale_units="xy",
            scale=longest / reach,
            cmap="viridis",
            clim=(0, 1),
            width=0.003,
            pivot="mid",
        )
        key = _round(longest)
        axes.set_title(" ", fontsize=9)  # room for the key
        axes.quiverkey(arrows, 0.93, 1.03, key, f"{key:g} low-resolution px", labelpos="W", fontproperties={"size": 9})
        figure.colorbar(arrows, ax=axes, label="correlation of the detail", shrink=0.8)
    axes.set(xlim=(0, check.width), ylim=(check.height, 0), aspect="equal", xlabel="column", ylabel="row")
    return png(figure, 100, None)


def scatter(check: PairCheck, cells: Float) -> str:
    """Reference against low-resolution image band by band, (n, 2, bands), with the line of the regression."""
    columns = min(len(check.bands), 4)
    lines = -(-len(check.bands) // columns)
    side = _WIDTH / max(columns, 3)
    figure = Figure(figsize=(side * columns, side * lines), layout="constrained")
    for index, band in enumerate(check.bands):
        axes = figure.add_subplot(lines, columns, index + 1)
        y, x = cells[:, 0, index], cells[:, 1, index]
        axes.plot(x, y, ".", color=_BLUE, markersize=2, alpha=0.4, rasterized=True)
        if band.slope is not None and band.offset is not None:
            ends = np.array([x.min(), x.max()])
            axes.plot(ends, band.slope * ends + band.offset, "-", color=_RED, linewidth=1.2)
        axes.set_xlim(*_span(x))
        axes.set_ylim(*_span(y))
        axes.set_title(band.name, fontsize=9)
        axes.set_xlabel(f"reference, {band.reference}", fontsize=8)
        axes.set_ylabel("Sentinel-2", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.locator_params(nbins=4)
    return png(figure, 100, None)


def _triptych(first: Float, second: Float) -> str:
    height, width = first.shape[:2]
    rows, columns = np.arange(height)[:, None], np.arange(width)
    side = max(max(height, width) / _SQUARES, 1)
    turn = (rows // side + columns // side) % 2 == 0
    both = np.where(turn[..., None], first, second)
    figure = Figure(figsize=(_WIDTH, _WIDTH / 3 * height / width), layout="constrained")
    for index, picture in enumerate((first, second, both)):
        axes = figure.add_subplot(1, 3, index + 1)
        axes.imshow(picture, interpolation="nearest" if width < 400 else "antialiased")
        axes.set_axis_off()
    return png(figure, 100, None)


def _stretched(image: Float) -> Float:
    """(bands, h, w) to (h, w, 3) between 0 and 1, each band between its 2nd and 98th percentile; grey: no value."""
    known = np.isfinite(image).all(axis=0)
    if not known.any():
        return np.full((*known.shape, 3), _EMPTY)
    low, high = np.percentile(image[:, known], (2, 98), axis=1)[..., None, None]
    scaled = np.clip((image - low) / np.maximum(high - low, 1e-9), 0, 1)
    picture = np.broadcast_to(np.where(known, scaled, _EMPTY), (3, *known.shape))
    return np.moveaxis(picture, 0, -1)


def _span(values: Float) -> tuple[float, float]:
    """Ends of an axis that leaves out the rarest values."""
    low, high = np.percentile(values, (0.2, 99.8))
    margin = 0.06 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def _round(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above a value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)) * power)
