"""How soft the optics make the coarse bands of scenes: `optics.py SCENE…`.

Prints for pairs of a coarse and a fine band, by spatial frequency in cycles per coarse pixel, the amplitude of the
coarse band beside that of the fine one's means over its pixels, 1 at the lowest. Bands that look alike differ by the
optics alone there: products of Sentinel-2 have about 0.6 at 20 m and 0.5 at 60 m for the finest detail (0.5). A scene
whose bands do not was resampled, and misleads a training.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from rich.console import Console
from rich.table import Table

from s2sr_qgis.core.scene import open_scene
from s2sr_qgis.core.scene.scene import Scene

PAIRS = (("B01", "B02"), ("B09", "B08"), ("B05", "B04"), ("B8A", "B08"))
FREQUENCIES = (0.1, 0.2, 0.3, 0.4, 0.5)


def main() -> int:
    """Print a table of the scenes named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="+")
    options = parser.parse_args()
    table = Table(box=None)
    for heading in ("scene", "bands", *map(str, FREQUENCIES)):
        table.add_column(heading)
    for source in options.scenes:
        with open_scene(source) as scene:
            for pair in PAIRS:
                if all(band in scene.bands for band in pair):
                    cells = [f"{value:.2f}" for value in contrasts(scene, *pair)]
                    table.add_row(scene.name, "/".join(pair), *cells)
    Console(width=140).print(table)
    return 0


def contrasts(scene: Scene, coarse: str, fine: str) -> np.ndarray:
    """Ratio of the amplitudes at `FREQUENCIES`, 1 at the first."""
    read = scene.read([coarse, fine])
    low, high = read.data[coarse], read.data[fine]
    factor = scene.bands[coarse].resolution // scene.bands[fine].resolution
    rows, columns = (min(a, b // factor) for a, b in zip(low.shape, high.shape, strict=True))
    means = high[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor).mean(axis=(1, 3))
    ratio = np.sqrt(spectrum(low[:rows, :columns]) / spectrum(means))
    return ratio / ratio[0]


def spectrum(image: np.ndarray) -> np.ndarray:
    """Mean power around each of `FREQUENCIES`."""
    window = np.outer(*map(np.hanning, image.shape))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    radius = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, image.shape), indexing="ij"))
    return np.array([power[abs(radius - frequency) <= 0.05].mean() for frequency in FREQUENCIES])


if __name__ == "__main__":
    sys.exit(main())
