"""Grids and windows: which pixels are where. North-up grids only, coordinates in the grid's CRS."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rasterio.crs import CRS
from rasterio.transform import Affine


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: ``col``, ``row`` of its upper-left pixel, ``width``, ``height``."""

    col: int
    row: int
    width: int
    height: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns), as NumPy has it."""
        return self.height, self.width

    def scaled(self, factor: int) -> Window:
        """The same ground on a grid ``factor`` times coarser; every number must be a multiple of it."""
        if any(value % factor for value in (self.col, self.row, self.width, self.height)):
            raise ValueError(f"{self} is not on the {factor} times coarser grid")
        return Window(self.col // factor, self.row // factor, self.width // factor, self.height // factor)

    def finer(self, factor: int) -> Window:
        """The same ground on a grid ``factor`` times finer."""
        return Window(self.col * factor, self.row * factor, self.width * factor, self.height * factor)

    def grown(self, halo: int) -> Window:
        """The window with ``halo`` more pixels on each side (may lie partly outside the grid)."""
        return Window(self.col - halo, self.row - halo, self.width + 2 * halo, self.height + 2 * halo)

    def contains(self, other: Window) -> bool:
        """Whether all of another window lies in this one."""
        right, bottom = self.col + self.width, self.row + self.height
        inside = self.col <= other.col and self.row <= other.row
        return inside and other.col + other.width <= right and other.row + other.height <= bottom

    def clipped(self, width: int, height: int) -> Window:
        """The part of the window that lies on a grid of this size."""
        return self.intersection(Window(0, 0, width, height))

    def intersection(self, other: Window) -> Window:
        """The part of the window that lies in another one."""
        left, top = max(self.col, other.col), max(self.row, other.row)
        right = min(self.col + self.width, other.col + other.width)
        bottom = min(self.row + self.height, other.row + other.height)
        return Window(left, top, max(right - left, 0), max(bottom - top, 0))


@dataclass(frozen=True)
class Grid:
    """A north-up pixel grid: CRS, upper-left corner (``x``, ``y``), pixels of ``spacing``, size in pixels.

    Pixels are square, except in a geographic CRS, where ``y_spacing`` gives their height in degrees.
    """

    crs: CRS
    x: float
    y: float
    spacing: float
    width: int
    height: int
    y_spacing: float | None = None

    @property
    def pixel_height(self) -> float:
        """The height of a pixel, a positive number in the CRS's unit."""
        return self.spacing if self.y_spacing is None else self.y_spacing

    @property
    def transform(self) -> Affine:
        """The affine transform of GDAL and rasterio."""
        return Affine(self.spacing, 0.0, self.x, 0.0, -self.pixel_height, self.y)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(xmin, ymin, xmax, ymax)."""
        return self.x, self.y - self.height * self.pixel_height, self.x + self.width * self.spacing, self.y

    @property
    def window(self) -> Window:
        """The whole grid."""
        return Window(0, 0, self.width, self.height)

    def crop(self, window: Window) -> Grid:
        """The grid of a window of this one."""
        return replace(
            self,
            x=self.x + window.col * self.spacing,
            y=self.y - window.row * self.pixel_height,
            width=window.width,
            height=window.height,
        )

    def coarser(self, factor: int) -> Grid:
        """The grid of ``factor`` times larger pixels with the same corner; the remainder is dropped."""
        return replace(
            self,
            spacing=self.spacing * factor,
            y_spacing=None if self.y_spacing is None else self.y_spacing * factor,
            width=self.width // factor,
            height=self.height // factor,
        )

    def finer(self, factor: int) -> Grid:
        """The grid of pixels ``factor`` times smaller with the same corner."""
        return replace(
            self,
            spacing=self.spacing / factor,
            y_spacing=None if self.y_spacing is None else self.y_spacing / factor,
            width=self.width * factor,
            height=self.height * factor,
        )

    def window_of(self, bounds: tuple[float, float, float, float], multiple: int = 1) -> Window:
        """The smallest window, snapped outwards to ``multiple`` pixels, that covers the bounds; clipped to the grid.

        A window without pixels means that the bounds lie outside.
        """
        xmin, ymin, xmax, ymax = bounds
        x_unit, y_unit, tiny = self.spacing * multiple, self.pixel_height * multiple, 1e-6
        left = math.floor((xmin - self.x) / x_unit + tiny) * multiple
        right = math.ceil((xmax - self.x) / x_unit - tiny) * multiple
        top = math.floor((self.y - ymax) / y_unit + tiny) * multiple
        bottom = math.ceil((self.y - ymin) / y_unit - tiny) * multiple
        return Window(left, top, right - left, bottom - top).clipped(self.width, self.height)
