"""An image in memory, for tests of whatever takes an `Image`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from s2sr_qgis.core.raster.grid import Grid, Window


class ArrayImage:
    """Pixels (bands, height, width) on a grid; remembers which windows were read."""

    def __init__(self, pixels: NDArray[Any], grid: Grid, nodata: float | None = None) -> None:
        self.pixels = pixels
        self.grid = grid
        self.nodata = nodata
        self.dtype = pixels.dtype
        self.bands: Sequence[str] = [str(n + 1) for n in range(len(pixels))]
        self.windows: list[Window] = []

    def read(self, window: Window | None = None) -> NDArray[Any]:
        w = window or self.grid.window
        assert w.clipped(self.grid.width, self.grid.height) == w, f"{w} is not inside the image"
        self.windows.append(w)
        return self.pixels[:, w.row : w.row + w.height, w.col : w.col + w.width]


def utm(width: int, height: int, spacing: float, x: float = 600000.0, y: float = 4900020.0, epsg: int = 32631) -> Grid:
    return Grid(CRS.from_epsg(epsg), x, y, spacing, width, height)


def noise(bands: int, height: int, width: int, seed: int = 0, low: float = 50, high: float = 3000) -> NDArray[Any]:
    """Smooth random pixels: sums of random waves, as real images are smooth."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    waves = sum(
        rng.uniform(-1, 1, (bands, 1, 1)) * np.sin(rows * rng.uniform(0, 1.5) + cols * rng.uniform(0, 1.5) + k)
        for k in range(12)
    )
    waves = waves + rng.normal(0, 0.3, (bands, height, width))
    span = waves.max() - waves.min()
    return low + (waves - waves.min()) / span * (high - low)
