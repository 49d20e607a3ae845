"""Regions of interest: a box as text or the extent of a vector file, in any CRS."""

from __future__ import annotations

import math
import re
from pathlib import Path

from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform_bounds

from ..errors import InputError, MissingPackageError

Bounds = tuple[float, float, float, float]
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BOX = re.compile(rf"^\s*({_NUMBER}(?:\s*,\s*{_NUMBER}){{3}})\s*(?:[\[(]?\s*([A-Za-z]+:\w+)\s*[\])]?)?\s*$")


def roi_bounds(roi: str, crs: CRS | None) -> Bounds:
    """(xmin, ymin, xmax, ymax) of a region in the scene's ``crs``. Raises `InputError`."""
    box = _BOX.match(roi)
    if box:
        values = [float(part) for part in box.group(1).split(",")]
        bounds: Bounds = (values[0], values[1], values[2], values[3])
        source = _parse_crs(box.group(2)) if box.group(2) else crs
    else:
        bounds, source = _vector(Path(roi))
        source = source or crs
    if not all(math.isfinite(value) for value in bounds) or bounds[0] >= bounds[2] or bounds[1] >= bounds[3]:
        raise InputError(
            f"The region of interest {roi} has no area; give xmin,ymin,xmax,ymax with xmin < xmax and ymin < ymax."
        )
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


def _parse_crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise InputError(f"'{text}' is no CRS that can be used; write it as EPSG:4326.") from error


def _vector(path: Path) -> tuple[Bounds, CRS | None]:
    if not path.exists():
        raise InputError(
            f"The region of interest '{path}' is neither a box 'xmin,ymin,xmax,ymax [EPSG:n]' "
            "nor a vector file that exists."
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
        raise InputError(f"{path} cannot be read as a vector file (GeoPackage, GeoJSON, Shapefile …).") from error
    if not info["features"] or info["total_bounds"] is None:
        raise InputError(f"{path} holds no feature with a geometry, so it gives no region of interest.")
    left, bottom, right, top = (float(value) for value in info["total_bounds"])
    return (left, bottom, right, top), _parse_crs(info["crs"]) if info["crs"] else None
