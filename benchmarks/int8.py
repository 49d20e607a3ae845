"""What each measure of 8-bit quantisation costs and gives: RMSE on the test scenes, speed beside float32.

    python benchmarks/int8.py --data FOLDER RUN...

RUN: folders of trainings whose datasets must still be there. The rows quantise the network after training, with ranges
from real patches; a run with quantisation in the loop has its trained ranges in a last row. Speed is the network's
with tiles and halo, in turn with float32; ratios are of processor time, within a repetition.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from accuracy import means
from rich.console import Console
from rich.table import Table
from run import mosaic
from timing import REPETITIONS, SAMPLE, clocked, in_turn, ratio, shown

from s2sr_qgis.core.inference.card import ModelFile, read_card, sha256, write_card
from s2sr_qgis.core.inference.model import load_model
from s2sr_qgis.core.networks.quantized import ranges
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.training.export import ONNX, describe, write_model
from s2sr_qgis.core.training.quantize import calibrated, write_int8
from s2sr_qgis.core.training.run_card import read_run_card
from s2sr_qgis.core.training.train import load_network
from s2sr_qgis.core.training.variants import INT8, calibration_patches

MEASURES: dict[str, dict[str, Any]] = {
    "ranges up to the largest values": {"rule": "minmax", "ends": True, "each": False, "sums": False},
    "both ends in float": {"rule": "minmax", "ends": False, "sums": False},
    "and ranges of least squared error": {"rule": "mse", "ends": False, "sums": False},
    "or ranges of a quantile": {"rule": "percentile", "ends": False, "sums": False},
    "and two bytes at both ends": {"rule": "percentile", "ends": True, "sums": False},
    "and residual sums in 8 bits": {"rule": "percentile", "ends": True, "sums": True},
}
"""Each row changes the one before it in what its name says; sums are in float where it does not say otherwise."""

TRAINED = "in the loop"


def main() -> int:
    """Measure the runs that the command line names, print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of trainings")
    parser.add_argument("--data", type=Path, help="folder of the test scenes, for the accuracy")
    parser.add_argument("--side", type=int, default=480, help="side of the mosaic in 10 m pixels")
    parser.add_argument("--pairs", type=int, default=REPETITIONS, help="repetitions; 0: no speed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    results = {}
    for run in options.runs:
        with tempfile.TemporaryDirectory() as folder:
            results[str(run)] = rows = measure(run, Path(folder), options)
        Console(width=140).print(table(run.name, rows))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(run: Path, folder: Path, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Figures of float32 and of each measure."""
    folders = write_variants(run, folder)
    task = read_card(folders["float32"]).task
    scored = {name: (str(path), "float32" if name == "float32" else "int8") for name, path in folders.items()}
    errors = means(options.data, task, list(scored.values())) if options.data else {}
    rows: dict[str, dict[str, Any]] = {name: {} for name in folders}
    for name, row in rows.items():
        if errors:
            row["rmse"] = errors[scored[name]]
            row["loss_percent"] = 100 * (row["rmse"] / errors[scored["float32"]] - 1)
        row["kilobytes"] = round((folders[name] / (INT8 if name != "float32" else ONNX)).stat().st_size / 1024)
    if options.pairs:
        models = {name: load_model(path, "cpu", options.threads, how) for name, (path, how) in scored.items()}
        bands = mosaic(str(SAMPLE), models["float32"].card.input_bands, options.side)
        calls = {name: partial(clocked, partial(model.predict, bands)) for name, model in models.items()}
        in_turn(calls, 1)  # warms caches and ONNX Runtime's memory up
        runs = in_turn(calls, options.pairs)
        for name, row in rows.items():
            row["times_float32"] = ratio(runs["float32"], runs[name], "processor")
    return rows


def write_variants(run: Path, folder: Path) -> dict[str, Path]:
    """A model folder for float32 and for each measure."""
    card = read_run_card(run)
    network, copy = load_network(run, card, rounded=True)
    plain = folder / "float32"
    described = describe(network, card, name=plain.name, title=plain.name)
    write_model(network, described, plain, saved_model=False, patches=None, progress=Progress())
    patches = calibration_patches(run)
    folders = {"float32": plain}
    for number, (name, how) in enumerate([*MEASURES.items(), (TRAINED, {})]):
        if name == TRAINED and copy is None:
            continue
        rule = {key: value for key, value in how.items() if key != "sums"}
        found = ranges(copy) if name == TRAINED else calibrated(network.model, patches, **rule)
        own = folders[name] = folder / str(number)
        shutil.copytree(plain, own)
        write_int8(network.model, own / ONNX, own / INT8, found, sums=how.get("sums", True))
        variant = read_card(own)
        variant.files.append(ModelFile(file=INT8, precision="int8", sha256=sha256(own / INT8)))
        write_card(variant, own)
    return folders


def table(title: str, rows: dict[str, dict[str, Any]]) -> Table:
    """A row a measure."""
    result = Table(title=title, box=None, title_justify="left")
    for heading in ("", "RMSE DN", "loss %", "times float32", "kB"):
        result.add_column(heading, justify="right" if heading else "left")
    for name, row in rows.items():
        result.add_row(
            name,
            f"{row['rmse']:.2f}" if "rmse" in row else "",
            f"{row['loss_percent']:+.2f}" if "rmse" in row else "",
            shown(row["times_float32"], 2) if "times_float32" in row else "",
            str(row["kilobytes"]),
        )
    return result


if __name__ == "__main__":
    sys.exit(main())
