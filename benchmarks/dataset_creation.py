"""Speed of creating a cross-sensor dataset: the native engine beside real Orfeo ToolBox, on the same files and cores.

    make test-otb                                      # sets Orfeo ToolBox up, once (Debian 12)
    .venv/bin/python benchmarks/dataset_creation.py [--pan-side 4096] [--json FILE]

The chain of OTBTF's tutorial: a Sentinel-2 image superimposed on the XS grid, XS and PAN bundled to a perfect sensor,
pairs of patches cut from the two (32 pixels of XS, 128 of PAN) and written as raw float32. Orfeo ToolBox runs it in the
two ways that there are: its applications in memory behind `engine: otb`, and its applications writing files from which
patches are cut; its own patch applications need OTBTF, so ours cut everywhere. Each contender works in a process of its
own and all take turns; Orfeo ToolBox has all cores, as it does by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Orfeo ToolBox's environment lacks this project

from mosaic import mirrored, sample_band
from timing import REPETITIONS, ROOT, Worker, in_turn, machine, ratio, serve, shown, wall

from s2sr_qgis.core.dataset.cutting import cut_patches
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster.grid import Window
from s2sr_qgis.core.raster.image import FileImage, Image
from s2sr_qgis.core.raster.pansharpening import bundle_to_perfect_sensor
from s2sr_qgis.core.raster.superimpose import superimpose

OTB_PYTHON = ROOT / ".venv-otb" / "bin" / "python"
OTB_ENVIRONMENT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s2sr" / "otb" / "env.sh"
PATCH = 32
BANDS = ("B04", "B03", "B02", "B08")
SPACINGS = {"pan": 1.5, "xs": 6.0, "scene": 10.0}
"""Metres a pixel: SPOT-6 and Sentinel-2."""


def native(folder: Path) -> int:
    """What `s2sr dataset cross-sensor` does by itself."""
    return _lazily(folder, engine="native")


def native_otbtf(folder: Path) -> int:
    """The same with Orfeo ToolBox's very numbers."""
    return _lazily(folder, engine="native", compat="otbtf")


def otb_memory(folder: Path) -> int:
    """Orfeo ToolBox's applications, computing the windows that are read."""
    return _lazily(folder, engine="otb")


def otb_files(folder: Path) -> int:
    """Orfeo ToolBox's applications as the tutorial has them, with files between."""
    from s2sr_qgis.core.raster.otb import run_application, write

    low, target = folder / "low.tif", folder / "target.tif"
    pan, xs, scene = (str(folder / f"{name}.tif") for name in SPACINGS)
    app = run_application("Superimpose", {"inr": xs, "inm": scene})
    write(app, {"out": str(low)}, {"out": "float"})
    app = run_application("BundleToPerfectSensor", {"inp": pan, "inxs": xs})
    write(app, {"out": str(target)}, {"out": "float"})
    with FileImage(low) as one, FileImage(target) as other:
        return _cut(one, other, folder)


def _lazily(folder: Path, **how: Any) -> int:
    with ExitStack() as stack:
        pan, xs, scene = (stack.enter_context(FileImage(folder / f"{name}.tif")) for name in SPACINGS)
        return _cut(superimpose(scene, xs.grid, **how), bundle_to_perfect_sensor(pan, xs, **how), folder)


def _cut(low: Image, target: Image, folder: Path) -> int:
    """Write all pairs of patches; returns how many."""
    times = round(low.grid.spacing / target.grid.spacing)
    places = [
        [Window(col, row, PATCH, PATCH), Window(col * times, row * times, PATCH * times, PATCH * times)]
        for row in range(0, low.grid.height - PATCH + 1, PATCH)
        for col in range(0, low.grid.width - PATCH + 1, PATCH)
    ]
    with (folder / "low.raw").open("wb") as one, (folder / "target.raw").open("wb") as other:
        for _, patches in cut_patches(places, [low, target], Progress()):
            for file, patch in zip((one, other), patches, strict=True):
                file.write(np.ascontiguousarray(patch, np.float32).tobytes())
    return len(places)


CONTENDERS: dict[str, Callable[[Path], int]] = {f.__name__: f for f in (native, native_otbtf, otb_memory, otb_files)}
LABELS = {
    "native": "native",
    "native_otbtf": "native, compat otbtf",
    "otb_memory": "Orfeo ToolBox, in memory",
    "otb_files": "Orfeo ToolBox, files",
}


