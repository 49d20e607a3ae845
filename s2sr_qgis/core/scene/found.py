"""Scenes that a search found, and the file of their footprints: written for GIS, and read back to open the best."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingPackageError, OutputError
from ..outputs import atomic
from ..redaction import redacted

SUFFIXES = (".geojson", ".json", ".gpkg")
_LAYER = "scenes"


@dataclass(frozen=True)
class Found:
    """One scene of a catalogue. ``source`` is what `open_scene` takes; the percentages are None where not known.

    ``cloud`` is over the whole scene; ``area_cloud`` (with cloud shadow) and ``area_nodata`` are over the area.
    ``geometry``: GeoJSON, longitude and latitude. ``assets``: addresses by key, unsigned.
    """

    id: str
    source: str
    catalog: str
    collection: str
    acquired: datetime | None = None
    cloud: float | None = None
    area_cloud: float | None = None
    area_nodata: float | None = None
    baseline: str | None = None
    platform: str | None = None
    geometry: dict[str, Any] | None = None
    assets: dict[str, str] = field(default_factory=dict)

    @property
    def unusable(self) -> float | None:
        """Percent of the area under cloud or its shadow, or without data."""
        if self.area_cloud is None or self.area_nodata is None:
            return None
        return round(self.area_cloud + self.area_nodata, 3)

    def row(self) -> dict[str, Any]:
        """The scene as an attribute table has it."""
        return {
            "id": self.id,
            "date": self.acquired.strftime("%Y-%m-%dT%H:%M:%SZ") if self.acquired else None,
            "cloud": self.cloud,
            "area_cloud": self.area_cloud,
            "area_nodata": self.area_nodata,
            "baseline": self.baseline,
            "platform": self.platform,
            "catalog": self.catalog,
            "collection": self.collection,
            "item": self.source,
        }


def check_suffix(path: Path) -> None:
    """Raise `OutputError` where the name does not say which format is meant."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path} is neither GeoJSON nor GeoPackage; let its name end in .geojson or .gpkg.")


def write_found(scenes: list[Found], target: Path) -> None:
    """Write the footprints, best first, as GeoJSON or GeoPackage by the file's suffix. Raises `OutputError`."""
    check_suffix(target)
    features = [
        {"type": "Feature", "geometry": scene.geometry, "properties": {**scene.row(), "assets": scene.assets}}
        for scene in scenes
    ]
    text = json.dumps(redacted({"type": "FeatureCollection", "name": _LAYER, "features": features}), indent=1)
    data = text.encode()
    if target.suffix.lower() == ".gpkg":
        data = _geopackage(data, target)
    with atomic(target) as temporary:
        temporary.write_bytes(data)


def _geopackage(geojson: bytes, target: Path) -> bytes:
    try:
        import pyogrio
        from pyogrio import raw
    except ImportError as error:
        raise MissingPackageError("Writing a GeoPackage needs the package pyogrio; name a .geojson file.") from error
    try:
        meta, _, geometry, columns = raw.read(geojson, datetime_as_string=True)
        file = io.BytesIO()
        raw.write(
            file,
            geometry,
            columns,
            meta["fields"],
            layer=_LAYER,
            driver="GPKG",
            geometry_type="MultiPolygon",
            promote_to_multi=True,
            crs="EPSG:4326",
        )
    except pyogrio.errors.DataSourceError as error:
        raise OutputError(f"{target} could not be made a GeoPackage; name a .geojson file.") from error
    return file.getvalue()


def best_source(path: Path) -> str | None:
    """The item of the first, that is the best, scene of a file that `write_found` wrote; None for any other JSON.

    Raises `InputError` for a GeoPackage that is no such file.
    """
    if path.suffix.lower() == ".gpkg":
        return _best_of_geopackage(path)
    try:
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        first = features[0]
        return None if "assets" in first else str(first["properties"]["item"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def _best_of_geopackage(path: Path) -> str:
    wrong = InputError(f"{path} holds no scenes; give a file that a search has written, or a STAC item.")
    try:
        import pyogrio
        from pyogrio import raw
    except ImportError as error:
        raise MissingPackageError("Reading a GeoPackage needs the package pyogrio; set the environment up.") from error
    try:
        _, _, _, columns = raw.read(path, columns=["item"], read_geometry=False, max_features=1)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise wrong from error
    if not columns or not len(columns[0]):
        raise wrong
    return str(columns[0][0])
