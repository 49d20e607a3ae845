"""Regions of interest: a box as text or the extent of a vector or raster file, in any CRS."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform, transform_bounds

from ..errors import InputError, MissingPackageError

Bounds = tuple[float, float, float, float]
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_CODE = r"([\[(]?)\s*([A-Za-z]+:\w+)\s*[\])]?"
_BOX = re.compile(rf"^\s*({_NUMBER}(?:(?:\s*[,;]\s*|\s+){_NUMBER}){{3}})\s*(?:{_CODE})?\s*$")
_WKT = re.compile(
    r"^\s*(?:SRID\s*=\s*(\d+)\s*;)?\s*(?:(?:MULTI)?(?:POLYGON|LINESTRING|POINT)|GEOMETRYCOLLECTION)\b"
    rf"[^(]*(\(.*\))\s*(?:{_CODE})?\s*$",
    re.IGNORECASE | re.DOTALL,
)


_LONGITUDE_LATITUDE = CRS.from_epsg(4326)
_STEPS = 21
"""Points on each side of a box that is brought into another CRS, where its sides bend."""

MUCH_LARGER = 100
"""Times the scene's area from which a box is likely to be a mistake."""


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
    region = _regions(text, _LONGITUDE_LATITUDE)
    if region[0].crs is None:
        raise InputError(f"{text} has no CRS, so where it lies is not known; give the area as a box with EPSG code.")
    # Of two readings of the same four numbers, the wrong one spans half a continent.
    first = min(region, key=lambda reading: _size(reading.bounds))
    return Area(first.bounds, first.crs or _LONGITUDE_LATITUDE, text)


def roi_bounds(roi: str, crs: CRS | None, extent: Bounds) -> tuple[Bounds, list[str]]:
    """(xmin, ymin, xmax, ymax) of a region in the scene's ``crs``, and sentences on what was assumed of it.

    ``extent``: the scene's own bounds, which decide between two readings of the same numbers. Raises `InputError`,
    also where the region lies outside of them.
    """
    regions = _regions(roi, crs)
    region = max(regions, key=lambda reading: _share(_try(reading, roi, crs), extent))
    bounds = _brought(region, roi, crs)
    notes = [region.note] if region.note else []
    if region.file and region.crs is None and crs is not None:
        notes.append(f"{roi} has no CRS (a Shapefile's is its .prj): its numbers are taken as {crs.to_string()}.")
    if not _share(bounds, extent):
        raise InputError(
            f"The region of interest {_extent(bounds)} lies outside the scene {_extent(extent)} "
            f"({crs.to_string() if crs else 'no CRS'}); {_advice(region, roi, crs, extent)}a region in another CRS "
            "needs its code, such as 'xmin,ymin,xmax,ymax EPSG:4326'."
        )
    times = _size(bounds) / _size(extent)
    if times > MUCH_LARGER and not region.file:
        order = _Region(_exchanged(region.bounds, (0, 2, 1, 3)), region.crs)
        other = _try(order, roi, crs) if _valid(order.bounds) else extent
        meant = other != extent and _share(other, extent) > MUCH_LARGER * _share(bounds, extent)
        advice = (
            "if it is in QGIS's order xmin,xmax,ymin,ymax, put its code into brackets: [EPSG:n]"
            if meant
            else "check its numbers: the order is xmin,ymin,xmax,ymax"
        )
        notes.append(f"The region of interest {_extent(bounds)} is {times:,.0f} times as large as the scene; {advice}.")
    return bounds, notes


@dataclass(frozen=True)
class _Region:
    """One reading of what the user gave. ``crs``: None where nothing names one and there is no default."""

    bounds: Bounds
    crs: CRS | None
    file: bool = False
    note: str = ""


