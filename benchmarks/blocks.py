"""Which kind of block the fast 20 m network should be made of: several at one cost, trained alike, scored, timed.

    KERAS_BACKEND=torch OMP_NUM_THREADS=1 python benchmarks/blocks.py train FOLDER --train DATASET... --steps 1000
    python benchmarks/blocks.py measure FOLDER --valid DATASET...

`train` writes a run for each kind into FOLDER, under any Keras backend. `measure` (TensorFlow, for the export) writes
each as ONNX in float32 and in 8 bits with ranges from training patches, scores both on every patch of the datasets
behind --valid, and times them in turn on one thread without halo; ratios are of processor time, within a repetition.
Give it datasets of scenes that the training does not see; the table says where it has seen one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from block_kinds import GUIDES, KINDS, Reparameterised, fold
from rich.console import Console
from rich.table import Table
from run import mosaic
from timing import REPETITIONS, SAMPLE, clocked, in_turn, ratio, shown

from s2sr_qgis.core.dataset.card import read_dataset
from s2sr_qgis.core.inference.card import ModelFile, sha256
from s2sr_qgis.core.inference.model import load_model
from s2sr_qgis.core.jobs import TrainJob
from s2sr_qgis.core.networks import NETWORKS
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.training.export import ONNX, describe, write_model
from s2sr_qgis.core.training.parity import outputs
from s2sr_qgis.core.training.quantize import calibrated, write_int8
from s2sr_qgis.core.training.run_card import read_run_card
from s2sr_qgis.core.training.score import score
from s2sr_qgis.core.training.train import load_network, train
from s2sr_qgis.core.training.variants import INT8, calibration_patches

WARMUP, EPOCH = 100, 100
"""Steps."""

EMA = 0.99
"""Of the running mean of weights: the usual 0.999 would still hold the first of so few steps."""


def register() -> None:
    """Let `build_network` know the kinds, each by its name."""
    NETWORKS.update({kind: network for kind, (network, _) in KINDS.items()})


class Said(Progress):
    """Prints what a job says."""

    def log(self, text: str, level: str = "info") -> None:
        print(text, flush=True)


def train_all(options: argparse.Namespace) -> None:
    """Train the kinds one after the other, each from scratch with the same batches."""
    options.folder.mkdir(parents=True, exist_ok=True)
    length = min(EPOCH, options.steps)
    for kind in options.kinds or KINDS:
        folder = options.folder / slug(kind)
        if (folder / "run.yaml").is_file():
            continue
        job = TrainJob(
            datasets=[data.resolve() for data in options.train],
            output=folder,
            network=kind,
            network_options={**KINDS[kind][1], **GUIDES},
            learning_rate=options.learning_rate,
            warmup_steps=min(WARMUP, options.steps // 2),
            ema=EMA,
            epochs=math.ceil(options.steps / length),
            steps_per_epoch=length,
            max_minutes=options.minutes,
            early_stopping=0,
            mixed_precision=options.precision,
            images=0,
            seed=options.seed,
        )
        train(job, Said())


def measure_all(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Figures of each kind that has been trained."""
    there = [kind for kind in KINDS if (options.folder / slug(kind) / "run.yaml").is_file()]
    if not there:
        raise SystemExit(f"{options.folder} holds no trained kind; run the part 'train' first.")
    held = {folder.name: read_dataset(folder) for folder in options.valid}
    arrays = {name: dict(data.arrays("train" if data.count("train") else "test")) for name, data in held.items()}
    rows: dict[str, dict[str, Any]] = {}
    models = {}
    for kind in there:
        run, target = options.folder / slug(kind), options.folder / f"{slug(kind)}.model"
        rows[kind] = row = exported(run, target)
        row["seen"] = [name for name, data in held.items() if _names(data) & set(row["sources"])]
        for precision in ("float32", "int8"):
            model = load_model(target, "cpu", 1, precision)
            models[kind, precision] = model
            errors = {
                name: score(partial(outputs, model), [one], model.card.inputs[-1].name, model.card.output_bands, Said())
                for name, one in arrays.items()
            }
            row[precision] = {name: figures["rmse_mean"] for name, figures in errors.items()}
            row["bicubic"] = {name: figures["bicubic"]["rmse_mean"] for name, figures in errors.items()}
    if options.pairs:
        bands = mosaic(str(SAMPLE), next(iter(models.values())).card.input_bands, options.side)
        calls = {
            f"{kind}/{how}": partial(clocked, partial(model.infer, bands)) for (kind, how), model in models.items()
        }
        in_turn(calls, 1)  # warms caches and ONNX Runtime's memory up
        runs = in_turn(calls, options.pairs)
        for kind, row in rows.items():
            for how in ("float32", "int8"):
                row[f"times_{how}"] = ratio(runs[f"{there[0]}/{how}"], runs[f"{kind}/{how}"], "processor")
    return rows


