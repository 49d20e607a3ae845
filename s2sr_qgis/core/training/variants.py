"""A model's narrow variants, written beside the float32 file and scored: 8 bits, 16 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import yaml

from ..dataset.card import TARGET, Dataset, Split, read_dataset
from ..errors import DatasetError, InputError, ModelError
from ..inference.card import MAX_LOSS, ModelCard, ModelFile, sha256, write_card
from ..inference.model import load_model
from ..networks.quantized import ranges
from ..progress import Progress
from .half import write_float16
from .parity import Patches, check_parity, expected, outputs, random_patches
from .quantize import calibrated, write_int8
from .run_card import CONFIG
from .score import score

Array = npt.NDArray[Any]

INT8, FLOAT16 = "model.int8.onnx", "model.float16.onnx"

CALIBRATION = 128
"""Real patches that ranges are taken from."""

SCORED = 512
"""Patches that variants are scored on where there is no test split."""

HALF_PARITY = 5e-3
"""Largest difference (reflectance) between float16 and Keras that a variant is kept with."""

ROUNDING = 3.0
"""How much the 8-bit file may differ from the trained network, in parts of what rounding changes in that.

The file rounds the residual sums as well, which half of the difference comes from; wrong kernels change far more.
"""


class Variants:
    """Writes and scores variants of a run's model in a folder that holds ``model.onnx`` and its card."""

    def __init__(self, run: Path, card: ModelCard, folder: Path, progress: Progress) -> None:
        self.run, self.card, self.folder, self.progress = run, card, folder, progress
        self.datasets = run_datasets(run)
        self.split, self.sets = _scored(self.datasets)
        self.plain = self._score("float32") if self.sets else 0.0

    def add_float16(self, model: keras.Model) -> None:
        """Write the 16-bit variant; leave it out where 16 bits are too few for this network."""
        write_float16(self.folder / self.card.files[0].file, self.folder / FLOAT16)
        file = self._add(FLOAT16, "float16")
        try:
            parity = check_parity(model, self.folder, self.card, random_patches(self.card), "float16")
        except ModelError:  # values that are not numbers
            parity = math.inf
        if parity <= HALF_PARITY:
            file.metrics["parity"] = float(f"{parity:.2g}")
            return
        self.card.files.remove(file)
        (self.folder / FLOAT16).unlink()
        self.progress.log(f"No float16 variant: it differs from Keras by {parity:.2g} in reflectance.", "warning")

    def add_int8(self, model: keras.Model, copy: keras.Model | None) -> None:
        """Write the 8-bit variant of a network: with the ranges of its trained copy, else with calibrated ones."""
        found = ranges(copy) if copy is not None else calibrated(model, calibration_patches(self.run))
        count = write_int8(model, self.folder / self.card.files[0].file, self.folder / INT8, found)
        if count < len(found):
            raise ModelError(
                f"Only {count} of {len(found)} convolutions were found in the ONNX file; the model was not written."
            )
        file = self._add(INT8, "int8")
        if copy is not None:
            self._check_rounding(file, model, copy)
        if file.loss > MAX_LOSS:
            self.progress.log(
                f"The 8-bit variant loses {file.loss:.1f} % against float32 (more than {MAX_LOSS:g} %), so it is used "
                "only on request; train with 'quantized' from this run's weights.",
                "warning",
            )

    def _check_rounding(self, file: ModelFile, model: keras.Model, copy: keras.Model) -> None:
        """Raise `ModelError` where the 8-bit file is not the network that was trained."""
        patches = _some(self.datasets[0].arrays(self.split), 4) if self.sets else random_patches(self.card)
        patches.pop(TARGET, None)
        trained = expected(copy, self.card, patches)
        found = outputs(load_model(self.folder, device="cpu", precision="int8"), patches)
        effect = _rms(expected(model, self.card, patches) - trained)
        part = _rms(found - trained) / max(effect, 1e-9)
        if part > ROUNDING:
            raise ModelError(
                f"The 8-bit file differs from the trained network by {100 * part:.0f} % of what rounding changes (at "
                f"most {100 * ROUNDING:g} % is allowed); the model was not written."
            )
        file.metrics["rounding_parity"] = float(f"{part:.2g}")

    def _add(self, name: str, precision: Any) -> ModelFile:
        file = ModelFile(file=name, precision=precision, sha256=sha256(self.folder / name))
        self.card.files.append(file)
        write_card(self.card, self.folder)
        if self.sets:
            rmse = self._score(precision)
            loss = 100 * (rmse / self.plain - 1)
            file.metrics = {
                "split": self.split,
                "patches": sum(len(part[TARGET]) for part in self.sets),
                "rmse": round(rmse, 3),
                "rmse_float32": round(self.plain, 3),
                "loss_percent": round(loss, 2),
            }
            self.progress.log(
                f"{name}: RMSE {rmse:.2f} DN, float32 {self.plain:.2f} DN ({loss:+.2f} %), {self.split} split."
            )
        return file

    def _score(self, precision: str) -> float:
        model = load_model(self.folder, device="cpu", precision=precision)
        low, bands = self.card.inputs[-1].name, self.card.output_bands
        figures = score(lambda part: outputs(model, part), self.sets, low, bands, self.progress)
        return float(figures["rmse_mean"])


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def run_datasets(run: Path) -> list[Dataset]:
    """The datasets of a run that are still there, each once."""
    config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    found = []
    for folder in dict.fromkeys(config.get("datasets", [])):
        try:
            found.append(read_dataset(folder))
        except DatasetError:
            continue
    return found


def calibration_patches(run: Path) -> Patches:
    """Inputs of real patches by name (n, h, w, c), DN, evenly from all datasets of a run. Raises `InputError`."""
    datasets = run_datasets(run)
    if not datasets:
        raise InputError(
            "None of the run's datasets is where its configuration says, so there are no patches to take 8-bit ranges "
            "from; put one back, or train with 'quantized'."
        )
    share = -(-CALIBRATION // len(datasets))
    parts = [_some(dataset.arrays("train" if dataset.count("train") else "test"), share) for dataset in datasets]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != TARGET}


def _scored(datasets: Sequence[Dataset]) -> tuple[Split, list[dict[str, Any]]]:
    """The split that variants are scored on, the test split where there is one, and its patches."""
    splits: tuple[Split, ...] = ("test", "valid", "train")
    for split in splits:
        having = [dataset for dataset in datasets if dataset.count(split)]
        if having and split == "test":
            return split, [dict(dataset.arrays(split)) for dataset in having]
        if having:
            share = -(-SCORED // len(having))
            return split, [_some(dataset.arrays(split), share) for dataset in having]
    return "test", []


def _some(arrays: Any, count: int) -> Patches:
    """So many patches, evenly spread."""
    total = len(arrays[TARGET])
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))
    return {name: np.asarray(array[list(chosen)]) for name, array in arrays.items()}
