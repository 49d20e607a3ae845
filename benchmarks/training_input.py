"""What training loses to its input: samples a second from a dataset on disk beside the same step on a batch in memory.

    .venv/bin/python benchmarks/training_input.py [--network coarsenet] [--json FILE]

Both fit the same network with the same loss and optimiser. One is fed as `s2sr train` feeds it: patches of a dataset
that is made of the sample, shuffled, turned and recoloured (`core.training.batches`). The other gets one such batch
again and again. They take turns, in one process; the loss is how much longer a step takes when it is fed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from timing import REPETITIONS, SAMPLE, Taken, clocked, in_turn, machine, shown, spread

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from s2sr_qgis.core import jobs
from s2sr_qgis.core.dataset.card import read_dataset
from s2sr_qgis.core.networks import build_network
from s2sr_qgis.core.training.batches import Batches
from s2sr_qgis.core.training.fit import compile_model
from s2sr_qgis.core.training.run_card import spec_of

Feed = Callable[[], Taken]

AT_MOST = 5.0
"""Per cent that the input may cost."""


class SameBatch(keras.utils.PyDataset):
    """One batch, as often as there are steps."""

    def __init__(self, batch: Any, steps: int) -> None:
        super().__init__()
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Any:
        return self.batch


def main() -> int:
    """Print samples a second of both and the loss; exit with 1 where it is more than it may be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="coarsenet", help="coarsenet or dsen2")
    parser.add_argument("--blocks", type=int, default=4, help="residual blocks; few feel the input most")
    parser.add_argument("--features", type=int, default=48, help="channels")
    parser.add_argument("--batch-size", type=int, default=16, help="patches a step")
    parser.add_argument("--from-files", action="store_true", help="as datasets that are too large for the memory")
    parser.add_argument("--steps", type=int, default=20, help="of each repetition")
    parser.add_argument("--pairs", type=int, default=2 * REPETITIONS + 1, help=f"repetitions, at least {REPETITIONS}")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.pairs < REPETITIONS:
        parser.error(f"--pairs must be at least {REPETITIONS}: fewer show no spread")
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset"
        jobs.run(jobs.CreateSharpeningDatasetJob(scenes=[str(SAMPLE)], output=dataset, task="20m"))
        fed, held, samples = feeds(dataset, options)
        fed()  # compiles the step
        held()
        runs = in_turn({"fed": fed, "held": held}, options.pairs)
    figures = {
        "network": options.network,
        "blocks": options.blocks,
        "features": options.features,
        "batch_size": options.batch_size,
        "pairs": options.pairs,
        "samples_per_s": {name: spread([samples / taken.wall for taken in part]) for name, part in runs.items()},
        "loss_percent": loss(runs["held"], runs["fed"], "wall"),
        "loss_percent_processor": loss(runs["held"], runs["fed"], "processor"),
    }
    console = Console()
    console.print(f"{options.network} {options.blocks} x {options.features}, batches of {options.batch_size}")
    for name, label in (("fed", "from the dataset"), ("held", "from memory")):
        console.print(f"{label}: {shown(figures['samples_per_s'][name], 0)} samples a second")
    console.print(f"The input costs {shown(figures['loss_percent'], 1)} %, by processor time", end=" ")
    console.print(f"{shown(figures['loss_percent_processor'], 1)} %; at most {AT_MOST:g} % is allowed.")
    if options.json:
        options.json.write_text(json.dumps({**machine(), **figures}, indent=2) + "\n", encoding="utf-8")
    return 1 if figures["loss_percent"]["median"] > AT_MOST else 0


def loss(held: list[Taken], fed: list[Taken], clock: Literal["wall", "processor"]) -> dict[str, float]:
    """Spread of the share (per cent) of a fed step that is the input's."""
    shares = [1 - getattr(a, clock) / getattr(b, clock) for a, b in zip(held, fed, strict=True)]
    return spread([100 * share for share in shares])


def feeds(folder: Path, options: argparse.Namespace) -> tuple[Feed, Feed, int]:
    """Two calls that fit the same network for the same number of steps, and how many samples each sees."""
    dataset = read_dataset(folder)
    card = dataset.card
    job = jobs.TrainJob(
        datasets=[folder],
        output=folder / "run",
        network=options.network,
        batch_size=options.batch_size,
        steps_per_epoch=options.steps,
    )
    keras.utils.set_random_seed(0)
    size = {"blocks": options.blocks, "features": options.features}
    model = build_network(job.network, spec_of(card.tensors), size).model
    compile_model(model, job)
    lazy = dataset.arrays("train")
    arrays = lazy if options.from_files else {name: np.asarray(lazy[name]) for name in lazy}
    batches = Batches.of(job, [arrays], card.tensors[-2].name)
    samples = len(next(iter(batches[0][0].values())))
    calls = [
        partial(clocked, partial(model.fit, data, shuffle=False, verbose=0))
        for data in (batches, SameBatch(batches[0], options.steps))
    ]
    return calls[0], calls[1], samples * options.steps


if __name__ == "__main__":
    sys.exit(main())
