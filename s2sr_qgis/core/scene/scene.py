"""A Sentinel-2 scene: named bands on nested grids, read by windows as reflectance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..progress import current
from ..raster.grid import Grid, Window
from ..raster.validity import HUGE
from .files import FilePool, RasterFile
from .roi import roi_bounds

SATURATED = 65535
"""The DN of a saturated pixel."""

Level = Literal["L1C", "L2A"]


@dataclass(frozen=True)
class SceneBand:
    """One band of a scene. Reflectance = (DN + ``offset``) / ``quantification``.

    ``resolution`` is the band's own pixel size (10, 20 or 60 m), ``stored_resolution`` that of its file, which is finer
    where somebody resampled the band; reads give the band's own. ``nodata``: stored numbers that mean it; those beyond
    all measurements do always.
    ``col`` and ``row`` are the file pixel at the upper-left corner of the scene's grid.
    """

    name: str
    resolution: int
    stored_resolution: int
    offset: float
    quantification: float
    nodata: tuple[float, ...]
    dtype: str
    file: RasterFile = field(repr=False)
    index: int = 1
    col: int = 0
    row: int = 0

    def stored(self, window: Window) -> Window:
        """The pixels of the band's file that a window of the scene's 10 m grid needs."""
        part = window.scaled(self.stored_resolution // 10)
        return Window(self.col + part.col, self.row + part.row, part.width, part.height)

    def pixels(self, raw: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Stored values to reflectance at the band's own resolution, with the masks of valid and saturated pixels."""
        data, valid, saturated = reflectance(raw, self)
        factor = self.resolution // self.stored_resolution
        return _block_mean(data, valid, saturated, factor) if factor > 1 else (data, valid, saturated)


@dataclass(frozen=True)
class Pixels:
    """Bands by name, each (rows, columns) at its own resolution: ``data`` float32 reflectance, 0 where not ``valid``.

    Negative reflectance is legal. ``saturated`` marks pixels whose value is only a lower bound.
    """

    data: dict[str, NDArray[np.float32]]
    valid: dict[str, NDArray[np.bool_]]
    saturated: dict[str, NDArray[np.bool_]]


