"""`make bench`: our models beside DSen2 by three programs and bicubic; speed, memory, accuracy, and a picture of them.

All sharpen the same mosaic of a scene with the same number of threads, each in a process of its own, ours with tiles of
their own choice, the others with those that are best for them. Each repetition times everybody, in turn first, so that
what else the machine does strikes all; a ratio is taken within a repetition. Peak memory is that of a fresh process
that loads the contender and sharpens the mosaic once. Where --data names the test scenes, the table tells the error on
them too (accuracy.py), and the picture in docs/images is drawn again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import accuracy
import numpy as np
from mosaic import mirrored
from peers import REFERENCE, Contender, contenders
from rich.console import Console
from rich.table import Table
from timing import REPETITIONS, ROOT, SAMPLE, Worker, in_turn, machine, ratio, shown, spread

from s2sr_qgis.core.inference.card import read_card
from s2sr_qgis.core.inference.model import bundled_models, find_model
from s2sr_qgis.core.raster.grid import Window
from s2sr_qgis.core.scene import open_scene

LEAST = 4.0
"""Seconds that everybody is timed in a repetition, at least: what takes less is done several times."""

TRIAL = 480
"""Side of the corner that tiles are tried on: the slowest would take an hour for all."""

PICTURE = ROOT / "docs" / "images" / "speed_accuracy.png"


def main() -> int:
    """Measure what the command line names and print a table a task; with --json as JSON too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", default=str(SAMPLE), help="any scene; the sample by default")
    parser.add_argument("--model", action="append", help="bundled name or folder; all bundled ones by default")
    parser.add_argument("--only", action="append", help="only contenders whose name has this in it, and DSen2")
    parser.add_argument("--side", type=int, default=1200, help="side of the mosaic in 10 m pixels")
    parser.add_argument("--pairs", type=int, default=REPETITIONS, help=f"repetitions, at least {REPETITIONS}")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="all of the processor's by default")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--data", type=Path, help="folder of the test scenes, for the accuracy")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where the picture goes, if there is accuracy")
    options = parser.parse_args()
    if options.pairs < REPETITIONS:
        parser.error(f"--pairs must be at least {REPETITIONS}: fewer show no spread")
    options.side = max(options.side // 6, 1) * 6
    names = options.model or list(bundled_models())
    if not names:
        parser.error("no models are bundled; name one with --model")
    console = Console(width=160)
    figures: dict[str, list[dict[str, Any]]] = {}
    for task in dict.fromkeys(read_card(find_model(name)).task for name in names):
        if task == "cross-sensor":
            continue
        everybody = contenders(task, names, options.threads, console.print)
        if options.only:
            everybody = [c for c in everybody if c.label == REFERENCE or any(part in c.label for part in options.only)]
        rows = measure(everybody, pixels_of(task, names), options, console)
        errors = accuracy.means(options.data, task, [c.scored for c in everybody if c.scored]) if options.data else {}
        for contender, row in zip(everybody, rows, strict=True):
            row["rmse"] = errors.get(contender.scored) if contender.scored else None
        figures[task] = rows
        console.print(table(task, rows, options))
    if options.json:
        setting = {"threads": options.threads, "side": options.side, "scene": options.scene, "pairs": options.pairs}
        options.json.write_text(
            json.dumps({**machine(), **setting, "tasks": figures}, indent=2) + "\n", encoding="utf-8"
        )
    if any(row["rmse"] for rows in figures.values() for row in rows):
        import curve

        curve.draw(figures, f"{options.threads} processor cores", options.picture)
        console.print(f"Picture: {options.picture}")
    else:
        console.print("RMSE: not measured, --data names no folder of test scenes.")
    return 0


def pixels_of(task: str, names: list[str]) -> list[str]:
    """The bands that all contenders of a task need together: those of our models of it, which see every band."""
    bands: list[str] = []
    for name in names:
        card = read_card(find_model(name))
        bands += card.input_bands if card.task == task else []
    wanted = ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12"]
    return list(dict.fromkeys([*wanted, *(["B01", "B09"] if task == "60m" else []), *bands]))


def measure(
    everybody: list[Contender], names: list[str], options: argparse.Namespace, console: Console
) -> list[dict[str, Any]]:
    """Speed, ratio to DSen2 and memory of each contender; those that fail are reported, without figures."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        pixels = Path(folder) / "pixels.npz"
        np.savez(pixels, **mosaic(options.scene, names, options.side))
        workers: dict[str, Worker] = {}
        best: dict[str, int | None] = {}
        for contender in everybody:
            if contender.spec is None:
                continue
            worker = stack.enter_context(start(contender, pixels))
            try:
                best[contender.label] = best_side(worker, contender, options.side)
            except RuntimeError as error:
                console.print(f"{contender.label} cannot be measured: {error}")
                continue
            workers[contender.label] = worker
        # Trying the tiles has warmed everybody up.
        runs = in_turn(
            {label: partial(worker.take, tile=best[label], least=LEAST) for label, worker in workers.items()},
            options.pairs,
        )
        rows = []
        for contender in everybody:
            label = contender.like or contender.label
            row: dict[str, Any] = {"label": contender.label, "group": contender.group, "like": contender.like}
            row |= {"parameters": contender.parameters, "mflop_per_pixel": contender.mflop_per_pixel}
            row |= {"tile": best.get(label), "mpx_per_s": None, "ratio": None, "peak_memory_mb": None}
            if label in runs:
                row["mpx_per_s"] = spread([options.side**2 / 1e6 / taken.wall for taken in runs[label]])
                row["ratio"] = ratio(runs[REFERENCE], runs[label])
                row["ratio_processor"] = ratio(runs[REFERENCE], runs[label], "processor")
                if contender.spec:
                    with start(contender, pixels) as fresh:
                        row["peak_memory_mb"] = fresh.ask(tile=best[label])["peak_memory_mb"]
            rows.append(row)
    return rows


def start(contender: Contender, pixels: Path) -> Worker:
    """A process that has loaded a contender."""
    script = Path(__file__).with_name("contender.py")
    return Worker([str(contender.python), str(script), json.dumps(contender.spec), str(pixels)])


def best_side(worker: Worker, contender: Contender, side: int) -> int | None:
    """The side of tiles with which a contender is fastest on a corner of the pixels; each is tried twice."""
    part = min(side, TRIAL)
    sides = [s for s in contender.sides if s is None or s <= part]
    worker.ask(tile=sides[0], part=part)
    if len(sides) == 1:
        return sides[0]
    seconds = {s: min(worker.take(tile=s, part=part).wall for _ in range(2)) for s in sides}
    return min(seconds, key=lambda s: seconds[s])


def mosaic(source: str, names: list[str], side: int) -> dict[str, np.ndarray]:
    """Reflectance of a scene's bands over ``side`` × ``side`` pixels of 10 m, mirrored where the scene is smaller."""
    with open_scene(source) as scene:
        width, height = (min(side, length) // 6 * 6 for length in (scene.grid.width, scene.grid.height))
        pixels = scene.read(names, Window(0, 0, width, height))
        bands = {}
        for name in names:
            image, n = pixels.data[name], side * 10 // scene.bands[name].resolution
            bands[name] = mirrored(image, n, n)
    return bands


def table(task: str, rows: list[dict[str, Any]], options: argparse.Namespace) -> Table:
    """A row a contender."""
    title = f"{task} task, {options.side} x {options.side} pixels, {options.threads} threads, {options.pairs} pairs"
    shape = Table(title=title, box=None, title_justify="left")
    headings = ("parameters", "MFLOP/px", "tile", "MPx/s", "times DSen2", "by processor time", "memory MB", "RMSE DN")
    for heading in ("", *headings):
        shape.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        cells = [row["label"], *("",) * 7]
        if row["parameters"]:
            cells[1:3] = f"{row['parameters']:,}", f"{row['mflop_per_pixel']:.2f}"
        if row["mpx_per_s"] and not row["like"]:
            cells[3] = str(row["tile"] or "own")
            cells[4:6] = shown(row["mpx_per_s"], 3), shown(row["ratio"], 1)
            cells[6] = f"{row['ratio_processor']['median']:.1f}"
            cells[7] = "" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:.0f}"
        shape.add_row(*cells, f"{row['rmse']:.1f}" if row["rmse"] else "")
    scored = [row for row in rows if row["group"] == "dsen2" and row["rmse"]]
    if len(scored) > 1:
        better = min(scored, key=lambda row: row["rmse"])
        shape.caption = f"The better DSen2 on these scenes: {better['label']} ({better['rmse']:.1f})."
        shape.caption_justify = "left"
    return shape


if __name__ == "__main__":
    sys.exit(main())
