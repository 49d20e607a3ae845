"""The maps of a report: overviews, differences and angles, as pictures with few colours."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from PIL import Image

from .measure import Float
from .page import Gallery, Picture, address, composite, png
from .pictures import Pictures

DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"
SHOWN = 98
"""Percentile at which the colours of maps end; what is beyond has the last colour."""

_LEVELS, _COLOURS = 40, 128
_GREY = 217
_CELLS = 500_000
"""Cells of all maps of a gallery together, more are joined: bounds the page's size."""

Colours = tuple[str, float, float]
"""Name of the colour map, lowest and highest value."""


def overview(names: Sequence[str], all_of: Sequence[Pictures]) -> Gallery:
    """Reference and candidates in colours, stretched alike."""
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


def maps(
    title: str, text: str, images: Sequence[Float], labels: Sequence[str], bar: tuple[str, str], columns: int,
    cell: int, signed: bool = False, judged: Sequence[int] = (),
) -> Gallery:  # fmt: skip
    """Maps (rows, columns) in one scale of colours.

    ``bar``: what the colours show, and the unit. ``cell``: side of a map's cell in pixels. ``signed``: around zero.
    ``judged``: numbers of the maps that the scale is made for; none for all.
    """
    what, unit = bar
    values = _sizes(images)
    end = _end(_sizes([images[number] for number in judged])) if judged else 0.0
    whose = "of the first image's maps" if end else "of all maps here"
    end = end or _end(values) or 1.0
    beyond = float((values > end).mean()) if values.size else 0.0
    colours = (DIVERGING, -end, end) if signed else (SEQUENTIAL, 0.0, end)
    step = _step(images)
    pictures = [
        Picture(_map_png(_reduced(image, step), colours), f"Map, {label}", label)
        for label, image in zip(labels, images, strict=True)
    ]
    ends = f"{'±' if signed else ''}{end:.3g}{unit if unit == '°' else ' ' + unit}".rstrip()
    scale = f"Colours end at {ends}, percentile {SHOWN} {whose}"
    scale += f" ({beyond:.1%} lie beyond)." if beyond else "."
    text = f"{text} {scale} {_cell(cell * step)} Grey: no value."
    shown = colour_bar(colours, f"{what} ({unit})" if unit else what, signed)
    return Gallery(title, text, pictures, columns, shown)


def _sizes(images: Sequence[Float]) -> Float:
    """Absolute values of the maps, where they have any."""
    return np.asarray(np.abs(np.concatenate([image[np.isfinite(image)] for image in images])), np.float64)


def _end(values: Float) -> float:
    """Where the colours end; the largest value where the percentile is 0."""
    return float(np.percentile(values, SHOWN) or values.max()) if values.size else 0.0


def colour_bar(colours: Colours, label: str, signed: bool = False, logarithmic: bool = False) -> Picture:
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


def _stretched(image: Float, ends: Float) -> Float:
    """(bands, h, w) to (h, w, 3) between 0 and 1; ``ends`` (2, bands) are black and full; light grey: no value."""
    known = np.isfinite(image).all(axis=0)
    low, high = ends[..., None, None]
    scaled = np.clip((image - low) / np.maximum(high - low, 1e-9), 0, 1)
    return np.moveaxis(np.broadcast_to(np.where(known, scaled, _GREY / 255), (3, *known.shape)), 0, -1)


def _step(images: Sequence[Float]) -> int:
    """How many cells to join along each side, of maps (..., rows, columns)."""
    cells = sum(image.shape[-1] * image.shape[-2] for image in images)
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
    return "A cell is one pixel." if side == 1 else f"A cell is the mean of {side} × {side} pixels."


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
