"""What GDAL keeps beside a file (statistics, overviews, masks, world files): it must not outlive the file it is of."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OutputError

OWN = (".aux.xml", ".ovr", ".msk", ".msk.ovr", ".ovr.msk", ".ovr.ovr", ".ovr.aux.xml", ".msk.aux.xml")
"""Appended to the file's whole name; GDAL may write them with the new file too."""

_DATABASE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a GeoPackage; of another database, it destroys this one."""

_WORLD = (".tfw", ".tifw", ".tiffw", ".aux", ".rrd")
"""In the place of a GeoTIFF's suffix."""

_RASTERS = (".tif", ".tiff")
_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".jp2", ".webp")
"""Whose world file may be called ``.wld``, as a GeoTIFF's."""


def put_in_place(temporary: Path, target: Path) -> None:
    """Rename a complete file to its name; side files of an older file there go, those of the new one come with it.

    Raises `OutputError` where an old side file cannot be removed, for GDAL would read it with the new file.
    """
    os.replace(temporary, target)
    for side in stale(target):
        try:
            side.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{target} is complete, but {side.name} beside it belongs to an older file and cannot be removed "
                f"({error.strerror or error}); delete it, or QGIS and GDAL will use it."
            ) from error
    for suffix in OWN:
        own = temporary.with_name(temporary.name + suffix)
        if own.exists():
            os.replace(own, target.with_name(target.name + suffix))


def stale(target: Path) -> list[Path]:
    """Side files that lie beside ``target`` now."""
    names = [target.name + suffix for suffix in OWN]
    if target.suffix.lower() == ".gpkg":
        names += [target.name + suffix for suffix in _DATABASE]
    if target.suffix.lower() in _RASTERS:
        names += [target.stem + suffix for suffix in _WORLD]
        if not any(target.with_suffix(suffix).exists() for suffix in _IMAGES):
            names.append(target.stem + ".wld")
    # A folder of such a name, or a file of it that is an output too, is none of GDAL's.
    return [path for path in map(target.with_name, names) if path.is_file() or path.is_symlink()]
