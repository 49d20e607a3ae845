"""What the check of a pair gathers block by block: the radiometric relation of its bands, and small pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .pair_figures import BandRelation

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

CELL = 8
"""Side, in low-resolution pixels, of the means that radiometry is compared by: blur and shift matter little to them."""

SAMPLE = 1000
"""Cells that the regression is drawn from, at most."""

_OVERVIEW = 480


class Radiometry:
    """Correlation of all cells, and a regression on some of them drawn with equal chance."""

    def __init__(self, bands: int, rng: np.random.Generator) -> None:
        self.cells = np.empty((0, 2, bands), np.float32)
        self._keys = np.empty(0)
        self._rng = rng
        self._count = 0
        self._origin = np.zeros((2, bands))
        self._sums = np.zeros((2, bands))
        self._products = np.zeros((3, bands))

    def add(self, images: Float, valid: Mask) -> None:
        """Take a block: low-resolution image and reference (2, bands, h, w), and where both are valid (h, w)."""
        height, width = (side // CELL for side in valid.shape)
        shape = (height, CELL, width, CELL)
        cut = np.s_[..., : height * CELL, : width * CELL]
        whole = valid[cut].reshape(shape).all(axis=(1, 3))
        means = images[cut].reshape(*images.shape[:2], *shape).mean(axis=(-3, -1), dtype=np.float64)
        cells = means[:, :, whole].transpose(2, 0, 1)
        if not len(cells):
            return
        if not self._count:
            self._origin = cells.mean(axis=0)
        off = cells - self._origin
        self._count += len(cells)
        self._sums += off.sum(axis=0)
        x, y = off[:, 0], off[:, 1]
        self._products += np.stack([(x * x).sum(axis=0), (y * y).sum(axis=0), (x * y).sum(axis=0)])
        keys = np.concatenate([self._keys, self._rng.random(len(cells))])
        kept = np.argsort(keys)[:SAMPLE]
        self._keys = keys[kept]
        self.cells = np.concatenate([self.cells, cells.astype(np.float32)])[kept]

    def relations(self, names: Sequence[str], references: Sequence[str]) -> list[BandRelation]:
        """The relation of each pair of bands; the line is Theil and Sen's, which changes on the ground hardly move."""
        from scipy.stats import theilslopes

        found = []
        for band, (name, other) in enumerate(zip(names, references, strict=True)):
            correlation = self._correlation(band)
            slope = offset = None
            y, x = self.cells[:, 0, band].astype(np.float64), self.cells[:, 1, band].astype(np.float64)
            if correlation is not None and np.ptp(x) > 0:
                slope = float(theilslopes(y, x)[0])
                offset = float(np.median(y - slope * x))
            found.append(BandRelation(name=name, reference=other, slope=slope, offset=offset, correlation=correlation))
        return found

    def _correlation(self, band: int) -> float | None:
        if self._count < 3:
            return None
        mean_x, mean_y = self._sums[:, band] / self._count
        xx, yy, xy = self._products[:, band] / self._count
        var_x, var_y = xx - mean_x**2, yy - mean_y**2
        x0, y0 = self._origin[:, band]
        if var_x <= 1e-10 * x0**2 or var_y <= 1e-10 * y0**2:
            return None
        return float(np.clip((xy - mean_x * mean_y) / np.sqrt(var_x * var_y), -1, 1))


class Overview:
    """Both images reduced to a picture, by nearest pixels of the blocks that are read."""

    def __init__(self, rows: Sequence[tuple[int, int]], columns: Sequence[tuple[int, int]], bands: int) -> None:
        longest = max(sum(b - a for a, b in cuts) for cuts in (rows or [(0, 1)], columns or [(0, 1)]))
        self._scale = min(1.0, _OVERVIEW / longest)
        self._rows, self._columns = self._edges(rows), self._edges(columns)
        self.images = np.full((2, bands, self._rows[-1], self._columns[-1]), np.nan, np.float32)

    def put(self, i: int, j: int, images: Float, valid: tuple[Mask, Mask]) -> None:
        """Block of row ``i`` and column ``j``: (2, bands, h, w), and where each image is valid (h, w)."""
        top, bottom, left, right = self._rows[i], self._rows[i + 1], self._columns[j], self._columns[j + 1]
        height, width = valid[0].shape
        y = ((np.arange(bottom - top) + 0.5) * height / max(bottom - top, 1)).astype(int)[:, None]
        x = ((np.arange(right - left) + 0.5) * width / max(right - left, 1)).astype(int)
        for index, seen in enumerate(valid):
            image = np.where(seen[y, x], images[index][:, y, x], np.float32(np.nan))
            self.images[index, :, top:bottom, left:right] = image

    def _edges(self, cuts: Sequence[tuple[int, int]]) -> list[int]:
        lengths = np.cumsum([0, *(b - a for a, b in cuts)])
        return [int(edge) for edge in (lengths * self._scale).round()]