def main() -> int:
    """Measure and print a table; with --json as JSON too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pan-side", type=int, default=4096, help="side of the panchromatic image in pixels")
    parser.add_argument("--pairs", type=int, default=REPETITIONS, help=f"repetitions, at least {REPETITIONS}")
    parser.add_argument("--otbtf", action="store_true", help="measure the native engine with compat otbtf too")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.pairs < REPETITIONS:
        parser.error(f"--pairs must be at least {REPETITIONS}: fewer show no spread")
    if not (OTB_PYTHON.is_file() and OTB_ENVIRONMENT.is_file()):
        print("Orfeo ToolBox is not there: `make test-otb` installs it on Debian 12.")
        return 1
    with tempfile.TemporaryDirectory(prefix="s2sr_bench_") as temporary, ExitStack() as stack:
        workers = {}
        for name in [name for name in CONTENDERS if options.otbtf or name != "native_otbtf"]:
            folder = Path(temporary) / name
            folder.mkdir()
            make_images(folder, options.pan_side)
            of_otb = name.startswith("otb")
            command = [str(OTB_PYTHON if of_otb else sys.executable), __file__, "--contender"]
            workers[name] = stack.enter_context(
                Worker([*command, name, str(folder)], otb_environment() if of_otb else None)
            )
        memory = {name: worker.ask()["peak_memory_mb"] for name, worker in workers.items()}
        runs = in_turn({name: worker.take for name, worker in workers.items()}, options.pairs)
    fastest = min(("otb_memory", "otb_files"), key=lambda name: wall(runs[name])["median"])
    rows = {
        name: {
            "seconds": wall(taken),
            "times": ratio(runs[fastest], taken),
            "times_processor": ratio(runs[fastest], taken, "processor"),
            "peak_memory_mb": memory[name],
        }
        for name, taken in runs.items()
    }
    title = f"PAN {options.pan_side}², {len(BANDS)} bands, {os.cpu_count()} cores, {options.pairs} pairs"
    show(title, rows, LABELS[fastest])
    if options.json:
        options.json.write_text(json.dumps({**machine(), "rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0


def show(title: str, rows: dict[str, dict[str, Any]], fastest: str) -> None:
    """Print a row a contender. ``fastest``: what the ratios are to."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=None, title_justify="left")
    for heading in ("", "seconds", f"times {fastest}", "by processor time", "peak memory MB"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in rows.items():
        peak = row["peak_memory_mb"]
        cells = shown(row["seconds"], 1), shown(row["times"], 2), shown(row["times_processor"], 2)
        table.add_row(LABELS[name], *cells, "" if peak is None else f"{peak:.0f}")
    Console(width=120).print(table)


def make_images(folder: Path, side: int) -> None:
    """PAN, XS and scene over the same ground: the sample's pixels, mirrored to the size, as uncompressed GeoTIFFs."""
    for name, spacing in SPACINGS.items():
        n = int(side * SPACINGS["pan"] / spacing)
        names = BANDS[:1] if name == "pan" else BANDS
        pixels = [mirrored(sample_band(band), n, n) for band in names]
        profile = {"driver": "GTiff", "dtype": "uint16", "count": len(names), "width": n, "height": n, "tiled": True}
        place = {"crs": "EPSG:32618", "transform": from_origin(400000, 4300000, spacing, spacing)}
        with rasterio.open(folder / f"{name}.tif", "w", **profile, **place) as file:
            file.write(np.stack(pixels))


def otb_environment() -> dict[str, str]:
    """What the shell script that tools/setup_otb.sh writes sets."""
    told = subprocess.run(["sh", "-c", f'. "{OTB_ENVIRONMENT}" && env'], capture_output=True, text=True, check=True)
    pairs = (line.split("=", 1) for line in told.stdout.splitlines() if "=" in line)
    return {name: value for name, value in pairs if name in ("OTB_APPLICATION_PATH", "PYTHONPATH")}


def contend(name: str, folder: Path) -> None:
    """Make the dataset as often as `timing.Worker` asks."""
    serve(lambda: CONTENDERS[name](folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contender"]:
        contend(sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(main())
