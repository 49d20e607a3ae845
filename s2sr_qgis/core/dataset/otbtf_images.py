"""Files as OTBTF's PatchesExtraction writes them: patches one below the other, and a column of labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window as RasterWindow

from ..errors import InputError
from ..processors import available_threads
from ..progress import Progress
from ..raster.grid import Grid
from ..raster.verify import check_whole_raster, gdal_errors

DataType = Literal["uint8", "uint16", "int16", "int32", "uint32", "float32"]

_AT_ONCE = 16 * 2**20
"""Numbers of a read."""


def clamped(values: NDArray[Any], data_type: DataType) -> NDArray[Any]:
    """As OTB converts its floats: beyond the type's limits the limit, fractions cut off."""
    if data_type == "float32":
        return np.ascontiguousarray(values, np.float32)
    limits = np.iinfo(data_type)
    return np.clip(values.astype(np.float64), limits.min, limits.max).astype(data_type)


def write_patches(
    target: Path,
    collected: IO[bytes],
    shape: tuple[int, int, int],
    count: int,
    grid: Grid,
    data_type: DataType,
    progress: Progress,
) -> None:
    """Write patches of ``shape`` (bands, height, width), collected as raw numbers of ``data_type``, as a GeoTIFF.

    Its pixels are as large as the grid's, its first one's centre is at 0, 0. Raises `OutputError`.
    """
    bands, height, width = shape
    dx, dy = grid.spacing, -grid.pixel_height
    some = max(_AT_ONCE // (bands * height * width), 1)
    collected.seek(0)
    with _raster(target, (bands, count * height, width), data_type, Affine(dx, 0, -dx / 2, 0, dy, -dy / 2)) as file:
        for first in range(0, count, some):
            progress.check()
            taken = min(some, count - first)
            raw = collected.read(taken * bands * height * width * np.dtype(data_type).itemsize)
            patches = np.frombuffer(raw, data_type).reshape(taken, bands, height, width)
            stacked = patches.swapaxes(0, 1).reshape(bands, taken * height, width)
            file.write(stacked, window=RasterWindow(0, first * height, width, taken * height))


def write_labels(target: Path, labels: NDArray[np.int64], data_type: DataType) -> None:
    """Write one number a patch, in a column of pixels. Raises `OutputError`."""
    numbers = clamped(labels.astype(np.float32), data_type).reshape(1, -1, 1)
    with _raster(target, numbers.shape, data_type, Affine(1, 0, -0.5, 0, 1, -0.5)) as file:
        file.write(numbers)


def read_patches(
    images: Sequence[Path], shapes: Sequence[tuple[int, int]], labels: Path
) -> Iterator[tuple[int, list[NDArray[np.float32]]]]:
    """The label and the patches (bands, height, width) of each row of patch images, ``shapes`` being (height, width).

    Raises `InputError` for a file that cannot be read.
    """
    try:
        with ExitStack() as stack:
            numbers = stack.enter_context(rasterio.open(labels)).read(1)[:, 0]
            files = [stack.enter_context(rasterio.open(path)) for path in images]
            for row, number in enumerate(numbers):
                windows = [RasterWindow(0, row * height, width, height) for height, width in shapes]
                yield (
                    int(number),
                    [f.read(window=w).astype(np.float32) for f, w in zip(files, windows, strict=True)],
                )
    except RasterioError as error:
        raise InputError(f"What OTBTF's PatchesExtraction wrote cannot be read: {error}.") from error


@contextmanager
def _raster(target: Path, shape: tuple[int, ...], data_type: str, transform: Affine) -> Iterator[Any]:
    profile = {"dtype": data_type, "transform": transform, "interleave": "pixel", "compress": "deflate"}
    sides = dict(zip(("count", "height", "width"), shape, strict=True))
    with gdal_errors(target):
        with rasterio.open(target, "w", driver="GTiff", bigtiff="if_safer", **sides, **profile) as file:
            yield file
        check_whole_raster(target, available_threads())
