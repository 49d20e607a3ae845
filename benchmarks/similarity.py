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
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "samples" / "S2_MSIL1C_T18SVG_extract.SAFE"
NAMES = ("rmse", "psnr", "ssim", "fsim", "issm", "sre", "sam", "uiq")
BANDS = ("B02", "B03", "B04", "B08")
TILE_BANDS = ("B02", "B03", "B04", "B05", "B08", "B11")
REPETITIONS = 5
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")

WORKER = """
import json, sys, time
from pathlib import Path
from s2sr_qgis.core import jobs
begin = time.perf_counter()
outputs = jobs.run(jobs.SimilarityJob(**json.loads(sys.argv[1])))
seconds = time.perf_counter() - begin
status = Path("/proc/self/status")
if status.is_file():
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    peak = float(lines["VmHWM"].split()[0]) / 2**10
else:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": seconds, "peak_memory_mb": peak, "outputs": outputs}))
"""


def main() -> int:
    """Measure what the command line names and print it as a table; with --json as JSON too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=REPETITIONS, help=f"repetitions, at least {REPETITIONS}")
    parser.add_argument("--side", type=int, default=1024, help="side of the images in pixels")
    parser.add_argument("--uiq-side", type=int, default=256, help="the same for UIQ, which takes the package long")
    parser.add_argument("-m", "--measure", action="append", choices=NAMES, help="all eight by default")
    parser.add_argument("--tile", action="store_true", help="measure a whole tile instead")
    parser.add_argument("--tile-side", type=int, default=10980, help="its side in pixels")
    parser.add_argument("--threads", type=int, help="of the tile's job; all of the processor's by default")
    parser.add_argument("--folder", type=Path, help="where the tile's files are made and kept; a temporary one if not")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.pairs < REPETITIONS:
        parser.error(f"--pairs must be at least {REPETITIONS}: fewer show no spread")
    console = Console(width=140)
    figures: dict[str, Any] = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
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
    seconds: dict[str, list[float]] = {which: [] for which in calls}
    for repetition in range(options.pairs + 1):
        for which in list(calls) if repetition % 2 else list(calls)[::-1]:
            begin = time.perf_counter()
            calls[which]()
            if repetition:  # the first one warms caches up
                seconds[which].append(time.perf_counter() - begin)
    ratios = {
        which: spread([theirs / ours for theirs, ours in zip(seconds["package"], seconds[which], strict=True)])
        for which in ("reference", "up42")
    }
    return {
        "name": name,
        "side": side,
        "bands": len(BANDS),
        "seconds": {w: spread(s) for w, s in seconds.items()},
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
    bands = []
    for name in names:
        (path,) = SAMPLE.rglob(f"*_{name}.jp2")
        with rasterio.open(path) as file:
            image = file.read(1, out_shape=(720, 720))
        bands.append(np.pad(image, [(0, max(side - length, 0)) for length in image.shape], "symmetric"))
    x = np.stack(bands)[:, :side, :side]
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
    cols = np.pad(np.arange(width), (0, side - width), "symmetric") if side > width else np.arange(side)
    rows = np.pad(np.arange(height), (0, side - height), "symmetric") if side > height else np.arange(side)
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


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def speed_table(figures: dict[str, Any]) -> Table:
    """A row a measure."""
    shown = Table(title=f"one core, uint16, {figures['pairs']} pairs", box=None, title_justify="left")
    for heading in ("", "pixels", "package s", "reference s", "times", "up42 s", "times"):
        shown.add_column(heading, justify="right" if heading else "left")
    for row in figures["measures"]:
        seconds = row["seconds"]
        cells = [f"{row['side']}² x {row['bands']}", f"{seconds['package']['median']:.3f}"]
        for definition in ("reference", "up42"):
            cells += [f"{seconds[definition]['median']:.4f}", _range(row["ratio"][definition])]
        shown.add_row(row["name"], *cells)
    return shown


def tile_table(figures: dict[str, Any]) -> Table:
    """Time, memory and the scores of a tile."""
    title = f"{figures['side']}² x {figures['bands']}, uint16, threads: {figures['threads']}"
    shown = Table(title=title, box=None, title_justify="left", show_header=False)
    shown.add_row("seconds", f"{figures['seconds']:.0f}")
    shown.add_row("peak memory, MB", f"{figures['peak_memory_mb']:.0f}")
    for name, total in figures["scores"].items():
        shown.add_row(name, "not defined" if total is None else f"{total:.6g}")
    return shown


def _range(values: dict[str, float]) -> str:
    low, middle, high = (f"{values[key]:.1f}" for key in ("lowest", "median", "highest"))
    return f"{middle} ({low} to {high})"


if __name__ == "__main__":
    sys.exit(main())
