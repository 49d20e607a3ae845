"""Whether a GeoTIFF that was just written is whole: GDAL does not always raise when a write fails."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from ..errors import OutputError, S2SRError
from ..outputs import FULL, output_sentence

_GDAL_LOG = "rasterio._env"
"""Where rasterio logs GDAL's errors that it does not raise, such as those of closing a file."""

_SPACE = ("No space left", "File too large", "Disk quota exceeded")
_BUFFER = 32 * 2**20
"""Bytes that are decoded at once."""


@contextmanager
def gdal_errors(target: Path) -> Iterator[None]:
    """Turn whatever GDAL raises, or logs on this thread, while writing ``target`` into an `OutputError`."""
    heard = _Listener()
    log = logging.getLogger(_GDAL_LOG)
    log.addHandler(heard)
    try:
        yield
        if heard.errors:
            raise OSError(errno.EIO, heard.errors[0])
    except (S2SRError, MemoryError):
        raise
    except Exception as error:  # rasterio lets private classes of GDAL errors through
        raise _sentence(error, heard.errors, target) from error
    finally:
        log.removeHandler(heard)


def check_whole_raster(path: Path, threads: int, check: Callable[[], None] = lambda: None) -> None:
    """Read every block of all bands, overviews and masks back. Raises an error of GDAL or OSError where one is bad.

    ``check`` is called between blocks, and may raise to stop.
    """
    with rasterio.open(path) as dataset:
        levels = len(dataset.overviews(1))
    for level in range(-1, levels):
        with rasterio.open(path, NUM_THREADS=str(threads), **({} if level < 0 else {"OVERVIEW_LEVEL": level})) as image:
            _check_offsets(image, path.stat().st_size)
            _decode(image, check)


def _check_offsets(image: Any, size: int) -> None:
    """A block that was never written would read as nodata."""
    height, width = image.block_shapes[0]
    columns, rows = -(-image.width // width), -(-image.height // height)
    bands = image.indexes if image.interleaving.name == "band" else image.indexes[:1]
    for band in bands:
        for column, row in np.ndindex(columns, rows):
            start = image.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band)
            length = image.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=band)
            if start is None or length is None or int(start) + int(length) > size:
                raise OSError(errno.EIO, "the file is incomplete")


def _decode(image: Any, check: Callable[[], None]) -> None:
    height, _ = image.block_shapes[0]
    by_band = image.interleaving is None or image.interleaving.name == "band"
    groups = [[band] for band in image.indexes] if by_band else [list(image.indexes)]
    masked = MaskFlags.per_dataset in image.mask_flag_enums[0] and MaskFlags.alpha not in image.mask_flag_enums[0]
    row_size = image.width * np.dtype(image.dtypes[0]).itemsize * len(groups[0])
    rows = max(_BUFFER // row_size // height, 1) * height
    for start in range(0, image.height, rows):
        window = Window(0, start, image.width, min(rows, image.height - start))
        for group in groups:
            check()
            image.read(group, window=window)
        if masked:
            image.read_masks(1, window=window)


class _Listener(logging.Handler):
    """Keeps the errors that GDAL logs on this thread; on others, files are being read."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.errors.append(record.getMessage())


def _sentence(error: Exception, heard: list[str], target: Path) -> OutputError:
    texts = [str(error), *heard]
    full = isinstance(error, OSError) and error.errno in FULL
    if full or any(text in line for text in _SPACE for line in texts) or _nearly_full(target.parent):
        return OutputError(output_sentence(OSError(errno.ENOSPC, ""), target))
    if not target.parent.is_dir():
        return OutputError(output_sentence(OSError(errno.ENOENT, ""), target))
    reason = (str(error).strip() or "unknown error").splitlines()[0]
    return OutputError(
        f"{target} could not be written completely ({reason}); check the space there or choose another output."
    )


def _nearly_full(folder: Path) -> bool:
    try:
        found = os.statvfs(folder) if hasattr(os, "statvfs") else None
    except OSError:
        return False
    return found is not None and found.f_bavail * found.f_frsize < 2**20
