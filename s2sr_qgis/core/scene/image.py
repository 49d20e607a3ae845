"""A scene's bands, and its classification, as images that other images can be computed from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..raster.grid import Window
from ..raster.image import Image
from .scene import Scene

SCALING = 1e-4
"""DN without offset times this are reflectance."""

CLOUDY = (0, 1, 3, 8, 9, 10)
"""Classes of the scene classification that patches are not cut from: no data, defective, cloud shadow, clouds, cirrus.

Source: Sentinel-2 Level-2A Product Definition Document, scene classification."""


class SceneImage:
    """Bands of a scene on its 10 m grid as an `Image`: DN without offset (reflectance times 10000), NaN where invalid.

    Bands coarser than 10 m are repeated. ``saturated``: whether saturated pixels count as valid.
    """

    nodata = math.nan
    dtype = np.dtype(np.float32)

    def __init__(self, scene: Scene, bands: Sequence[str], saturated: bool = True) -> None:
        self.scene, self.bands, self._saturated = scene, bands, saturated
        self.grid = scene.grid
        self._unit = max(scene.band(band).resolution // 10 for band in bands)

    def read(self, window: Window | None = None) -> NDArray[np.float32]:
        """See `Image.read`."""
        w = window or self.grid.window
        u = self._unit
        left, top = w.col // u * u, w.row // u * u
        right, bottom = -(-(w.col + w.width) // u) * u, -(-(w.row + w.height) // u) * u
        around = Window(left, top, right - left, bottom - top).clipped(self.grid.width, self.grid.height)
        pixels = self.scene.read(self.bands, around)
        out = np.empty((len(self.bands), *w.shape), np.float32)
        for index, band in enumerate(self.bands):
            f = self.scene.band(band).resolution // 10
            good = pixels.valid[band] if self._saturated else pixels.valid[band] & ~pixels.saturated[band]
            image = np.where(good, pixels.data[band] / SCALING, np.nan)
            if f > 1:
                image = image.repeat(f, axis=0).repeat(f, axis=1)
            out[index] = image[w.row - top : w.row - top + w.height, w.col - left : w.col - left + w.width]
        return out


class Classification:
    """The scene classification on the scene's grid as an `Image` of one band."""

    nodata = None
    dtype = np.dtype(np.uint8)

    def __init__(self, scene: Scene) -> None:
        self.scene, self.grid, self.bands = scene, scene.grid, ["SCL"]

    def read(self, window: Window | None = None) -> NDArray[np.uint8]:
        """See `Image.read`. Raises `InputError` for a scene without one."""
        classes = self.scene.read_scl(window)
        if classes is None:
            raise InputError(f"{self.scene.name} has no scene classification.")
        return classes[None]


class Cloudy:
    """Where a classification says cloud or its shadow, or nothing: an `Image` of one band, 1 there and 0 elsewhere."""

    nodata = None
    dtype = np.dtype(np.uint8)

    def __init__(self, classes: Image) -> None:
        self._classes, self.grid, self.bands = classes, classes.grid, ["cloud"]

    def read(self, window: Window | None = None) -> NDArray[np.uint8]:
        """See `Image.read`."""
        return np.isin(self._classes.read(window), CLOUDY).astype(np.uint8)


class Clear:
    """An image without its cloudy pixels: they become NaN."""

    nodata = math.nan
    dtype = np.dtype(np.float32)

    def __init__(self, image: Image, cloudy: Image) -> None:
        self._image, self._cloudy = image, cloudy
        self.grid, self.bands = image.grid, image.bands

    def read(self, window: Window | None = None) -> NDArray[np.float32]:
        """See `Image.read`."""
        pixels = self._image.read(window)
        pixels[:, self._cloudy.read(window)[0] != 0] = np.nan
        return pixels
