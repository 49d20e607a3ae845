"""Speed of the similarity measures beside image-similarity-measures 0.3.6, and a whole tile's time and memory.

    .venv-similarity/bin/python benchmarks/similarity.py [--json FILE]         # `make bench-similarity`
    .venv-similarity/bin/python benchmarks/similarity.py --tile [--json FILE]

Both run in one process on one core with one thread, on the same real pixels of the sample as uint16, laid out as each
one's users have them: (H, W, bands) for the package, (bands, H, W) here. Each repetition times the package and both
definitions here, in turn first, so that what else the machine does strikes all; ratios are taken within a repetition.

``--tile`` compares a mosaic of 10980 x 10980 pixels and 6 bands with a blurred and noisy copy, two GeoTIFFs, by the job
`similarity` in a process of its own, and tells its time and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from mosaic import TILE, mirrored, places, sample_band
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter
from timing import REPETITIONS, ROOT, clocked, in_turn, machine, ratio, shown, wall

NAMES = ("rmse", "psnr", "ssim", "fsim", "issm", "sre", "sam", "uiq")
BANDS = ("B02", "B03", "B04", "B08")
TILE_BANDS = ("B02", "B03", "B04", "B05", "B08", "B11")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")

WORKER = """
import json, sys
sys.path.insert(0, "benchmarks")
from s2sr_qgis.core import jobs
from timing import clocked, peak_memory
outputs = []
taken = clocked(lambda: outputs.append(jobs.run(jobs.SimilarityJob(**json.loads(sys.argv[1])))))
print(json.dumps({"seconds": taken.wall, "peak_memory_mb": peak_memory(), "outputs": outputs[0]}))
"""


def main() -> int:
    """Measure what the command line names and print it as a table; with --json as JSON too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=REPETITIONS, help=f"repetitions, at least {REPETITIONS}")
    parser.add_argument("--side", type=int, default=1024, help="side of the images in pixels")
    parser.add_argument("--uiq-side", type=int, default=256, help="the same for UIQ, which takes the package long")
    parser.add_argument("-m", "--measure", action="append", choices=NAMES, help="all eight by default")
    parser.add_argument("--tile", action="store_true", help="measure a whole tile instead")
    parser.add_argument("--tile-side", type=int, default=TILE, help="its side in pixels")
    parser.add_argument("--threads", type=int, help="of the tile's job; all of the processor's by default")
    parser.add_argument("--folder", type=Path, help="where the tile's files are made and kept; a temporary one if not")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.pairs < REPETITIONS:
        parser.error(f"--pairs must be at least {REPETITIONS}: fewer show no spread")
    console = Console(width=140)
    figures: dict[str, Any] = machine()
    if options.tile:
        figures |= measure_tile(options)
        console.print(tile_table(figures))
    else:
        on_one_core()
        figures |= {"pairs": options.pairs, "measures": [time_measure(n, options) for n in options.measure or NAMES]}
        console.print(speed_table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def on_one_core() -> None:
    """Begin again with one thread on one core: libraries read that when they are loaded."""
    if all(os.environ.get(name) == value for name, value in ONE_THREAD.items()):
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)


def time_measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the package and of both definitions here, and how many times faster these are."""
    side = options.uiq_side if name == "uiq" else options.side
    x, y = pair(BANDS, side)
    calls = {"package": of_package(name, x, y), **{d: of_ours(name, x, y, d) for d in ("reference", "up42")}}
    for call in calls.values():
        call()  # warms caches up
    runs = in_turn({which: partial(clocked, call) for which, call in calls.items()}, options.pairs)
    ratios = {which: ratio(runs["package"], runs[which]) for which in ("reference", "up42")}
    return {
        "name": name,
        "side": side,
        "bands": len(BANDS),
        "seconds": {which: wall(taken) for which, taken in runs.items()},
        "ratio": ratios,
    }


def of_package(name: str, x: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    """The package's function, ready to be timed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cv2
        from image_similarity_measures import quality_metrics
    cv2.setNumThreads(1)
    x, y = (np.ascontiguousarray(np.moveaxis(image, 0, -1)) for image in (x, y))

    def call() -> Any:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return getattr(quality_metrics, name)(x, y)

    return call


