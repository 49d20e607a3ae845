"""Where image-similarity-measures 0.3.6 is wrong, with both numbers: the table of docs/similarity.md.

`.venv-similarity/bin/python tests/similarity/up42_faults.py` prints it; a test holds that the page has these lines.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from similarity_pairs import sentinel2
from up42_package import package

from s2sr_qgis.core.similarity.measures import measure

PACKAGE_RANGE = 4095


def ours(name: str, x: np.ndarray, y: np.ndarray, data_range: float = PACKAGE_RANGE, definition: str = "reference"):
    """The total of one measure."""
    return measure(x, y, [name], definition=definition, data_range=data_range)[name].total


def rows() -> list[tuple[str, float, float, float]]:
    """What is compared, and what the package, ours in its definition and ours in the reference's give."""
    x, y = sentinel2()
    as_float = x.astype(np.float64), y.astype(np.float64)
    eight = tuple((image // 16).astype(np.uint8) for image in (x, y))
    flat = np.full((4, 32, 32), 1000.0)
    half = np.where(np.arange(32) < 16, 1000.0, x[:, :32, :32])
    zero, unknown = as_float[0].copy(), as_float[0].copy()
    zero[:, 5, 5], unknown[:, 5, 5] = 0, np.nan
    reflectance = tuple(image / 10000 for image in as_float)
    repeated = tuple(np.tile(image, (1, 2, 2)) for image in as_float)
    one = tuple(image[0] for image in as_float)
    mirrored = tuple(np.ascontiguousarray(image[:, :, ::-1]) for image in as_float)

    def three(text, name, a, b, data_range=PACKAGE_RANGE):
        up42 = ours(name, a, b, data_range, "up42")
        return text, package(name, a, b), up42, ours(name, a, b, data_range)

    return [
        three("SAM of an image with itself, uint16 (°)", "sam", x, x),
        three("SAM of an image with itself, uint8 (°)", "sam", eight[0], eight[0]),
        three("SAM of image and copy, uint16 (°)", "sam", x, y),
        three("SAM of the same, one pixel of the reference zero (°)", "sam", zero, as_float[1]),
        three("SAM of the same, one pixel NaN (°)", "sam", unknown, as_float[1]),
        three("SRE (dB)", "sre", *as_float),
        three("SRE of the same, repeated 2 x 2 (dB)", "sre", *repeated),
        three("UIQ of a flat image with itself", "uiq", flat, flat),
        three("UIQ of a half flat image with itself", "uiq", half, half),
        three("RMSE of one band as (H, W)", "rmse", *one),
        three("PSNR of one band as (H, W) (dB)", "psnr", *one),
        three("PSNR of 8-bit images (dB)", "psnr", *eight, 255),
        three("PSNR with one pixel NaN (dB)", "psnr", unknown, as_float[1]),
        three("SSIM of reflectance", "ssim", *reflectance, 1.0),
        three("SSIM of 8-bit images", "ssim", *eight, 255),
        three("FSIM of image and copy, 12 bits", "fsim", *as_float, 10000),
        three("FSIM of the same, both mirrored", "fsim", *mirrored, 10000),
        three("FSIM of the same as reflectance", "fsim", *reflectance, 1.0),
        three("FSIM of a flat image with itself", "fsim", flat, flat),
        three("ISSM of an image with itself, 8 bits", "issm", *(eight[0],) * 2, 255),
        three("ISSM of an image with itself, reflectance", "issm", *(reflectance[0],) * 2, 1.0),
        three("ISSM of image and copy, 12 bits", "issm", *as_float),
        three("ISSM of the same, 8 bits", "issm", *eight, 255),
    ]


def line(text: str, *values: float) -> str:
    """A row of the table."""
    return f"| {text} | " + " | ".join(f"{value:.4g}".replace("nan", "NaN") for value in values) + " |"


if __name__ == "__main__":
    print("| | package | s2sr, `up42` | s2sr, `reference` |\n|---|---|---|---|")
    for row in rows():
        print(line(*row))
