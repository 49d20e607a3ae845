"""A whole tile: SAFE in, 12-band GeoTIFF out; wall time, processor time, peak memory, and where the time goes.

    python benchmarks/tile.py [--models NAME NAME] [--threads N] [--tall] [--start]

The product is made once out of the sample's real pixels, mirrored to full size (600 MB in `.cache/bench`, some
minutes), as lossless JPEG 2000 with the inner tiles of real products. The job runs in a fresh process. With --tall it
runs on a product twice as high as well, whose peak memory should be the same; with --start, the time from the command
to its help and from the command to the file of a region of 3 km are measured too (median of five).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mosaic import TILE, make_product
from rich.console import Console
from rich.table import Table
from timing import CACHE, ROOT, SAMPLE

from s2sr_qgis.core.scene import open_scene

STAGES = ("decode", "network", "encode", "rest")
CHILD = (
    "import json, sys; from s2sr_qgis.core import jobs; print(json.dumps(jobs.run(jobs.parse(json.load(sys.stdin)))))"
)


def main() -> int:
    """Measure what the command line names and print it; with --json as JSON too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", default=str(SAMPLE), help="scene whose pixels are mirrored; the sample by default")
    parser.add_argument("--models", nargs="*", default=[], help="bundled names or folders; what fits by default")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="all of the processor's by default")
    parser.add_argument("--side", type=int, default=TILE, help="of the product in 10 m pixels, a multiple of 6")
    parser.add_argument("--compression", choices=("deflate", "zstd"), default="deflate")
    parser.add_argument("--tile-size", type=int, help="side of a window; chosen by default")
    parser.add_argument("--precision", default="auto", help="variant of the models; the fastest fitting by default")
    parser.add_argument("--tall", action="store_true", help="also a product of twice the height")
    parser.add_argument("--start", action="store_true", help="also the time to the help and to a region of 3 km")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.side % 6:
        parser.error("--side must be a multiple of 6: pixels of 60 m")
    CACHE.mkdir(parents=True, exist_ok=True)
    heights = [options.side, 2 * options.side] if options.tall else [options.side]
    products = [make_product(options.scene, CACHE, height, options.side) for height in heights]
    results = [measure(product, options) for product in products]
    Console().print(table(results, options))
    start = measure_start(products[0], options) if options.start else None
    if start:
        Console().print(
            f"s2sr --help {start['help']:.2f} s, a region of 3 km {start['region']:.2f} s (medians of five)"
        )
    if options.json:
        found = {"threads": options.threads, "runs": results, "start": start}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(product: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Time, memory and profile of one job in a fresh process."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        job = {
            "job": "super_resolve",
            "scene": str(product),
            "output": str(Path(folder) / "out.tif"),
            "models": options.models,
            "threads": options.threads,
            "tile_size": options.tile_size,
            "compression": options.compression,
            "precision": options.precision,
            "device": "cpu",
        }
        begin = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        if child.stdin is None or child.stdout is None:
            raise SystemExit("The job has no pipes.")
        child.stdin.write(json.dumps(job))
        child.stdin.close()
        text = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"The job on {product.name} failed; see above.")
        outputs = json.loads(text)
        size = Path(outputs["output"]).stat().st_size
    pixels = outputs["width"] * outputs["height"] / 1e6
    return {
        "product": product.name,
        "megapixels": pixels,
        "models": outputs["models"],
        "wall_s": wall,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_memory_mb": used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
        "mpx_per_s": pixels / wall,
        "file_mb": size / 2**20,
        "seconds": outputs["seconds"],
    }


def measure_start(product: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds from the command to its help, and to the finished file of 3 x 3 km in the middle of the product."""
    with open_scene(product) as scene:
        left, bottom, right, top = scene.grid.bounds
    east, north = (left + right) / 2, (bottom + top) / 2
    command = [sys.executable, "-m", "training_cli.main"]
    models = [word for name in options.models for word in ("--model", name)]
    folder = Path(tempfile.mkdtemp(dir=CACHE))
    region = ["super-resolve", str(product), "-o", str(folder / "out.tif"), "--roi"]
    region += [f"{east},{north},{east + 3000},{north + 3000}", "--threads", str(options.threads), *models]
    times: dict[str, list[float]] = {"help": [], "region": []}
    try:
        for _ in range(5):
            for name, words in (("help", ["--help"]), ("region", region)):
                begin = time.perf_counter()
                subprocess.run([*command, *words], check=True, capture_output=True, cwd=ROOT)
                times[name].append(time.perf_counter() - begin)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {name: statistics.median(values) for name, values in times.items()}


def table(results: list[dict[str, Any]], options: argparse.Namespace) -> Table:
    """A column a run."""
    shown = Table(title=f"{options.threads} threads", box=None, title_justify="left")
    shown.add_column("")
    for result in results:
        shown.add_column(result["product"].removesuffix(".SAFE"), justify="right")
    shares = [{stage: row["seconds"][stage] / sum(row["seconds"].values()) for stage in STAGES} for row in results]
    rows = {
        "models": [", ".join(row["models"]) for row in results],
        "wall time s": [f"{row['wall_s']:.0f}" for row in results],
        "processor time s": [f"{row['cpu_s']:.0f}" for row in results],
        "MPx/s": [f"{row['mpx_per_s']:.2f}" for row in results],
        "peak memory MB": [f"{row['peak_memory_mb']:.0f}" for row in results],
        "file MB": [f"{row['file_mb']:.0f}" for row in results],
        **{
            stage: [
                f"{row['seconds'][stage]:.0f} s  {100 * share[stage]:.0f} %"
                for row, share in zip(results, shares, strict=True)
            ]
            for stage in STAGES
        },
    }
    for name, cells in rows.items():
        shown.add_row(name, *cells)
    return shown


if __name__ == "__main__":
    sys.exit(main())
