"""`make bench`: speed and memory of the bundled models beside the DSen2 network, then their accuracy.

Both run in ONNX Runtime through the same code (tiles, halo, mirrored edges), with the same threads and tiles, on a
mosaic of a scene. DSen2's weights are random, because speed does not depend on them; its model folder is exported once
into `.cache/bench`. Each repetition times both, in turn first, so that what else the machine does strikes both; the
ratio is taken within a repetition. Memory is the peak of a process of its own that loads the model and runs it once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from s2sr_qgis.core.inference.model import TILE, bundled_models, find_model, load_model
from s2sr_qgis.core.raster.grid import Window
from s2sr_qgis.core.scene import open_scene

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "samples" / "S2_MSIL1C_T18SVG_extract.SAFE"
CACHE = ROOT / ".cache" / "bench"
REPETITIONS = 5


def main() -> int:
    """Measure what the command line names and print it as a table; with --json as JSON too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", default=str(SAMPLE), help="any scene; the sample by default")
    parser.add_argument("--model", action="append", help="bundled name or folder; all bundled ones by default")
    parser.add_argument("--side", type=int, default=720, help="side of the mosaic in 10 m pixels")
    parser.add_argument("--pairs", type=int, default=REPETITIONS, help=f"repetitions, at least {REPETITIONS}")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="all of the processor's by default")
    parser.add_argument("--tile-size", type=int, default=TILE, help="side of a window in 10 m pixels")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--data", type=Path, help="folder of the test scenes, for the accuracy")
    options = parser.parse_args()
    if options.pairs < REPETITIONS:
        parser.error(f"--pairs must be at least {REPETITIONS}: fewer show no spread")
    options.side = max(options.side // 6, 1) * 6
    names = options.model or list(bundled_models())
    if not names:
        parser.error("no models are bundled; name one with --model")
    console = Console()
    results = [measure(name, options) for name in names]
    console.print(table(results, options))
    if options.json:
        machine = {"processor": platform.processor() or platform.machine(), "threads": options.threads}
        setting = {"side": options.side, "tile_size": options.tile_size, "scene": options.scene}
        text = json.dumps({**machine, **setting, "models": results}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    if options.data and options.data.is_dir():
        command = [sys.executable, str(ROOT / "benchmarks" / "accuracy.py"), "--data", str(options.data)]
        return subprocess.run(command, check=False).returncode
    console.print("Accuracy: not measured, --data names no folder of test scenes.")
    return 0


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Speed, ratio and memory of one model and of DSen2 for the same task."""
    ours = find_model(name)
    task = load_model(ours, "cpu").card.task
    theirs = CACHE / f"dsen2_{task}"
    if not theirs.exists():
        theirs.parent.mkdir(parents=True, exist_ok=True)
        alone(export_dsen2, task, theirs)
    folders = {"model": ours, "dsen2": theirs}
    models = {which: load_model(folder, "cpu", options.threads) for which, folder in folders.items()}
    bands = mosaic(options.scene, models["model"].card.input_bands, options.side)
    pixels = options.side**2 / 1e6
    speeds: dict[str, list[float]] = {which: [] for which in models}
    for repetition in range(options.pairs + 1):
        order = list(models) if repetition % 2 else list(models)[::-1]
        for which in order:
            begin = time.perf_counter()
            models[which].predict(bands, options.tile_size)
            if repetition:  # the first one warms caches and ONNX Runtime's memory up
                speeds[which].append(pixels / (time.perf_counter() - begin))
    ratios = [a / b for a, b in zip(speeds["model"], speeds["dsen2"], strict=True)]
    figures = {
        which: {
            "mpx_per_s": spread(speeds[which]),
            "peak_memory_mb": alone(peak_memory, str(folders[which]), bands, options.threads, options.tile_size),
            "mflop_per_pixel": models[which].card.mflop_per_pixel,
        }
        for which in models
    }
    return {"name": models["model"].card.name, "task": task, "pairs": options.pairs, **figures, "ratio": spread(ratios)}


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def mosaic(source: str, names: list[str], side: int) -> dict[str, np.ndarray]:
    """Reflectance of a scene's bands over ``side`` × ``side`` pixels of 10 m, mirrored where the scene is smaller."""
    with open_scene(source) as scene:
        width, height = (min(side, length) // 6 * 6 for length in (scene.grid.width, scene.grid.height))
        pixels = scene.read(names, Window(0, 0, width, height))
        bands = {}
        for name in names:
            image, n = pixels.data[name], side * 10 // scene.bands[name].resolution
            bands[name] = np.pad(image, [(0, max(n - length, 0)) for length in image.shape], "symmetric")[:n, :n]
    return bands


def alone(function: Any, *arguments: Any) -> Any:
    """Call a function in a fresh process, so that nothing it loads stays."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory(folder: str, bands: dict[str, np.ndarray], threads: int, tile: int) -> float | None:
    """Peak memory (MB) of this process after one prediction; None where the system does not tell."""
    load_model(folder, "cpu", threads).predict(bands, tile)
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent had before this process began
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return float(lines["VmHWM"].split()[0]) / 2**10
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def export_dsen2(task: str, folder: Path) -> None:
    """Write DSen2 (6 blocks, 128 features) with random weights as a model folder, by the exporter of trained ones."""
    from s2sr_qgis.core.dataset.card import layout
    from s2sr_qgis.core.networks import build_network, element_spec
    from s2sr_qgis.core.progress import Progress
    from s2sr_qgis.core.training.export import describe, write_model
    from s2sr_qgis.core.training.run_card import RunCard

    run = RunCard(
        network="dsen2", task=task, scaling=1e-4, tensors=layout(task, 6), sources=[], backend="", precision="float32"
    )
    network = build_network("dsen2", element_spec(*run.channels()))
    card = describe(network, run, name=folder.name, title="DSen2 with random weights, for speed alone")
    write_model(network, card, folder, saved_model=False, patches=None, progress=Progress())


def table(results: list[dict[str, Any]], options: argparse.Namespace) -> Table:
    """A row a model, DSen2 for the same task below it."""
    title = f"{options.side} x {options.side} pixels, {options.threads} threads, tiles of {options.tile_size}"
    shown = Table(title=title, box=None, title_justify="left")
    for heading in ("", "MFLOP/px", "MPx/s", "times DSen2", "peak memory MB"):
        shown.add_column(heading, justify="right" if heading else "left")
    for result in results:
        for which, label in (("model", result["name"]), ("dsen2", f"DSen2, {result['task']}")):
            row = result[which]
            memory = row["peak_memory_mb"]
            shown.add_row(
                label,
                f"{row['mflop_per_pixel']:.2f}",
                _range(row["mpx_per_s"], 3),
                _range(result["ratio"], 1) if which == "model" else "",
                "" if memory is None else f"{memory:.0f}",
            )
    return shown


def _range(values: dict[str, float], decimals: int) -> str:
    low, middle, high = (f"{values[key]:.{decimals}f}" for key in ("lowest", "median", "highest"))
    return f"{middle} ({low} to {high})"


if __name__ == "__main__":
    sys.exit(main())
