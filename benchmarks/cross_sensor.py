"""Cross-sensor super-resolution on real pixels: simulate, cut pairs, train, score on images that were held out.

    python benchmarks/cross_sensor.py --data FOLDER [--network crossnet] [--minutes 10] [--work FOLDER]

FOLDER holds QuickBird and NAIP images as below. Each is the reference; the Sentinel-2 image is simulated from it (MTF,
10 m sampling, noise: `s2sr simulate`), so the figures say what the networks can do, not what they do between two real
sensors. Prints RMSE (DN), SSIM and SAM (degrees) of network and bicubic for every test set, and exits with 1 where the
network is not better in all three.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine
from rich.console import Console
from rich.table import Table

from s2sr_qgis.core import jobs
from s2sr_qgis.core.progress import Progress

NEAR_DN = {"quickbird": 4.0, "naip": 20.0}
"""Brings the images' own numbers near Sentinel-2's DN, so that the noise that is added is of its size."""


@dataclass(frozen=True)
class Reference:
    """One fine image. ``spacing``: metres it is taken to have; two chips state none, and others oblong pixels."""

    name: str
    file: str
    kind: str
    spacing: float
    bands: tuple[str, ...]
    split: str


BLUE_FIRST, RED_FIRST = ("B02", "B03", "B04", "B08"), ("B04", "B03", "B02", "B08")
SETS: dict[str, tuple[int, list[Reference]]] = {
    "QuickBird, 9.6 m to 2.4 m": (
        4,
        [
            Reference(n, f"vhr/quickbird_toulouse/{n}.tif", "quickbird", 2.4, BLUE_FIRST, split)
            for n, split in (
                ("QB_1_ortho", "train"), ("QB_2_ortho", "train"), ("QB_4_extract", "train"), ("QB_5_extract", "train"),
                ("QB_3_ortho", "valid"), ("QB_6_extract", "test"),
            )
        ],
    ),
    "NAIP, 10 m to 5 m": (
        2,
        [
            Reference(f"NAIP_{day}", f"vhr/naip_opengeos/m_4709963_se_14_1_{day}.tif", "naip", 5.0, RED_FIRST, "blocks")
            for day in ("20140720", "20200831")
        ],
    ),
}  # fmt: skip
SHARES = {"train": (1.0, 0.0, 0.0), "valid": (0.0, 1.0, 0.0), "test": (0.0, 0.0, 1.0), "blocks": (0.7, 0.1, 0.2)}


def main() -> int:
    """Run both sets and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the images")
    parser.add_argument("--network", default="crossnet", help="crossnet or srresnet")
    parser.add_argument("--blocks", type=int, default=6, help="residual blocks")
    parser.add_argument("--features", type=int, default=48, help="channels")
    parser.add_argument("--minutes", type=float, default=10, help="of training, each set")
    parser.add_argument("--work", type=Path, help="keep datasets and runs here")
    parser.add_argument("--json", type=Path, help="figures as JSON")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        figures = {title: measure(title, ratio, images, work, options) for title, (ratio, images) in SETS.items()}
    table = Table(
        title=f"{options.network}, {options.minutes:g} minutes of training each", title_justify="left", box=None
    )
    for heading in ("test set", "patches", "RMSE", "bicubic", "SSIM", "bicubic", "SAM", "bicubic"):
        table.add_column(heading, justify="left" if heading == "test set" else "right")
    worse = []
    for title, found in figures.items():
        cells = []
        for key, decimals, better in (("rmse_mean", 1, -1), ("ssim", 3, 1), ("sam", 2, -1)):
            ours, bicubic = found[key], found["bicubic"][key]
            cells += [f"{ours:.{decimals}f}", f"{bicubic:.{decimals}f}"]
            if better * (ours - bicubic) <= 0:
                worse.append(f"{title}: {key}")
        table.add_row(title, str(found["patches"]), *cells)
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if worse:
        console.print(f"Not better than bicubic: {', '.join(worse)}")
    return 1 if worse else 0


def measure(title: str, ratio: int, images: list[Reference], work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Pairs of each image, one training on all of them, the figures of its test split."""
    datasets = []
    for number, image in enumerate(images):
        fine, scene, folder = (work / f"{image.name}{end}" for end in (".tif", "_s2.tif", "_pairs"))
        if not folder.exists():
            place(options.data / image.file, fine, image, number)
            if not scene.exists():
                jobs.run(
                    jobs.SimulateJob(
                        image=str(fine), output=scene, bands=list(image.bands), spacing=image.spacing * ratio
                    )
                )
            train, valid, test = SHARES[image.split]
            jobs.run(
                jobs.CreateCrossSensorDatasetJob(
                    xs=str(fine), scene=str(scene), output=folder, bands=list(image.bands), ratio=ratio, patch_size=24,
                    step=12, block_size=2, train=train, valid=valid, test=test,
                )
            )  # fmt: skip
        datasets.append(folder)
    run = work / f"run_{options.network}_x{ratio}"
    job = jobs.TrainJob(
        datasets=datasets,
        output=run,
        network=options.network,
        network_options={"blocks": options.blocks, "features": options.features},
        epochs=100000,
        max_minutes=options.minutes,
        early_stopping=0,
        ema=0.99,
        warmup_steps=50,
        learning_rate=2e-3,
    )
    return dict(jobs.run(job, Quiet(title))["test"])


class Quiet(Progress):
    """Says what the jobs say, with the set's title."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title

    def log(self, text: str, level: str = "info") -> None:
        print(f"{self.title}: {text}", flush=True)


def place(source: Path, target: Path, image: Reference, number: int) -> None:
    """Write an image's bands as DN on a north-up UTM grid of square pixels."""
    with rasterio.open(source) as file:
        pixels = file.read(list(range(1, len(image.bands) + 1))).astype(np.float32) * NEAR_DN[image.kind]
    transform = Affine(image.spacing, 0, 300000 + 10000 * number, 0, -image.spacing, 4830000)
    profile = {"driver": "GTiff", "dtype": "float32", "crs": "EPSG:32631", "transform": transform}
    with rasterio.open(
        target, "w", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2], **profile
    ) as file:
        file.write(pixels)
        file.descriptions = image.bands


if __name__ == "__main__":
    sys.exit(main())
