"""How much of an area is cloudy in a scene, from Level-2A's scene classification (SCL), read through its overviews."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from rasterio.transform import Affine

from ..errors import InputError
from ..raster.grid import Window
from .files import FilePool, Header, RasterFile
from .roi import Area

CLOUD_CLASSES = (3, 8, 9, 10)
"""Cloud shadow, cloud of medium and of high probability, thin cirrus."""

NODATA_CLASSES = (0, 1)
"""No data; saturated or defective."""

_SIDE = 512
"""Most pixels of a side that are looked at."""


@dataclass(frozen=True)
class AreaCloud:
    """Percent of an area under cloud or its shadow, and percent without data (beyond the scene's edge included)."""

    cloud: float
    nodata: float


def area_cloud(file: RasterFile, area: Area) -> AreaCloud:
    """Read the classification over an area, decimated where the area is large. Raises `InputError`."""
    pool = FilePool()
    try:
        header = pool.header(file)
        if header.crs is None:
            raise InputError(f"{file.label} has no CRS, so the cloud over the area is not known.")
        outline = area.outline(header.crs)
        classes = _classes(pool, file, header, outline)
    finally:
        pool.close()
    return AreaCloud(
        cloud=round(100 * float(np.isin(classes, CLOUD_CLASSES).mean()), 3),
        nodata=round(100 * float(np.isin(classes, NODATA_CLASSES).mean()), 3),
    )


def _classes(pool: FilePool, file: RasterFile, header: Header, outline: list[tuple[float, float]]) -> NDArray[np.uint8]:
    """The classes of the pixels within an outline, 0 beyond the file."""
    t = header.transform
    columns = [(x - t.c) / t.a for x, _ in outline]
    rows = [(y - t.f) / t.e for _, y in outline]
    step = max(1, math.ceil(max(max(columns) - min(columns), max(rows) - min(rows)) / _SIDE))
    left, top = (math.floor(min(values) / step) * step for values in (columns, rows))
    width, height = (math.ceil((max(v) - first) / step) or 1 for v, first in ((columns, left), (rows, top)))
    inside = Window(left, top, width * step, height * step).clipped(header.width, header.height)
    classes = np.zeros((height, width), np.uint8)
    if inside.width and inside.height:
        shape = (math.ceil(inside.height / step), math.ceil(inside.width / step))
        row, col = (inside.row - top) // step, (inside.col - left) // step
        classes[row : row + shape[0], col : col + shape[1]] = pool.read(file, 1, inside, shape)
    transform = Affine(t.a * step, 0, t.c + left * t.a, 0, t.e * step, t.f + top * t.e)
    ring = {"type": "Polygon", "coordinates": [outline]}
    within = geometry_mask([ring], classes.shape, transform, invert=True)
    if not within.any():  # smaller than a pixel
        within = geometry_mask([ring], classes.shape, transform, invert=True, all_touched=True)
    seen: NDArray[np.uint8] = classes[within]
    return seen
