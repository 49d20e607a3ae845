"""A scene's bands made as soft as the optics of Sentinel-2 leave them, for training.

The 60 m bands of the sample scene of Virginia are as sharp as means over 60 m of its 10 m bands, or sharper; those of
other products keep half of that contrast at the finest period (`benchmarks/optics.py`). A network that learns from them
gets wrong what is to be restored.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import rasterio
from scipy.ndimage import convolve

from s2sr_qgis.core.outputs import atomic


def soften(scene: Path, kernels: dict[str, list[list[float]]], output: Path) -> Path:
    """Copy a folder of single-band files, those whose names end in a key of ``kernels`` filtered by it (sum 1).

    One that is there already is not made again.
    """
    if output.is_dir():
        return output
    with atomic(output, folder=True) as part:
        _copy(scene, kernels, part)
    return output


def _copy(scene: Path, kernels: dict[str, list[list[float]]], part: Path) -> None:
    for path in sorted(path for path in scene.iterdir() if path.suffix.lower() in (".jp2", ".tif")):
        kernel = next((np.array(rows) for band, rows in kernels.items() if path.stem.endswith(band)), None)
        if kernel is None:
            shutil.copyfile(path, part / path.name)
            continue
        with rasterio.open(path) as dataset:
            numbers, profile = dataset.read(1), dataset.profile
        soft = np.clip(np.rint(convolve(numbers.astype(np.float64), kernel / kernel.sum(), mode="nearest")), 1, 65535)
        profile = {key: profile[key] for key in ("width", "height", "count", "dtype", "crs", "transform", "nodata")}
        with rasterio.open(part / f"{path.stem}.tif", "w", driver="GTiff", **profile) as dataset:
            dataset.write(np.where(numbers == 0, 0, soft).astype(numbers.dtype), 1)
