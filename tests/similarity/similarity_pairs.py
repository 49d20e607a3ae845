"""Pairs of images that are compared, bands first; none needs more than what is in the repository, but the examples."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

Pair = tuple[np.ndarray, np.ndarray]

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples" / "S2_MSIL1C_T18SVG_extract.SAFE"
EXAMPLES = Path(os.environ.get("S2SR_PACKAGE_EXAMPLES", ROOT.parent / "shared" / "data" / "image_similarity_measures"))
"""Folder of the four GeoTIFFs in `example/` of the package's repository; its releases on PyPI do not carry them."""


def sentinel2(side: int = 64) -> Pair:
    """Real pixels (B02, B03, B04, B08; digital numbers, uint16) and the same blurred and with noise."""
    x = real(side)
    rng = np.random.default_rng(0)
    y = gaussian_filter(x.astype(np.float64), (0, 0.5, 0.5)) + rng.normal(0, 20, x.shape)
    return x, np.clip(np.rint(y), 1, 4095).astype(np.uint16)


def real(side: int = 64) -> np.ndarray:
    """Real pixels of the sample, uint16 of 12 bits: fields, forest, water."""
    bands = []
    for name in ("B02", "B03", "B04", "B08"):
        (path,) = SAMPLE.rglob(f"*_{name}.jp2")
        with rasterio.open(path) as file:
            bands.append(file.read(1, window=Window(300, 200, side, side)))
    return np.minimum(np.stack(bands), 4095)


def noise(largest: int, dtype: type = np.float64, side: int = 40) -> Pair:
    """Random integers from 1, and the same half mixed with others."""
    rng = np.random.default_rng(1)
    x, other = rng.integers(1, largest + 1, (2, 3, side, side + 5))
    return x.astype(dtype), ((x + other) // 2).astype(dtype)


def smooth(offset: float = 0.0, side: int = 72) -> Pair:
    """Gradients so weak that 16 bits hold their squares: 8-bit values, and a slightly different copy."""
    rng = np.random.default_rng(2)
    fields = gaussian_filter(rng.normal(size=(2, 2, side, side)), (0, 0, 6, 6), mode="reflect")
    x = 30 * fields[0] / np.abs(fields[0]).max() + 128
    y = x + 5 * fields[1] / np.abs(fields[1]).max()
    return np.rint(x) + offset, np.rint(y) + offset


def example(place: str) -> Pair:
    """`lafayette` or `singapore`, an image and its super-resolved form, uint16 (4, 200, 200)."""
    pair = []
    for kind in ("org", "pred"):
        with rasterio.open(EXAMPLES / f"{place}_{kind}.tif") as file:
            pair.append(file.read())
    return pair[0], pair[1]