def of_ours(name: str, x: np.ndarray, y: np.ndarray, definition: Any) -> Callable[[], Any]:
    """Our function, ready to be timed."""
    sys.path.insert(0, str(ROOT))  # the environment has the package, and not this project
    from s2sr_qgis.core.similarity.measures import measure

    return lambda: measure(x, y, [name], definition=definition, data_range=4095)


def pair(names: tuple[str, ...], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Real pixels, mirrored where the sample is smaller, and the same blurred and with noise; uint16 (bands, H, W)."""
    x = mirrored(np.stack([sample_band(name, (720, 720)) for name in names]), side, side)
    noise = np.random.default_rng(0).normal(0, 20, x.shape)
    y = gaussian_filter(x.astype(np.float64), (0, 0.5, 0.5)) + noise
    return x, np.clip(np.rint(y), 1, 65535).astype(np.uint16)


def measure_tile(options: argparse.Namespace) -> dict[str, Any]:
    """Time and peak memory of the job with all measures of the definition `reference`."""
    own = ROOT / ".venv" / "bin" / "python"
    with tempfile.TemporaryDirectory(prefix="s2sr_tile_") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{which}_{options.tile_side}.tif" for which in ("reference", "image")]
        if not all(file.is_file() for file in files):
            for file, image in zip(files, pair(TILE_BANDS, 1440), strict=True):
                write_mosaic(file, image, options.tile_side)
        job = {"reference": str(files[0]), "image": str(files[1]), "threads": options.threads}
        command = [str(own if own.is_file() else sys.executable), "-c", WORKER, json.dumps(job)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    scores = {name: entry["total"] for name, entry in figures.pop("outputs")["measures"].items()}
    threads = options.threads or "all"
    return {"side": options.tile_side, "bands": len(TILE_BANDS), "threads": threads, **figures, "scores": scores}


def write_mosaic(path: Path, image: np.ndarray, side: int) -> None:
    """``image`` and its mirrored forms side by side and one below the other, as a tiled GeoTIFF of Sentinel-2 bands."""
    bands, height, width = image.shape
    rows, cols = places(side, height), places(side, width)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": bands, "width": side, "height": side, "crs": "EPSG:32618"}
    corner = rasterio.transform.from_origin(399960, 4200000, 10, 10)
    part = path.with_suffix(".part")
    with rasterio.open(part, "w", **profile, transform=corner, tiled=True, blockxsize=512, blockysize=512) as file:
        file.descriptions = TILE_BANDS
        for top in range(0, side, 512):
            here = rows[top : top + 512]
            window = rasterio.windows.Window(0, top, side, len(here))
            file.write(image[:, here[:, None], cols], window=window)
    part.replace(path)


def speed_table(figures: dict[str, Any]) -> Table:
    """A row a measure."""
    table = Table(title=f"one core, uint16, {figures['pairs']} pairs", box=None, title_justify="left")
    for heading in ("", "pixels", "package s", "reference s", "times", "up42 s", "times"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in figures["measures"]:
        seconds = row["seconds"]
        cells = [f"{row['side']}² x {row['bands']}", f"{seconds['package']['median']:.3f}"]
        for definition in ("reference", "up42"):
            cells += [f"{seconds[definition]['median']:.4f}", shown(row["ratio"][definition], 1)]
        table.add_row(row["name"], *cells)
    return table


def tile_table(figures: dict[str, Any]) -> Table:
    """Time, memory and the scores of a tile."""
    title = f"{figures['side']}² x {figures['bands']}, uint16, threads: {figures['threads']}"
    table = Table(title=title, box=None, title_justify="left", show_header=False)
    table.add_row("seconds", f"{figures['seconds']:.0f}")
    table.add_row("peak memory, MB", f"{figures['peak_memory_mb']:.0f}")
    for name, total in figures["scores"].items():
        table.add_row(name, "not defined" if total is None else f"{total:.6g}")
    return table


if __name__ == "__main__":
    sys.exit(main())