def exported(run: Path, folder: Path) -> dict[str, Any]:
    """Write a run as a model folder with both precisions, folded where it can be, unless it is there; its costs."""
    card = read_run_card(run)
    network, _ = load_network(run, card)
    if isinstance(network, Reparameterised):
        trained = network.model
        network = card.model_copy(update={"network_options": {**card.network_options, "folded": True}}).build()
        fold(trained, network.model)
    described = describe(network, card, name=folder.name, title=f"blocks: {card.network}")
    described.multiple = max(described.multiple, network.coarseness)

    def narrow(part: Path) -> None:
        found = calibrated(network.model, calibration_patches(run))
        if write_int8(network.model, part / ONNX, part / INT8, found) < len(found):
            raise SystemExit(f"Not every convolution of {run} is in its ONNX file.")
        described.files.append(ModelFile(file=INT8, precision="int8", sha256=sha256(part / INT8)))

    if not folder.exists():
        write_model(network, described, folder, saved_model=False, patches=None, progress=Said(), more=narrow)
    state = json.loads((run / "state.json").read_text(encoding="utf-8"))
    return {
        "options": {key: value for key, value in card.network_options.items() if key not in GUIDES},
        "parameters": described.parameters,
        "mflop_per_pixel": described.mflop_per_pixel,
        "radius": described.radius,
        "steps": state["step"],
        "minutes": card.minutes,
        "sources": [source.name for source in card.sources],
    }


def slug(kind: str) -> str:
    """A kind's name as that of a folder."""
    return kind.replace(",", "").replace(" ", "_")


def _names(data: Any) -> set[str]:
    return {source.name for source in data.card.sources}


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """A row a kind; errors in float32 and, behind the stroke, in 8 bits."""
    result = Table(title="RMSE in DN: float32 / int8", box=None, title_justify="left")
    sets = list(next(iter(rows.values()))["float32"])
    seen = {name for row in rows.values() for name in row["seen"]}
    headings = [f"{name}{' (seen in training)' if name in seen else ''}" for name in sets]
    times = (f"times {next(iter(rows))}, float32", "int8")
    for heading in ("", "parameters", "MFLOP/px", "radius", "steps", "min", *headings, "mean", *times):
        result.add_column(heading, justify="right" if heading else "left")
    first = next(iter(rows.values()))
    errors = [f"{first['bicubic'][name]:.1f}" for name in sets]
    result.add_row("bicubic", *[""] * 5, *errors, f"{_mean(first['bicubic']):.1f}", "", "")
    for kind, row in rows.items():
        result.add_row(
            kind,
            f"{row['parameters']:,}",
            f"{row['mflop_per_pixel']:.3f}",
            str(row["radius"]),
            str(row["steps"]),
            f"{row['minutes']:.1f}",
            *(f"{row['float32'][name]:.1f} / {row['int8'][name]:.1f}" for name in sets),
            f"{_mean(row['float32']):.1f} / {_mean(row['int8']):.1f}",
            *(shown(row[key], 2) if key in row else "" for key in ("times_float32", "times_int8")),
        )
    return result


def _mean(errors: dict[str, float]) -> float:
    return sum(errors.values()) / len(errors)


def main() -> int:
    """Train or measure, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    training = parts.add_parser("train", help="train the kinds that FOLDER lacks")
    training.add_argument("--train", nargs="+", type=Path, required=True, help="dataset folders of the 20 m task")
    training.add_argument("--steps", type=int, default=1000, help="of 16 patches, for each kind")
    training.add_argument("--minutes", type=float, help="stop each kind after so many, too")
    training.add_argument("--kinds", nargs="+", choices=list(KINDS), help="all of them where not given")
    training.add_argument("--learning-rate", type=float, default=1e-3)
    training.add_argument("--precision", default="auto", help="auto, off, bfloat16")
    training.add_argument("--seed", type=int, default=0)
    measuring = parts.add_parser("measure", help="export, score and time the kinds in FOLDER")
    measuring.add_argument("--valid", nargs="+", type=Path, required=True, help="dataset folders of other scenes")
    measuring.add_argument("--side", type=int, default=480, help="side of the timed image in 10 m pixels")
    measuring.add_argument("--pairs", type=int, default=REPETITIONS, help="repetitions; 0: no speed")
    measuring.add_argument("--json", type=Path, help="file for the figures")
    for part in (training, measuring):
        part.add_argument("folder", type=Path, help="folder of the runs")
    options = parser.parse_args()
    register()
    if options.part == "train":
        train_all(options)
        return 0
    rows = measure_all(options)
    Console(width=180).print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
