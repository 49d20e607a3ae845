"""Environment variables that are meant for another installation, and would break this one. Standard library only.

Conda, OSGeo4W, QGIS, Orfeo ToolBox and Linux packages set variables for their own GDAL, PROJ and Python. The wheels of
rasterio bring a GDAL and a PROJ of their own, with their data. Only a process that is ours alone (command line, worker)
may call these functions, and before rasterio or NumPy are imported.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_FOREIGN = ("GDAL_", "PROJ_", "GTIFF_", "GEOTIFF_", "TIFF_", "OGR_", "OSR_", "CPL_", "USE_RRD", "BIGTIFF_OVERVIEW")
"""Beginnings of the names that GDAL and PROJ read."""

_KEPT = (
    "GDAL_HTTP_", "GDAL_CACHEMAX", "GDAL_NUM_THREADS", "GDAL_PROXY_AUTH", "GDAL_CURL_CA_BUNDLE", "GDAL_MAX_",
    "GDAL_INGESTED_BYTES_AT_OPEN", "CPL_DEBUG", "CPL_LOG", "CPL_TMPDIR", "CPL_TIMESTAMP", "CPL_CURL_", "CPL_AWS_",
    "PROJ_CURL_CA_BUNDLE", "PROJ_DEBUG",
)  # fmt: skip
"""What is set on purpose and does no harm: network, memory, logs."""

_LIBRARIES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "PYTHONPATH", "PYTHONHOME")
"""Variables that put another installation's files before this one's."""

_dropped: dict[str, str] = {}


def drop_foreign() -> list[str]:
    """Remove GDAL's and PROJ's variables from this process and its children; returns the names, for the log.

    They stay where rasterio has no data of its own (not installed from a wheel: it needs them), and where their path
    lies within this Python's own environment.
    """
    if not _own_data():
        return []
    own = str(Path(sys.prefix))
    for name in sorted(os.environ):
        # Names of variables are not case-sensitive on Windows.
        upper = name.upper()
        if upper.startswith(_FOREIGN) and not upper.startswith(_KEPT) and not os.environ[name].startswith(own):
            _dropped[name] = os.environ.pop(name)
    return sorted(_dropped)


def restore_foreign() -> None:
    """Set again what `drop_foreign` removed: Orfeo ToolBox, in this process, needs its own GDAL's variables."""
    for name, value in _dropped.items():
        os.environ.setdefault(name, value)


def own_packages_first() -> None:
    """Let the folders of PYTHONPATH come after this environment's own packages, so that they shadow none of them."""
    named = [os.path.realpath(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    # The folder of this package itself may be named there: it must be found as before.
    here = str(Path(__file__).resolve().parents[2])
    later = [entry for entry in sys.path if os.path.realpath(entry) in named and os.path.realpath(entry) != here]
    sys.path[:] = [entry for entry in sys.path if entry not in later] + later


def import_sentence(error: ImportError) -> str:
    """One sentence for a package that is there but cannot be loaded, with the variables that may be the cause."""
    reason = " ".join(str(error).split())[:200]
    name = (error.name or "").partition(".")[0] or "a package"
    found = [f"{variable}={os.environ[variable]}" for variable in _LIBRARIES if os.environ.get(variable)]
    if found:
        return (
            f"{name} cannot be loaded ({reason}): {' and '.join(found)} may bring another installation's files; "
            "unset that and try again."
        )
    return f"{name} cannot be loaded by the Python at {sys.executable} ({reason}); install s2sr again there."


def _own_data() -> bool:
    spec = importlib.util.find_spec("rasterio")
    folders = spec.submodule_search_locations if spec else None
    return any((Path(folder) / "proj_data" / "proj.db").is_file() for folder in folders or [])