def _regions(roi: str, default: CRS | None) -> list[_Region]:
    """The readings of a region, the most likely first: one, but for four numbers with a code in brackets."""
    box = _BOX.match(roi)
    if not box:
        return [_shape(roi, default)]
    values = [float(part) for part in re.split(r"[\s,;]+", box.group(1).strip())]
    crs = _parse_crs(box.group(3)) if box.group(3) else default
    bounds: Bounds = (values[0], values[1], values[2], values[3])
    found = []
    other = _exchanged(bounds, (0, 2, 1, 3))
    if box.group(2) and _valid(other):
        note = f"The region of interest {roi} is read as QGIS writes it: xmin,xmax,ymin,ymax."
        found.append(_Region(other, crs, note=note))
    west, south, east, north = bounds
    if _valid(bounds):
        found.append(_Region(bounds, crs))
    elif not found and crs is not None and crs.is_geographic and west - east >= 180 and south < north:
        found.append(_Region((west, south, east + 360, north), crs))  # across the antimeridian
    if not found:
        raise InputError(
            f"The region of interest {roi} has no area; give xmin,ymin,xmax,ymax with xmin < xmax and ymin < ymax."
        )
    usable = [region for region in found if not _beyond(region)]
    if not usable:
        raise InputError(f"The region of interest {roi} {_beyond(found[-1])}.")
    return usable


def _shape(roi: str, default: CRS | None) -> _Region:
    """The region of a geometry as text (WKT), of a vector file or of a raster."""
    wkt = _WKT.match(roi)
    if wkt:
        code = f"EPSG:{wkt.group(1)}" if wkt.group(1) else wkt.group(4)
        region = _Region(_wkt_bounds(wkt.group(2), roi), _parse_crs(code) if code else default)
    else:
        bounds, crs = _file(roi)
        region = _Region(bounds, crs, file=True)
    if not _valid(region.bounds):
        raise InputError(
            f"The region of interest {roi[:200]} has no area: it is a point or a line along an axis; draw a polygon, "
            "or put a buffer around it."
        )
    if _beyond(region):
        raise InputError(f"The region of interest {roi[:200]} {_beyond(region)}.")
    return region


def _wkt_bounds(text: str, roi: str) -> Bounds:
    try:
        points = [[float(part) for part in point.split()[:2]] for point in re.split(r"[(),]", text) if point.strip()]
        x, y = zip(*points, strict=True)
    except ValueError as error:
        raise InputError(f"The region of interest '{roi[:80]}' is no WKT that can be read; check it.") from error
    return min(x), min(y), max(x), max(y)


def _beyond(region: _Region) -> str:
    """What is wrong with numbers that can be no degrees; empty where they are right."""
    if region.crs is None or not region.crs.is_geographic:
        return ""
    west, south, east, north = region.bounds
    if south >= -90 and north <= 90 and west >= -360 and east <= 540:
        return ""
    swapped = west >= -90 and east <= 90 and south >= -360 and north <= 540
    advice = "longitude comes first, then latitude" if swapped else "give the code of the CRS that its numbers are in"
    world = f"lies outside the world as {region.crs.to_string()} has it"
    return f"{world}: {_extent(region.bounds)} are no degrees; {advice}"


def _brought(region: _Region, roi: str, crs: CRS | None) -> Bounds:
    """The bounds in the scene's CRS. Raises `InputError`."""
    source = region.crs or crs
    if source == crs:
        return region.bounds
    if not crs:
        raise InputError(
            f"The region of interest {roi[:200]} has a CRS, but the scene has none; give it in the scene's pixels."
        )
    try:
        left, bottom, right, top = transform_bounds(source, crs, *region.bounds, densify_pts=_STEPS)
    except RasterioError as error:
        raise InputError(f"The region of interest {roi[:200]} cannot be brought into {crs.to_string()}.") from error
    if not all(math.isfinite(value) for value in (left, bottom, right, top)):
        raise InputError(f"The region of interest {roi[:200]} cannot be brought into {crs.to_string()}.")
    return left, bottom, right, top


def _try(region: _Region, roi: str, crs: CRS | None) -> Bounds:
    """The same; an empty box where it cannot be."""
    try:
        return _brought(region, roi, crs)
    except InputError:
        return (0.0, 0.0, 0.0, 0.0)


