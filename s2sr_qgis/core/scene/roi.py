"""Regions of interest: a box as text or the extent of a vector or raster file, in any CRS."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform, transform_bounds

from ..errors import InputError, MissingPackageError

Bounds = tuple[float, float, float, float]
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BOX = re.compile(rf"^\s*({_NUMBER}(?:\s*,\s*{_NUMBER}){{3}})\s*(?:[\[(]?\s*([A-Za-z]+:\w+)\s*[\])]?)?\s*$")


_LONGITUDE_LATITUDE = CRS.from_epsg(4326)
_STEPS = 21
"""Points on each side of a box that is brought into another CRS, where its sides bend."""


@dataclass(frozen=True)
class Area:
    """A box anywhere on Earth: ``bounds`` in the unit of ``crs``, and ``text`` as the user wrote it."""

    bounds: Bounds
    crs: CRS
    text: str

    def boxes(self) -> list[Bounds]:
        """(west, south, east, north) in degrees: one box, or two where it crosses the antimeridian.

        Raises `InputError` where the area is not on Earth.
        """
        outside = InputError(
            f"The area {self.text} lies outside the world as {self.crs.to_string()} has it; check its numbers and "
            "give their CRS, as in 600000,5390000,610000,5400000 EPSG:32631."
        )
        try:
            west, south, east, north = transform_bounds(self.crs, _LONGITUDE_LATITUDE, *self.bounds, densify_pts=_STEPS)
        except RasterioError as error:
            raise outside from error
        if not all(math.isfinite(value) for value in (west, south, east, north)):
            raise outside
        if not (-180 <= west <= 180 and -90 <= south < north <= 90 and east <= 360):
            raise outside
        if west < east <= 180:
            return [(west, south, east, north)]
        return [(west, south, 180.0, north), (-180.0, south, east - 360 if east > 180 else east, north)]

    def outline(self, crs: CRS) -> list[tuple[float, float]]:
        """The area's closed outline in another CRS. Raises `InputError` where it cannot be brought there."""
        left, bottom, right, top = self.bounds
        ways = np.linspace([left, bottom], [right, top], _STEPS)
        x = np.concatenate([ways[:, 0], np.full(_STEPS, right), ways[::-1, 0], np.full(_STEPS, left)])
        y = np.concatenate([np.full(_STEPS, bottom), ways[:, 1], np.full(_STEPS, top), ways[::-1, 1]])
        try:
            points = np.array(transform(self.crs, crs, x.tolist(), y.tolist()))
        except RasterioError as error:
            raise InputError(f"The area {self.text} cannot be brought into {crs.to_string()}.") from error
        if not np.isfinite(points).all():
            raise InputError(f"The area {self.text} cannot be brought into {crs.to_string()}; choose a smaller one.")
        return [(float(east), float(north)) for east, north in points.T]


def area_of(text: str) -> Area:
    """The area that a box, a vector file or a raster describes; a box without CRS is longitude and latitude.

    Raises `InputError`.
    """
    bounds, crs = _located(text, _LONGITUDE_LATITUDE)
    if crs is None:
        raise InputError(f"{text} has no CRS, so where it lies is not known; give the area as a box with EPSG code.")
    return Area(bounds, crs, text)


def roi_bounds(roi: str, crs: CRS | None) -> Bounds:
    """(xmin, ymin, xmax, ymax) of a region in the scene's ``crs``. Raises `InputError`."""
    bounds, source = _located(roi, crs)
    source = source or crs
    if source == crs:
        return bounds
    if not crs:
        raise InputError(
            f"The region of interest {roi} has a CRS, but the scene has none; give it in the scene's pixels."
        )
    try:
        left, bottom, right, top = transform_bounds(source, crs, *bounds, densify_pts=21)
    except RasterioError as error:
        raise InputError(f"The region of interest {roi} cannot be brought into {crs.to_string()}.") from error
    if not all(math.isfinite(value) for value in (left, bottom, right, top)):
        raise InputError(f"The region of interest {roi} cannot be brought into {crs.to_string()}.")
    return left, bottom, right, top


def _located(roi: str, default: CRS | None) -> tuple[Bounds, CRS | None]:
    """Bounds of a region and their CRS: ``default`` for a box that names none, None for a file that has none."""
    box = _BOX.match(roi)
    if box:
        values = [float(part) for part in box.group(1).split(",")]
        bounds: Bounds = (values[0], values[1], values[2], values[3])
        source = _parse_crs(box.group(2)) if box.group(2) else default
    else:
        bounds, source = _file(Path(roi).expanduser())
    if not all(math.isfinite(value) for value in bounds) or bounds[0] >= bounds[2] or bounds[1] >= bounds[3]:
        raise InputError(
            f"The region of interest {roi} has no area; give xmin,ymin,xmax,ymax with xmin < xmax and ymin < ymax."
        )
    return bounds, source


def _parse_crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise InputError(f"'{text}' is no CRS that can be used; write it as EPSG:4326.") from error


def _file(path: Path) -> tuple[Bounds, CRS | None]:
    if not path.exists():
        raise InputError(
            f"The region of interest '{path}' is neither a box 'xmin,ymin,xmax,ymax [EPSG:n]' "
            "nor a vector file or raster that exists."
        )
    try:
        import pyogrio
    except ImportError as error:
        raise MissingPackageError(
            "Reading a vector file needs the package pyogrio; set the environment up again."
        ) from error
    try:
        info = pyogrio.read_info(path, force_feature_count=True, force_total_bounds=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        extent = _raster(path)
        if extent:
            return extent
        raise InputError(
            f"{path} cannot be read as a vector file (GeoPackage, GeoJSON, Shapefile …), nor as a raster."
        ) from error
    if not info["features"] or info["total_bounds"] is None:
        raise InputError(f"{path} holds no feature with a geometry, so it gives no region of interest.")
    left, bottom, right, top = (float(value) for value in info["total_bounds"])
    return (left, bottom, right, top), _parse_crs(info["crs"]) if info["crs"] else None


def _raster(path: Path) -> tuple[Bounds, CRS | None] | None:
    """Extent and CRS of a raster, by its ground control points where it has nothing else; None for other files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                corners = dataset.bounds
                points, crs = dataset.gcps
                if dataset.crs or not points:
                    x, y, crs = (corners.left, corners.right), (corners.bottom, corners.top), dataset.crs or None
                else:  # as products in the sensor's geometry come (DIMAP)
                    x, y = zip(*((point.x, point.y) for point in points), strict=True)
    except RasterioError:
        return None
    return (min(x), min(y), max(x), max(y)), crs
