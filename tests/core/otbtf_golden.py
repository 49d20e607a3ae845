"""The reference outputs of real OTBTF: where they lie, and images that need no file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from s2sr_qgis.core.raster.grid import Grid, Window
from s2sr_qgis.core.raster.image import FileImage, Image

GOLDEN = Path(__file__).parents[3] / "shared" / "data" / "otbtf_golden"
HERE = GOLDEN.is_dir()
RUNS = json.loads((GOLDEN / "manifest.json").read_text()) if HERE else {}

needs_golden = pytest.mark.skipif(not HERE, reason="../shared/data/otbtf_golden is not there")


def runs(app: str) -> list[str]:
    """Names of the runs of an application; one name of none where the data are absent, so that a test skips."""
    return [name for name, run in RUNS.items() if run["app"] == app] or ["none"]


class Pixels:
    """An image in memory that remembers what was read of it."""

    def __init__(self, pixels: np.ndarray, grid: Grid, nodata: float | None = None) -> None:
        self.pixels = pixels
        self.grid = grid
        self.bands = [str(n) for n in range(1, len(pixels) + 1)]
        self.nodata = nodata
        self.dtype = pixels.dtype
        self.windows: list[Window] = []

    def read(self, window: Window | None = None) -> np.ndarray:
        w = window or self.grid.window
        assert w == w.clipped(self.grid.width, self.grid.height)
        self.windows.append(w)
        return self.pixels[:, w.row : w.row + w.height, w.col : w.col + w.width]


def grid(width: int, height: int, spacing: float = 10, x: float = 600000, y: float = 4900020) -> Grid:
    return Grid(CRS.from_epsg(32631), x, y, spacing, width, height)


def golden_image(path: str) -> Image:
    """An input of a run. `FileImage` takes no south-up file, a grid of negative pixel height is one."""
    if "southup" not in path:
        return FileImage(GOLDEN / path)
    with rasterio.open(GOLDEN / path) as file:
        t = file.transform
        return Pixels(file.read(), Grid(file.crs, t.c, t.f, t.a, file.width, file.height, -t.e))