def _advice(region: _Region, roi: str, crs: CRS | None, extent: Bounds) -> str:
    """What would bring a region that lies outside into the scene; empty where nothing is known."""
    exchanged = _exchanged(region.bounds, (1, 0, 3, 2))
    swapped = replace(region, bounds=exchanged)
    if not _beyond(swapped) and _share(_try(swapped, roi, crs), extent):
        if region.file:
            return "with x and y exchanged it would lie inside: the file seems to hold latitude before longitude; "
        return f"with x and y exchanged it would lie inside: {','.join(f'{v:.9g}' for v in exchanged)}; "
    if region.crs == crs and crs is not None and not crs.is_geographic:
        degrees = _Region(region.bounds, _LONGITUDE_LATITUDE)
        if not _beyond(degrees) and _share(_try(degrees, roi, crs), extent):
            return "in degrees of longitude and latitude it would lie inside; "
    return ""


def _exchanged(bounds: Bounds, order: tuple[int, int, int, int]) -> Bounds:
    return bounds[order[0]], bounds[order[1]], bounds[order[2]], bounds[order[3]]


def _valid(bounds: Bounds) -> bool:
    return all(math.isfinite(value) for value in bounds) and bounds[0] < bounds[2] and bounds[1] < bounds[3]


def _size(bounds: Bounds) -> float:
    return max(bounds[2] - bounds[0], 0) * max(bounds[3] - bounds[1], 0)


def _share(bounds: Bounds, extent: Bounds) -> float:
    """Fraction of a box that lies in another."""
    common = (*map(max, bounds[:2], extent[:2]), *map(min, bounds[2:], extent[2:]))
    if common[0] >= common[2] or common[1] >= common[3]:
        return 0.0
    return _size((common[0], common[1], common[2], common[3])) / _size(bounds)


def _extent(bounds: Bounds) -> str:
    return "(" + ", ".join(f"{value:.9g}" for value in bounds) + ")"


def _parse_crs(text: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise InputError(f"'{text}' is no CRS that can be used; write it as EPSG:4326.") from error


def _file(roi: str) -> tuple[Bounds, CRS | None]:
    """Extent and CRS of a vector file, whose layer may be named as QGIS does, or of a raster."""
    name, *rest = roi.split("|")
    path, layer = Path(name).expanduser(), None
    for part in rest:
        key, _, value = part.partition("=")
        if key not in ("layername", "layerid") or not value:
            raise InputError(f"'{part}' in the region of interest {roi} is no layer; write {name}|layername=NAME.")
        layer = int(value) if key == "layerid" and value.isdecimal() else value
    try:
        there = path.exists()
    except OSError:  # far too long for a name
        there = False
    if not there:
        raise InputError(
            f"The region of interest '{name[:200]}' is neither a box 'xmin,ymin,xmax,ymax EPSG:n' "
            "nor a vector file or raster that exists."
        )
    try:
        import pyogrio
    except ImportError as error:
        raise MissingPackageError(
            "Reading a vector file needs the package pyogrio; set the environment up again."
        ) from error
    try:
        if layer is None:
            layer = _only_layer(path, [str(name) for name, kind in pyogrio.list_layers(path) if kind])
        info = pyogrio.read_info(path, layer=layer, force_feature_count=True, force_total_bounds=True)
    except pyogrio.errors.DataLayerError as error:
        layers = ", ".join(str(name) for name, _ in pyogrio.list_layers(path))
        raise InputError(f"{path} has no layer {layer}; it has {layers or 'none'}.") from error
    except pyogrio.errors.DataSourceError as error:
        extent = _raster(path)
        if extent:
            return extent
        raise InputError(
            f"{path} cannot be read as a vector file (GeoPackage, GeoJSON, Shapefile …), nor as a raster."
        ) from error
    bounds = info["total_bounds"]
    if not info["features"] or bounds is None or not np.isfinite(bounds).all():
        raise InputError(f"{path} holds no feature with a geometry, so it gives no region of interest.")
    left, bottom, right, top = (float(value) for value in bounds)
    return (left, bottom, right, top), _parse_crs(info["crs"]) if info["crs"] else None


def _only_layer(path: Path, layers: list[str]) -> str | None:
    """The one layer with geometries; None: the file's first. Raises `InputError` where there are several."""
    if len(layers) > 1:
        raise InputError(
            f"{path} has {len(layers)} layers ({', '.join(layers)}); name the one that is meant, as in "
            f"'{path}|layername={layers[0]}'."
        )
    return layers[0] if layers else None


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
