"""A cross-sensor dataset of seconds: a fine image of edges, and the same four times coarser."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from s2sr_qgis.core.dataset.card import DatasetCard, PatchCard, SourceCard, write_card
from s2sr_qgis.core.dataset.patches import PatchWriter
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster.degradation import degrade

BANDS = ["B04", "B03", "B02", "B08"]
COUNTS = {"train": 24, "valid": 6, "test": 6}


def scene(side: int, seed: int) -> np.ndarray:
    """DN of four bands, (4, side, side): fields with sharp edges, each band of another brightness."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[0:side, 0:side]
    image = np.full((side, side), 1200.0)
    for _ in range(10):
        angle, place, step = rng.uniform(0, np.pi), rng.uniform(-side / 2, side / 2), rng.normal(0, 300)
        across = (rows - side / 2) * np.sin(angle) + (cols - side / 2) * np.cos(angle)
        image += np.where(across > place, step, 0)
    image = np.clip(image, 200, 6000)
    return np.stack([image * factor for factor in (0.8, 0.9, 0.7, 2.0)]).astype(np.float32)


def cross_dataset(folder: Path, ratio: int = 4, size: int = 16, counts: dict[str, int] | None = None) -> Path:
    """Write a dataset of ``input_lr`` at 6 m and ``target`` at 6 m / ``ratio``."""
    folder.mkdir(parents=True)
    tensors = [
        PatchCard(name="input_lr", bands=BANDS, resolution=6.0, size=size),
        PatchCard(name="target", bands=BANDS, resolution=6.0 / ratio, size=size * ratio),
    ]
    with PatchWriter(folder, tensors) as writer:
        for split, count in (counts or COUNTS).items():
            for _ in range(count):
                fine = scene(size * ratio, sum(writer.counts.values()))
                writer.add(split, {"input_lr": degrade(fine, ratio, ratio / 2), "target": fine})
        writer.finish(6.0 / ratio, Progress())
        card = DatasetCard(
            task="cross-sensor",
            factor=ratio,
            tensors=tensors,
            counts=writer.counts,
            patch_size=size,
            step=size,
            split="blocks",
            seed=0,
            sources=[SourceCard(name="fields", level="L2A", licence="CC0-1.0", patches=writer.counts)],
        )
    write_card(card, folder)
    return folder
