"""Full-size images for the benchmarks, mirrored out of the real pixels of a smaller one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from timing import ROOT, SAMPLE

if TYPE_CHECKING:
    from s2sr_qgis.core.scene import Scene

TILE = 10980
"""Side of a Sentinel-2 tile in 10 m pixels."""

BLOCK = {10: 1024, 20: 640, 60: 192}
"""Side of the tiles inside a product's JPEG 2000 files, by the band's pixel size in metres."""


def make_product(source: str, folder: Path, height: int = TILE, width: int = TILE) -> Path:
    """Write a Level-1C SAFE of ``width`` x ``height`` pixels of 10 m, unless it lies there already; returns its root.

    Lossless JPEG 2000 as products have it inside; the pixels of ``source`` are mirrored at its edges, band by band.
    """
    # Here, because other benchmarks run in environments without this project.
    from s2sr_qgis.core.scene import BANDS, open_scene

    sys.path.insert(0, str(ROOT / "samples"))
    from make_sample import METADATA

    with open_scene(source) as scene:
        name = f"S2_MSIL1C_{scene.name.rpartition('MSIL1C_')[2].partition('_')[0]}_{width}x{height}"
        root = folder / f"{name}.SAFE"
        if (root / "MTD_MSIL1C.xml").is_file():
            return root
        shutil.rmtree(root, ignore_errors=True)
        bands = [band for band in BANDS if band in scene.bands]
        images = [f"GRANULE/{name}/IMG_DATA/{name}_{band}" for band in bands]
        for band, image in zip(bands, images, strict=True):
            path = root / f"{image}.jp2"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(scene, band, path, height, width)
    listed = "\n".join(f"            <IMAGE_FILE>{image}</IMAGE_FILE>" for image in images)
    text = METADATA.format(name=name, granule=name, images=listed)
    # Last, so that a product whose making broke off is made again.
    (root / "MTD_MSIL1C.xml").write_text(text, encoding="utf-8")
    return root


def _write(scene: Scene, name: str, path: Path, height: int, width: int) -> None:
    band = scene.bands[name]
    factor = band.resolution // 10
    numbers = np.rint(scene.read([name]).data[name] * band.quantification - band.offset).astype(np.uint16)
    image = mirrored(numbers, -(-height // factor), -(-width // factor))
    grid = scene.grid.coarser(factor)
    with rasterio.open(
        path,
        "w",
        driver="JP2OpenJPEG",
        width=image.shape[1],
        height=image.shape[0],
        count=1,
        dtype="uint16",
        crs=grid.crs,
        transform=grid.transform,
        blockxsize=BLOCK[band.resolution],
        blockysize=BLOCK[band.resolution],
        REVERSIBLE="YES",
        QUALITY=100,
        YCBCR420="NO",
        RESOLUTIONS=6,
    ) as dataset:
        dataset.write(image, 1)


def sample_band(name: str, shape: tuple[int, int] | None = None) -> np.ndarray:
    """A band of the sample as it is stored, or brought to another shape by repeating pixels."""
    (path,) = SAMPLE.rglob(f"*_{name}.jp2")
    with rasterio.open(path) as file:
        image: np.ndarray = file.read(1, out_shape=shape)
    return image


def mirrored(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (…, h, w) of another size: its first pixels, or going on as its own mirror image."""
    rows, cols = (places(size, length) for size, length in zip((height, width), image.shape[-2:], strict=True))
    return image[..., rows[:, np.newaxis], cols]


def places(size: int, length: int) -> np.ndarray:
    """Which of ``length`` pixels each of ``size`` shows when the row goes on as its own mirror image."""
    place = np.arange(size) % (2 * length)
    return np.where(place < length, place, 2 * length - 1 - place)
