"""A super-resolved raster over its source: bands by name in reflectance, and which fine pixels make a coarse one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import InputError
from ..raster import units
from ..raster.grid import Grid, Window
from ..raster.image import Image
from ..raster.superimpose import valid_pixels
from ..scene import Scene, open_scene
from ..scene.bands import BANDS
from .measure import Float, Mask
from .rasters import QUANTIFICATION, Raster, described

TOLERANCE = 0.05
"""Fine pixels by which edges may be apart anywhere and still meet."""


class Source(Protocol):
    """Bands by name, in reflectance, each on its own grid. ``warnings``: what was assumed about the source."""

    name: str
    bands: list[str]
    warnings: list[str]

    def grid(self, band: str) -> Grid:
        """A band's own grid."""

    def read(self, bands: Sequence[str], window: Window) -> tuple[Float, Mask]:
        """Bands of one grid, (bands, h, w): reflectance, 0 where not valid, and where it is."""


class SceneSource:
    """A Sentinel-2 scene; saturated pixels are not valid."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self.name, self.bands = scene, scene.name, list(scene.bands)
        self.warnings = scene.warnings

    def grid(self, band: str) -> Grid:
        """See `Source.grid`."""
        return self._scene.grid.coarser(self._factor(band))

    def read(self, bands: Sequence[str], window: Window) -> tuple[Float, Mask]:
        """See `Source.read`."""
        pixels = self._scene.read(bands, window.finer(self._factor(bands[0])))
        valid = np.stack([pixels.valid[band] & ~pixels.saturated[band] for band in bands])
        data = np.stack([pixels.data[band] for band in bands]).astype(np.float64)
        return np.where(valid, data, 0.0), valid

    def _factor(self, band: str) -> int:
        return self._scene.band(band).resolution // 10


class RasterSource:
    """A raster; a band without a name has its number. Reflectance by `unit_of`."""

    def __init__(self, raster: Raster) -> None:
        self.raster, self.name, self.warnings = raster, raster.path.name, raster.warnings
        self.bands: list[str] = [name or str(place + 1) for place, name in enumerate(raster.names)]
        self._factor, self._summand = unit_of(raster)

    def grid(self, band: str) -> Grid:
        """See `Source.grid`."""
        return self.raster.grid

    def read(self, bands: Sequence[str], window: Window) -> tuple[Float, Mask]:
        """See `Source.read`."""
        places = [self.bands.index(band) for band in bands]
        pixels = self.raster.read(window)[places]
        valid = valid_pixels(pixels, self.raster.nodata)
        values = pixels.astype(np.float64) * self._factor[places, None, None] + self._summand[places, None, None]
        # Rounded as a scene's, so that equal pixels are equal.
        return np.where(valid, values.astype(np.float32).astype(np.float64), 0.0), valid


@contextmanager
def open_source(source: str, nodata: float | None) -> Iterator[Source]:
    """A scene, or else a raster; also one that is no whole scene, such as 10 m bands at 20 m. Raises `InputError`."""
    is_file = Path(source).expanduser().is_file()
    try:
        scene = open_scene(source)
    except InputError:
        if not is_file:
            raise
        with Raster(source, nodata) as raster:
            yield RasterSource(raster)
        return
    with scene, ExitStack() as stack:
        stacked = is_file and {band.file.path for band in scene.bands.values()} == {source}
        file = stack.enter_context(Raster(source, nodata)) if stacked else None
        if file and not {name for name in file.names if name in BANDS} <= set(scene.bands):
            yield RasterSource(file)
            return
        yield SceneSource(scene)


def unit_of(raster: Raster) -> tuple[Float, Float]:
    """Factor and summand of each band that make reflectance of its pixels.

    Those of the file's tags; without tags integers are Sentinel-2's digital numbers, 8-bit ones shares of 255, and real
    numbers what they look like (a warning of the raster where that is not reflectance).
    """
    if raster.tells_scale:
        return raster.scale, raster.offset
    if raster.stored.kind == "f":
        values = raster.sample()
        unit = units.unit_of(values[np.isfinite(values) & (values != 0)], True) or units.Unit.REFLECTANCE
        if unit is not units.Unit.REFLECTANCE:
            sentence = f"The pixels of {raster.path.name} have no scale tag: they are taken for {unit.words}."
            raster.warnings += [sentence] if sentence not in raster.warnings else []
        return np.full(len(raster.names), 1 / unit.value), np.zeros(len(raster.names))
    scale = 1 / 255 if raster.stored == np.uint8 else 1 / QUANTIFICATION
    return np.full(len(raster.names), scale), np.zeros(len(raster.names))


@dataclass(frozen=True)
class Nesting:
    """Coarse pixels that are made of ``factor`` x ``factor`` fine ones.

    ``coarse``: those that the fine image covers, on the coarse grid. ``fine``: the same ground on the fine grid.
    """

    factor: int
    coarse: Window
    fine: Window

    def inner(self, cut: int) -> Nesting:
        """Without ``cut`` coarse pixels along the edges."""
        return replace(self, coarse=self.coarse.grown(-cut), fine=self.fine.grown(-cut * self.factor))


def nesting(coarse: Grid, fine: Grid, name: str, other: str) -> Nesting:
    """How a fine grid lies in a coarse one, of files of these names. Raises `InputError` with both grids."""
    both = f"{name} is {described(coarse)}; {other} is {described(fine)}"
    if bool(coarse.crs) != bool(fine.crs) or (coarse.crs and coarse.crs != fine.crs):
        raise InputError(f"The grids do not nest, they differ in CRS: {both}. Warp one to the other's CRS.")
    ratios = coarse.spacing / fine.spacing, coarse.pixel_height / fine.pixel_height
    factor = round(ratios[0])
    if factor < 1 or ratios[0] < 1 - TOLERANCE:
        raise InputError(
            f"The image is coarser than what it is said to be made from: {both}. Name the source first and the "
            "super-resolved image second."
        )
    start = (coarse.x - fine.x) / fine.spacing, (fine.y - coarse.y) / fine.pixel_height
    drift = max(abs(ratio - factor) * size for ratio, size in zip(ratios, (coarse.width, coarse.height), strict=True))
    if drift > TOLERANCE or any(abs(value - round(value)) > TOLERANCE for value in start):
        raise InputError(
            f"The grids do not nest: each of the source's pixels must be made of whole pixels of the image, but {both}."
        )
    left, top = round(start[0]), round(start[1])
    first = max(math.ceil(-left / factor), 0), max(math.ceil(-top / factor), 0)
    last = min((fine.width - left) // factor, coarse.width), min((fine.height - top) // factor, coarse.height)
    window = Window(*first, last[0] - first[0], last[1] - first[1])
    if window.width < 1 or window.height < 1:
        raise InputError(f"The image covers no whole pixel of its source: {both}.")
    return Nesting(
        factor,
        window,
        Window(left + first[0] * factor, top + first[1] * factor, window.width * factor, window.height * factor),
    )


def moved(window: Window, onto: Window) -> Window:
    """A window that counts from the corner of another, on that one's grid."""
    return Window(window.col + onto.col, window.row + onto.row, window.width, window.height)


def whole(valid: Mask, factor: int) -> Mask:
    """Where all of a coarse pixel's fine ones are valid: (..., H, W) to (..., H / factor, W / factor)."""
    *lead, height, width = valid.shape
    cells = valid.reshape(*lead, height // factor, factor, width // factor, factor)
    return np.asarray(cells.all(axis=(-3, -1)), np.bool_)


def mask_of(mask: Image, window: Window) -> Mask:
    """Where a mask's band is neither 0 nor nodata, (h, w)."""
    pixels = mask.read(window)[:1]
    return np.asarray((valid_pixels(pixels, mask.nodata) & (pixels != 0))[0], np.bool_)
