"""A Sentinel-2 scene and a finer image of the same made-up ground, written as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine

BANDS = ("B04", "B03", "B02", "B08")
CRS = "EPSG:32631"
X, Y = 500000.0, 4800000.0
"""Upper-left corner of the scene; the finer image begins 60 m further to the south-east."""


def ground(x: np.ndarray, y: np.ndarray, band: int) -> np.ndarray:
    """Brightness (DN) of a band at places in metres: waves of 45 to 400 m that all bands share, in other shares."""
    rng = np.random.default_rng(5)
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for wave in range(40):
        length, angle, phase = rng.uniform(45, 400), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
        share = 1 + 0.3 * np.sin(wave + band)
        total += share * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
    return 1500 + 300 * band + 60 * total


def sampled(corner: tuple[float, float], spacing: float, size: int, bands: int) -> np.ndarray:
    """The ground at the centres of a grid's pixels, (bands, size, size)."""
    x = corner[0] - X + (np.arange(size)[None, :] + 0.5) * spacing
    y = Y - corner[1] + (np.arange(size)[:, None] + 0.5) * spacing
    return np.stack([ground(x, y, band) for band in range(bands)])


def write(path: Path, pixels: np.ndarray, corner: tuple[float, float], spacing: float, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "crs": CRS, "transform": Affine(spacing, 0, corner[0], 0, -spacing, corner[1])}
    tags = more.pop("tags", {})
    profile.update(width=pixels.shape[2], height=pixels.shape[1], count=len(pixels), dtype=str(pixels.dtype), **more)
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.update_tags(**tags)
    return path


def make_scene(folder: Path, size: int = 90, shift: tuple[float, float] = (0.0, 0.0), **more: Any) -> Path:
    """A folder of 10 m bands; ``shift``: (east, north) metres that its georeference is wrong by."""
    pixels = sampled((X, Y), 10, size, len(BANDS)).round().astype(np.uint16)
    for name, image in zip(BANDS, pixels, strict=True):
        write(folder / f"S2A_MSIL2A_20220701T105031_{name}.tif", image[None], (X + shift[0], Y + shift[1]), 10, **more)
    return folder


def make_reference(folder: Path, size: int = 128, ratio: int = 4, **more: Any) -> tuple[Path, Path]:
    """XS of 6 m and PAN of 1.5 m (for a ratio of 4); PAN is the mean of the bands."""
    corner = X + 60, Y - 60
    xs = sampled(corner, 6, size, len(BANDS)).round().astype(np.uint16)
    pan = sampled(corner, 6 / ratio, size * ratio, len(BANDS)).mean(axis=0, keepdims=True).round().astype(np.uint16)
    tags = {"ACQUISITIONDATETIME": "2022-07-05T10:00:00Z"}
    return (
        write(folder / "xs.tif", xs, corner, 6, tags=tags, **more),
        write(folder / "pan.tif", pan, corner, 6 / ratio, tags=tags, **more),
    )