@dataclass
class Scene:
    """One Sentinel-2 acquisition on one tile, or an extract of it. Made by `open_scene`; reads are thread-safe.

    ``grid`` is the 10 m grid of the ground that all bands cover; its size and corner are multiples of the coarsest
    band's pixel, that is of ``multiple`` 10 m pixels (6, 2 or 1). ``warnings`` are sentences on what was assumed about
    the scene: every job logs them, returns them as ``assumptions`` and writes them into its outputs' tags.
    ``scl``: the file of Level-2A's scene classification, where the product has one.
    """

    name: str
    source: str
    level: Level | None
    platform: str | None
    acquired: datetime | None
    baseline: str | None
    bands: dict[str, SceneBand]
    grid: Grid
    multiple: int
    warnings: list[str] = field(default_factory=list)
    files: FilePool = field(default_factory=FilePool, repr=False)
    scl: RasterFile | None = None

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files of every thread."""
        self.files.close()

    def band(self, name: str) -> SceneBand:
        """One band by its name. Raises `InputError` where the scene lacks it."""
        if name not in self.bands:
            raise InputError(f"{self.name} has no band {name}; it has {', '.join(self.bands)}.")
        return self.bands[name]

    def names(self, resolution: int) -> list[str]:
        """Names of the scene's bands of 10, 20 or 60 m, in MSI order."""
        return [name for name, band in self.bands.items() if band.resolution == resolution]

    def read(self, bands: Sequence[str], window: Window | None = None) -> Pixels:
        """Read a window of `grid` (10 m pixels; all of it where None), each band at its own resolution.

        The window's numbers must be multiples of the requested bands' pixels. Only the window's part of each file is
        read. Raises `InputError` naming a file that cannot be read, `ValueError` for a window off the grid.
        """
        window = window or self.grid.window
        if window.clipped(self.grid.width, self.grid.height) != window:
            raise ValueError(f"{window} is not inside the scene's {self.grid.width} x {self.grid.height} pixels")
        pixels = Pixels({}, {}, {})
        for name in bands:
            band = self.band(name)
            window.scaled(band.resolution // 10)
            raw = self.files.read(band.file, band.index, band.stored(window))
            pixels.data[name], pixels.valid[name], pixels.saturated[name] = band.pixels(raw)
        return pixels

    def read_scl(self, window: Window | None = None) -> NDArray[np.uint8] | None:
        """Scene classification (0 to 11) at the pixels of a window of `grid`, (rows, columns); 0 beyond its file.

        None where the scene has none: Level-1C, or bands without georeference.
        """
        if self.scl is None or self.grid.crs is None:
            return None
        grid, header = self.grid.crop(window or self.grid.window), self.files.header(self.scl)
        t = header.transform
        x = (grid.x - t.c + (np.arange(grid.width) + 0.5) * grid.spacing) / t.a
        y = (grid.y - t.f - (np.arange(grid.height) + 0.5) * grid.pixel_height) / t.e
        columns, rows = np.floor(x).astype(int), np.floor(y).astype(int)
        inside = Window(columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        inside = inside.clipped(header.width, header.height)
        classes = np.zeros(grid.window.shape, np.uint8)
        if header.crs != grid.crs or not inside.width or not inside.height:
            return classes
        stored = self.files.read(self.scl, 1, inside)
        here = (columns >= inside.col) & (columns < inside.col + inside.width)
        there = (rows >= inside.row) & (rows < inside.row + inside.height)
        classes[np.ix_(there, here)] = stored[np.ix_(rows[there] - inside.row, columns[here] - inside.col)]
        return classes

    def roi_window(self, roi: str) -> Window:
        """The window of `grid` that covers a region, snapped outwards to the coarsest band's pixels.

        ``roi`` is ``xmin,ymin,xmax,ymax``, in the scene's CRS or followed by another (``… EPSG:4326``), QGIS's own
        ``xmin,xmax,ymin,ymax [EPSG:n]``, a geometry as WKT, or the path of a vector file (a layer of it:
        ``path|layername=name``), whose extent counts. What is assumed of it is a warning.
        Raises `InputError` when it cannot be read or lies outside.
        """
        bounds, notes = roi_bounds(roi, self.grid.crs, self.grid.bounds)
        for note in notes:
            if note not in self.warnings:
                self.warnings.append(note)
            current().log(note, "warning")
        window = self.grid.window_of(bounds, self.multiple)
        if not window.width or not window.height:
            raise InputError(f"The region of interest {roi[:200]} holds no pixel of the scene; choose a larger one.")
        return window


def reflectance(raw: NDArray[Any], band: SceneBand) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Stored values to reflectance, with the masks of valid and of saturated pixels. Source: product specification."""
    counts = band.quantification != 1
    valid = known(raw, band)
    saturated = (raw == SATURATED) & valid if counts else np.zeros(raw.shape, bool)
    data = raw.astype(np.float32)
    data += np.float32(band.offset)
    data /= np.float32(band.quantification)
    if not valid.all():
        data[~valid] = 0
    return data, valid, saturated


def known(raw: NDArray[Any], band: SceneBand) -> NDArray[np.bool_]:
    """Where stored values are measurements: neither nodata nor beyond all measurements."""
    valid: NDArray[np.bool_] = np.abs(raw) < HUGE if raw.dtype.kind == "f" else np.ones(raw.shape, bool)
    for number in band.nodata:
        if raw.dtype.kind == "f" or float(number).is_integer():
            valid &= raw != number
    return valid


def _block_mean(
    data: NDArray[np.float32], valid: NDArray[np.bool_], saturated: NDArray[np.bool_], factor: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Blocks of a band stored finer than its own resolution; a block is valid where all of it is."""
    shape = data.shape[0] // factor, data.shape[1] // factor
    total, whole, any_saturated = np.zeros(shape, np.float32), np.ones(shape, bool), np.zeros(shape, bool)
    # Summed in a fixed order: NumPy's own depends on the window's shape, and so would the last digit.
    for row in range(factor):
        for col in range(factor):
            part = np.s_[row::factor, col::factor]
            total += data[part]
            whole &= valid[part]
            any_saturated |= saturated[part]
    total /= np.float32(factor * factor)
    total[~whole] = 0
    return total, whole, any_saturated & whole
