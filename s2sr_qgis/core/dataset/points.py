"""Points with a number each, as OTBTF keeps the places of patches: GeoJSON and GeoPackage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from ..errors import InputError, MissingPackageError, OutputError
from ..outputs import atomic

_WKB = np.dtype([("order", "u1"), ("kind", "<u4"), ("x", "<f8"), ("y", "<f8")])
_POINT = 1


@dataclass(frozen=True)
class Points:
    """``x``, ``y`` in units of the CRS and ``ids``, each (n,)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    ids: NDArray[np.int64]
    crs: CRS | None = None

    def __len__(self) -> int:
        return len(self.ids)


def write_points(points: Points, path: str | Path, field: str = "id") -> None:
    """Write points as GeoJSON (.geojson, .json) or GeoPackage (.gpkg); coordinates keep every bit.

    A GeoJSON names its CRS as OTB does, where it has an EPSG number; GeoJSON cannot carry another CRS. Raises
    `OutputError`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".geojson", ".json", ".gpkg"):
        raise OutputError(f"Points are written as .geojson or .gpkg, but {path.name} ends with '{path.suffix}'.")
    with atomic(path) as temporary:
        if suffix == ".gpkg":
            _write_geopackage(points, temporary, path.stem, field)
        else:
            temporary.write_text(_geojson(points, field), encoding="utf-8")


def read_points(path: str | Path, field: str = "id") -> Points:
    """Read the points of a vector file, in its order, with the integers of ``field``.

    Raises `InputError` for a file that cannot be read, has no such field of numbers, or holds other geometries.
    """
    pyogrio = _pyogrio()
    try:
        from pyogrio.raw import read

        info = pyogrio.read_info(path, force_feature_count=True)
        if not info["features"]:  # GDAL then knows no field of a GeoJSON either
            none = np.empty(0)
            return Points(none, none, none.astype(np.int64), _crs(info["crs"]))
        if field not in info["fields"]:
            raise InputError(f"{path} has no field '{field}'; it has {', '.join(info['fields']) or 'none'}.")
        meta, _, geometries, columns = read(path, columns=[field], force_2d=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(f"{path} cannot be read as a vector file (GeoJSON, GeoPackage, Shapefile …).") from error
    ids = np.asarray(columns[0])
    if ids.dtype.kind not in "iuf" or not np.isfinite(ids).all():
        raise InputError(f"The field '{field}' of {path} must hold a number for every point.")
    if any(g is None or len(g) != _WKB.itemsize for g in geometries):
        raise InputError(f"{path} holds other geometries than points; give the points of patches.")
    found = np.frombuffer(b"".join(geometries), _WKB)
    if (found["order"] != 1).any() or (found["kind"] != _POINT).any():
        raise InputError(f"{path} holds other geometries than points; give the points of patches.")
    return Points(found["x"].copy(), found["y"].copy(), ids.astype(np.int64), _crs(meta["crs"]))


def _geojson(points: Points, field: str) -> str:
    head: dict[str, Any] = {"type": "FeatureCollection"}
    authority = points.crs.to_authority() if points.crs else None
    if authority:
        head["crs"] = {"type": "name", "properties": {"name": "urn:ogc:def:crs:{}::{}".format(*authority)}}
    features = [
        {
            "type": "Feature",
            "properties": {field: int(number)},
            "geometry": {"type": "Point", "coordinates": [float(x), float(y)]},
        }
        for x, y, number in zip(points.x, points.y, points.ids, strict=True)
    ]
    lines = ",\n".join(json.dumps(feature) for feature in features)
    return f'{json.dumps(head)[:-1]}, "features": [\n{lines}\n]}}\n'


def _write_geopackage(points: Points, path: Path, layer: str, field: str) -> None:
    pyogrio = _pyogrio()
    from pyogrio.raw import write

    records = np.zeros(len(points), _WKB)
    records["order"], records["kind"], records["x"], records["y"] = 1, _POINT, points.x, points.y
    geometries = np.array([record.tobytes() for record in records], object)
    crs = points.crs.to_wkt() if points.crs else None
    try:
        write(
            path,
            geometries,
            [points.ids.astype(np.int32)],
            [field],
            layer=layer,
            driver="GPKG",
            geometry_type="Point",
            crs=crs,
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
        raise OutputError(f"The points could not be written: {error}.") from error


def _crs(text: str | None) -> CRS | None:
    try:
        return CRS.from_user_input(text) if text else None
    except CRSError:
        return None


def _pyogrio() -> Any:
    try:
        import pyogrio
    except ImportError as error:
        raise MissingPackageError("Vector files need the package pyogrio; set the environment up again.") from error
    return pyogrio
