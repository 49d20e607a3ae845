"""Datasets and trainings of seconds, through the jobs that users run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from products import make_band_folder

from s2sr_qgis.core import jobs
from s2sr_qgis.core.progress import Progress

NETWORK = {"blocks": 1, "features": 8}
TENSORS = {"20m": ["input_10m", "input_20m"], "60m": ["input_10m", "input_20m", "input_60m"]}


class Recorder(Progress):
    """Keeps what a job says; ``stop_after`` questions it wants the job to stop."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.lines: list[tuple[str, str]] = []
        self.metrics: list[dict[str, float]] = []
        self.artifacts: dict[str, str] = {}
        self.asked, self.stop_after = 0, stop_after

    def log(self, text: str, level: str = "info") -> None:
        self.lines.append((level, text))

    def metric(self, **values: float) -> None:
        self.metrics.append(values)

    def artifact(self, name: str, path: str) -> None:
        self.artifacts[name] = path

    def cancelled(self) -> bool:
        self.asked += 1
        return self.stop_after is not None and self.asked > self.stop_after


def make_dataset(folder: Path, task: str, **options: Any) -> Path:
    """A dataset of a synthetic product: 16 px patches for 20 m, 12 px for 60 m, in all three splits."""
    size = {"20m": 384, "60m": 576}[task]
    scene = make_band_folder(folder.parent / f"scene_{folder.name}", size=size, seed=3)
    settings = {
        "patch_size": {"20m": 16, "60m": 12}[task],
        "block_size": 2,
        "scene_options": {"processing_level": "L1C"},
        "licence": "CC0-1.0",
        **options,
    }
    shares = {"train": 0.6, "valid": 0.2, "test": 0.2}
    jobs.run(
        jobs.CreateSharpeningDatasetJob(scenes=[str(scene)], output=folder, task=task, seed=4, **{**shares, **settings})
    )
    return folder


def train(dataset: Path, output: Path, progress: Progress | None = None, **options: Any) -> dict[str, Any]:
    """Three epochs of four small batches, unless the options say otherwise."""
    settings = {"network_options": NETWORK, "epochs": 3, "steps_per_epoch": 4, "batch_size": 4, "warmup_steps": 2,
                "ema": 0.5, "learning_rate": 5e-3, "images": 2, "seed": 1}  # fmt: skip
    return jobs.run(jobs.TrainJob(datasets=[dataset], output=output, **{**settings, **options}), progress)
