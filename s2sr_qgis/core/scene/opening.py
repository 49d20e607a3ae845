"""`open_scene`: whatever the user points at, as a `Scene`."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError
from ..jobs import SceneOptions
from .scene import Scene

_SUBDATASET = re.compile(
    r"^(?:SENTINEL2_L[12][ABC](?:_TILE)?|NETCDF|HDF5|ZARR):\"?(.+?)\"?:[^:\\/]+(?::EPSG_\d+)?$", re.I
)
_TAR = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_URL = re.compile(r"^https?://", re.IGNORECASE)


def open_scene(source: str | Path, options: SceneOptions | None = None, partial: bool = False) -> Scene:
    """Open a scene; close it, or use it as a context manager.

    ``source`` is a SAFE folder (or the folder above, or anything in it), a zipped SAFE, a folder of single-band files,
    a stacked raster whose bands have names, a STAC item (JSON file or URL), or the result of a search (GeoJSON or
    GeoPackage), of which the first, that is the best scene is opened. Only headers are read here. Raises `InputError`
    with a sentence for the user. With ``partial``, bands of a SAFE product whose files are damaged are left out with a
    warning. The sentences in ``Scene.warnings`` are for the user's log.
    """
    options = options or SceneOptions()
    text = str(source)
    if _URL.match(text):
        from .stac import open_stac

        return open_stac(text, options)
    path = Path(text).expanduser()
    if not path.exists() and (part := _SUBDATASET.match(text)):
        # GDAL's and QGIS's name of one raster in a product: the product behind it is meant.
        path = Path(re.sub(r"^/vsizip/\{?(.+?\.zip)\}?(?:/.*)?$", r"\1", part.group(1), flags=re.IGNORECASE))
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    if path.is_file() and path.suffix.lower() in _TAR:
        raise InputError(f"{path} is an archive that is not read in place; unpack it and open what is in it.")
    if path.is_file() and path.suffix.lower() in (".json", ".geojson", ".gpkg"):
        from .found import best_source
        from .stac import open_stac

        return open_stac(best_source(path) or str(path), options)

    from .safe import find_safe, open_safe

    product = find_safe(path)
    if product:
        return open_safe(*product, str(path), options, partial)
    if path.is_dir():
        from .bands_folder import open_bands_folder

        return open_bands_folder(path, options)
    from .stacked import open_stacked

    return open_stacked(path, options)
