"""Whether a job's outputs can be written, checked before its work: names, folders, suffixes, inputs in the way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import OutputError
from ..outputs import check_target

RASTER_SUFFIXES = (".tif", ".tiff")


def check_outputs(
    files: Iterable[Path | None] = (),
    rasters: Iterable[Path | None] = (),
    inputs: Iterable[str | Path | None] = (),
) -> None:
    """Check the output ``files`` and ``rasters`` (GeoTIFF) of a job against each other and against its ``inputs``.

    None stands for an output or input that is not used; inputs that are no files (URL, box) do not count.
    Raises `OutputError`.
    """
    images = [path for path in rasters if path is not None]
    taken = {key: "an input" for name in inputs if name is not None and (key := _identity(Path(name)))}
    for path in (*images, *(path for path in files if path is not None)):
        full = path.expanduser().absolute()
        check_target(full)
        if path in images and path.suffix.lower() not in RASTER_SUFFIXES:
            raise OutputError(f"The result is a GeoTIFF, so {path} must end in .tif; choose another name.")
        key = _identity(path) or full.resolve()
        if key in taken:
            raise OutputError(f"{full} is already {taken[key]}; choose another name.")
        taken[key] = "another output"


def _identity(path: Path) -> object:
    """What is the same for two names of one file, through links and on file systems that ignore case; None: no file."""
    try:
        found = path.expanduser().stat()
    except (OSError, ValueError, RuntimeError):
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else path.expanduser().resolve()
